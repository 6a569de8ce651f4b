"""How many threads compute a step, chosen by measuring.

On cores of its own, a step is fastest on all of them. Beside a busy neighbour, which may be another program or a
picture that is being decoded, the threads of every parallel operation wait for the one that has lost its core: a step
takes twice as long, or ten times, which one thread alone would hardly have noticed. And the operations of a small
model end sooner than a second thread wakes up. Only the time a step takes tells which it is. So now and then a few
steps run on another number of threads, in turns with steps on the usual one, and the faster number stays.

What is computed does not depend on the number of threads.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

_MIN_PAIRS, _MAX_PAIRS = 3, 15  # steps on either number of threads that are compared:
_TRIAL_S = 0.1  # as many as go into this, because short steps vary more
_FASTER = 0.95  # what wins takes at most this share of the time
_FAR_FASTER = 0.6  # and with this two pairs are enough
_HOPELESS = 1.5  # times as long as usual: the trial ends at once
_FIRST_HOPELESS = 3.0  # the first step on a number of threads also makes the kernels for it
_SLOWED_DOWN = 1.4  # times as long as usual, several times in a row: there may be a new neighbour
_NUM_SLOW = 3
_SHARE = 0.03  # of the time, at most, is lost by trials that are lost
_MIN_PAUSE_S = 0.25
_MAX_PATIENCE = 4  # pauses grow up to this many times while nothing changes


def team_sizes(most: int) -> list[int]:
    """Return the numbers of threads that are tried: 1, 2, 4, ..., `most` - 1 (one core for the neighbour), `most`."""
    return sorted({1 << n for n in range(most.bit_length())} | {max(1, most - 1), most})


class Team:
    """Sets the number of threads for each step. Used by one thread.

    Args:
        most: threads, at most.
        use: what sets the number for the calling thread.
        clock: seconds.
    """

    def __init__(self, most: int, use: Callable[[int], object], clock: Callable[[], float] = time.perf_counter) -> None:
        self.threads = most
        self._sizes = team_sizes(most)
        self._use, self._clock = use, clock
        self._loads: dict[tuple[str, int], _Load] = {}

    @contextmanager
    def at_work(self, kind: str, size: int) -> Iterator[None]:
        """Run a step on the number of threads that is best for its like: same kind, `size` within a factor of two."""
        if len(self._sizes) == 1:
            yield
            return
        load = self._loads.setdefault((kind, size.bit_length()), _Load(len(self._sizes)))
        started = self._clock()
        threads = self._sizes[load.choose(started)]
        if threads != self.threads:
            self._use(threads)
            self.threads = threads
        yield
        ended = self._clock()
        load.took(ended - started, max(1, size), ended)


@dataclass
class _Trial:
    """Steps on two numbers of threads: usual, other (which does not count), other, usual, other, usual, other."""

    direction: int
    usual: list[float] = field(default_factory=list)  # seconds of one unit of size
    other: list[float] = field(default_factory=list)
    num_steps: int = 0
    seconds: float = 0.0
    lost_s: float = 0.0

    @property
    def on_other(self) -> bool:
        return self.num_steps == 1 or (self.num_steps > 0 and self.num_steps % 2 == 0)


class _Load:
    """What was learned about one kind of step. Numbers of threads are indices of `team_sizes`."""

    def __init__(self, num_sizes: int) -> None:
        self._num_sizes = num_sizes
        self._best = num_sizes - 1
        self._usual = 0.0  # seconds of one unit of size on the best number, a running mean
        self._num_known = 0  # steps since the best number has changed
        self._num_slow = 0
        self._trial: _Trial | None = None
        self._turn = -1  # the direction that is tried next
        self._ended_at = {-1: 0.0, 1: 0.0}
        self._again_at = {-1: 0.0, 1: 0.0}
        self._patience = {-1: 1, 1: 1}

    def choose(self, now: float) -> int:
        """Return the number of threads for the next step."""
        if self._trial is None and self._num_known >= _NUM_SLOW:
            for direction in (self._turn, -self._turn):
                if 0 <= self._best + direction < self._num_sizes and now >= self._again_at[direction]:
                    self._trial = _Trial(direction)
                    break
        trial = self._trial
        return self._best + trial.direction if trial is not None and trial.on_other else self._best

    def took(self, seconds: float, size: int, now: float) -> None:
        """Learn from a step."""
        unit_s = seconds / size
        if self._trial is None:
            self._settle(unit_s, now)
            return
        trial, on_other, first = self._trial, self._trial.on_other, self._trial.num_steps == 1
        trial.num_steps += 1
        trial.seconds += seconds
        if not on_other:
            trial.usual.append(unit_s)
            return
        usual = max(trial.usual)
        trial.lost_s += max(0.0, seconds - usual * size)
        if unit_s > usual * (_FIRST_HOPELESS if first else _HOPELESS):
            self._lose(trial, now)
        elif not first:
            trial.other.append(unit_s)
            if len(trial.usual) == len(trial.other):
                self._compare(trial, now)

    def _settle(self, unit_s: float, now: float) -> None:
        self._num_slow = self._num_slow + 1 if self._num_known and unit_s > _SLOWED_DOWN * self._usual else 0
        self._num_known += 1
        self._usual += max(0.1, 1 / self._num_known) * (unit_s - self._usual)
        if self._num_slow == _NUM_SLOW:
            # Fewer threads may be better now. But where times jump about by themselves this must not happen always.
            self._turn, self._patience[-1] = -1, 1
            pause = self._again_at[-1] - self._ended_at[-1]
            self._again_at[-1] = min(self._again_at[-1], self._ended_at[-1] + pause / 4)

    def _compare(self, trial: _Trial, now: float) -> None:
        ratio = statistics.median(trial.other) / statistics.median(trial.usual)
        pairs = len(trial.other)
        enough = pairs == _MAX_PAIRS or (pairs >= _MIN_PAIRS and trial.seconds >= _TRIAL_S)
        if ratio < (_FASTER if enough else _FAR_FASTER if pairs > 1 else 0):
            self._best += trial.direction
            self._usual, self._num_known = statistics.median(trial.other), 1
            self._end(trial, now, 0.0)
            self._patience = {-1: 1, 1: 1}
            self._again_at[trial.direction] = now  # perhaps further
        elif enough:
            self._usual = statistics.median(trial.usual)
            self._lose(trial, now)

    def _lose(self, trial: _Trial, now: float) -> None:
        patience = self._patience[trial.direction]
        self._end(trial, now, patience * trial.lost_s / _SHARE)
        self._patience[trial.direction] = min(2 * patience, _MAX_PATIENCE)
        self._turn = -trial.direction

    def _end(self, trial: _Trial, now: float, pause: float) -> None:
        self._trial, self._num_slow = None, 0
        self._ended_at[trial.direction] = now
        self._again_at[trial.direction] = now + max(_MIN_PAUSE_S, pause)
        if pause == 0.0:
            self._again_at[-trial.direction] = now + _MIN_PAUSE_S
