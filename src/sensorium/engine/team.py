"""How many threads compute a step, chosen by measuring.

On cores of its own, a step is fastest on all of them. Beside a busy neighbour, which may be another program or a
picture that is being decoded, the threads of every parallel operation wait for the one that has lost its core: a step
takes twice as long, or ten times, which one thread alone would hardly have noticed. And the operations of a small
model end sooner than a second thread wakes up. Only the time a step takes tells which it is. So now and then a few
steps run on another number of threads, in turns with steps on the usual one, and the faster number stays. That happens
soon where there are signs of a neighbour: steps slow down, or the kernel takes cores from threads that compute.

What is computed does not depend on the number of threads.
"""

from __future__ import annotations

import math
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

_MIN_PAIRS, _MAX_PAIRS = 3, 15  # steps on either number of threads that are compared:
_TRIAL_S = 0.1  # as many as go into this, because short steps vary more
_FASTER = 0.92  # what wins takes at most this share of the time
_FAR_FASTER = 0.6  # and with this two pairs are enough,
_NO_QUESTION = 0.4  # with this one, and all other steps follow: threads are in each other's way
_HOPELESS = 1.5  # times as long as usual: the trial ends at once,
_HOPELESS_S = 0.05  # where it has lost this much; of short steps a single one says little
_SHORT_S = 0.02  # of such steps the first on a number of threads does not count: it also makes the kernels for it
_SLOWED_DOWN = 1.4  # times as long as usual: a sign of a neighbour
# How often a thread has lost its core to another: below 60 times a second alone, above 270 beside a neighbour.
_PUSHED_OUT_A_SECOND, _PUSHED_OUT = 150.0, 3
_NUM_SIGNS = 2  # in a row
_SHARE = 0.02  # of the time, at most, is lost by trials that are lost; where there are signs, four times that
_MIN_PAUSE_S = 0.25
_PAUSE = 10.0  # times as long as the trial, at least: the step behind one on fewer threads wakes the others up
_MAX_PATIENCE = 8  # pauses grow up to this many times while nothing changes
# Who waits for a token would feel a long step on one thread. So steps with many tokens are tried on fewer threads only
# where there are signs, or where those with few have found something.
_FEW = 16


def team_sizes(most: int) -> list[int]:
    """Return the numbers of threads that are tried: 1, 2, 4, ..., `most` - 1 (one core for the neighbour), `most`."""
    return sorted({1 << n for n in range(most.bit_length())} | {max(1, most - 1), most})


class Team:
    """Sets the number of threads for each step. Used by one thread.

    Args:
        most: threads, at most.
        use: what sets the number for the calling thread.
        clock: seconds.
        pushed_out: how often threads of this process have lost their core to others.
    """

    def __init__(
        self,
        most: int,
        use: Callable[[int], object],
        clock: Callable[[], float] = time.perf_counter,
        pushed_out: Callable[[], int] = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw,
    ) -> None:
        self.threads = most
        self._sizes = team_sizes(most)
        self._use, self._clock, self._pushed_out = use, clock, pushed_out
        self._loads: dict[tuple[str, int], _Load] = {}
        self._losses = _Losses()

    @contextmanager
    def at_work(self, kind: str, size: int) -> Iterator[None]:
        """Run a step on the number of threads that is best for its like: same kind, about the same size."""
        if len(self._sizes) == 1:
            yield
            return
        load = self._load(kind, size)
        started = self._clock()
        threads = self._sizes[load.choose(started)]
        if threads != self.threads:
            self._use(threads)
            self.threads = threads
        pushed_out = self._pushed_out()
        yield
        ended = self._clock()
        crowded = self._pushed_out() - pushed_out > max(_PUSHED_OUT, _PUSHED_OUT_A_SECOND * (ended - started))
        moved = load.took(ended - started, max(1, size), ended, crowded)
        if moved is not None:
            for other in self._loads.values():
                if other is not load:
                    other.hear(moved, ended)

    def _load(self, kind: str, size: int) -> _Load:
        key = kind, round(2 * math.log2(max(1, size)))
        load = self._loads.get(key)
        if load is None:
            near = [(abs(k[1] - key[1]), known.best) for k, known in self._loads.items() if k[0] == kind]
            top = len(self._sizes) - 1
            best = min(near)[1] if near else top
            found = any(known.best < top for known in self._loads.values())
            try_at = -math.inf if found or size < _FEW else math.inf
            load = self._loads[key] = _Load(len(self._sizes), best, try_at, size < _FEW, self._losses)
        return load


class _Losses:
    """The time that all trials have lost."""

    def __init__(self) -> None:
        self._free_at = self._soon_at = -math.inf

    def add(self, seconds: float, now: float) -> None:
        """Count what a trial has lost."""
        self._free_at = max(self._free_at, now) + seconds / _SHARE
        self._soon_at = max(self._soon_at, now) + seconds / _SHARE / 4

    def allow(self, now: float, signs: bool) -> bool:
        """Whether another may be made, with or without signs that it will be won."""
        return now >= (self._soon_at if signs else self._free_at)


class _Moved(NamedTuple):
    """A kind of step has changed to another number of threads: the direction, and the time now over that before."""

    direction: int
    ratio: float


@dataclass
class _Trial:
    """Steps on two numbers of threads: usual, other (which may not count), other, usual, other, usual, other."""

    direction: int
    usual: list[float] = field(default_factory=list)  # seconds of one unit of size
    other: list[float] = field(default_factory=list)
    warm: bool = False  # a short step on the other number has been made, which does not count
    seconds: float = 0.0
    lost_s: float = 0.0

    @property
    def on_other(self) -> bool:
        return len(self.other) < len(self.usual)


class _Load:
    """What was learned about one kind of step. Numbers of threads are indices of `team_sizes`."""

    def __init__(self, num_sizes: int, best: int, try_at: float, few: bool, losses: _Losses) -> None:
        self.best = best
        self._num_sizes, self._few, self._losses = num_sizes, few, losses
        self._usual = 0.0  # seconds of one unit of size on the best number, a running mean
        self._num_known = 0  # steps since the best number has changed
        self._num_signs = 0  # of a neighbour
        self._trial: _Trial | None = None
        self._turn = -1  # the direction that is tried next
        self._hinted = 0  # the direction that there are signs for
        self._try_at = {-1: try_at, 1: try_at}
        self._lost_at = {-1: -math.inf, 1: -math.inf}
        self._pause = {-1: 0.0, 1: 0.0}
        self._patience = {-1: 1, 1: 1}

    def choose(self, now: float) -> int:
        """Return the number of threads for the next step."""
        if self._trial is None and self._num_known:
            for direction in (self._turn, -self._turn):
                there = 0 <= self.best + direction < self._num_sizes and now >= self._try_at[direction]
                if there and self._losses.allow(now, direction == self._hinted):
                    self._trial, self._hinted = _Trial(direction), 0
                    break
        trial = self._trial
        return self.best + trial.direction if trial is not None and trial.on_other else self.best

    def took(self, seconds: float, size: int, now: float, crowded: bool) -> _Moved | None:
        """Learn from a step; say if the best number has just moved."""
        unit_s = seconds / size
        trial = self._trial
        if trial is None:
            self._settle(unit_s, crowded)
            return None
        trial.seconds += seconds
        if not trial.on_other:
            trial.usual.append(unit_s)
            return None
        usual = max(trial.usual)
        lost_s = max(0.0, seconds - statistics.mean(trial.usual) * size)
        trial.lost_s += lost_s
        counts = trial.warm or usual * size > _SHORT_S or lost_s > _HOPELESS_S
        if not counts:
            trial.warm = True
        elif unit_s > usual * _HOPELESS and trial.lost_s > _HOPELESS_S:
            self._lose(trial, now)
        else:
            trial.other.append(unit_s)
            return self._compare(trial, now)
        return None

    def hear(self, moved: _Moved, now: float) -> None:
        """Another kind of step has moved: follow, or try it soon."""
        if moved.ratio < _NO_QUESTION and 0 <= self.best + moved.direction < self._num_sizes:
            self._move(moved.direction, now)
        else:
            self._patience[moved.direction] = 1
            self._hint(moved.direction)

    def _hint(self, direction: int) -> None:
        """Something has changed: try this direction soon, unless it has just been tried in vain."""
        self._turn = self._hinted = direction
        soon = self._lost_at[direction] + self._pause[direction] / 4
        self._try_at[direction] = min(self._try_at[direction], soon)

    def _settle(self, unit_s: float, crowded: bool) -> None:
        sign = crowded or (self._num_known > 0 and unit_s > _SLOWED_DOWN * self._usual)
        self._num_signs = self._num_signs + 1 if sign else 0
        self._num_known += 1
        self._usual += max(0.1, 1 / self._num_known) * (unit_s - self._usual)
        if self._num_signs >= _NUM_SIGNS:
            self._hint(-1)

    def _compare(self, trial: _Trial, now: float) -> _Moved | None:
        ratio = statistics.median(trial.other) / statistics.median(trial.usual)
        pairs = len(trial.other)
        enough = pairs == _MAX_PAIRS or (pairs >= _MIN_PAIRS and trial.seconds >= _TRIAL_S)
        if ratio < (_FASTER if enough else _FAR_FASTER if pairs > 1 else 0 if trial.warm else _NO_QUESTION):
            self._move(trial.direction, now)
            return _Moved(trial.direction, ratio)
        if enough:
            self._usual = statistics.median(trial.usual)
            self._lose(trial, now)
        return None

    def _move(self, direction: int, now: float) -> None:
        self.best += direction
        self._num_known = self._num_signs = 0
        self._trial = None
        self._patience = {-1: 1, 1: 1}
        self._turn = direction  # perhaps further
        self._try_at = {direction: now, -direction: now + _MIN_PAUSE_S}

    def _lose(self, trial: _Trial, now: float) -> None:
        direction = trial.direction
        self._losses.add(trial.lost_s, now)
        self._trial, self._num_signs = None, 0
        pause = max(_MIN_PAUSE_S, _PAUSE * trial.seconds, trial.lost_s / _SHARE)
        self._pause[direction] = self._patience[direction] * pause
        self._lost_at[direction] = now
        self._try_at[direction] = now + self._pause[direction] if self._few or direction > 0 else math.inf
        self._patience[direction] = min(2 * self._patience[direction], _MAX_PATIENCE)
        self._turn = -direction
