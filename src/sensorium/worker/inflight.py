"""The requests a model is working on, and where their events go. Used on both sides of a process border."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable

from sensorium.errors import ErrorInfo, InvalidRequest, SensoriumError, from_info
from sensorium.types import Delta, Event, Request
from sensorium.worker.frames import Done, Tokens

Answer = Tokens | Done
_LATEST = 0.2  # the latest request's share of the average


class _Inbox:
    """Events of one request that its reader has not taken yet."""

    def __init__(self, choices: int) -> None:
        self.choices_left = choices
        self.events: list[Event] = []
        self.error: ErrorInfo | None = None
        self._waiter: asyncio.Future[None] | None = None

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def take(self) -> list[Event]:
        """Return what is there; wait if that is nothing. Events before an error come before it."""
        while not self.events:
            if self.error is not None:
                raise from_info(self.error)
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        taken, self.events = self.events, []
        return taken


class InFlight:
    """Everything asked of one model and not answered yet. Belongs to one event loop."""

    def __init__(self) -> None:
        self._inboxes: dict[str, _Inbox] = {}
        self._questions: dict[str, asyncio.Future[Answer]] = {}
        self._ended: ErrorInfo | None = None
        self.num_finished = 0
        self.ttft_s = 0.0  # seconds to the first token: an average in which the latest counts most

    def __len__(self) -> int:
        return len(self._inboxes) + len(self._questions)

    def deliver(self, events: Iterable[Event]) -> None:
        """Hand each event to its request; one that is not (or no longer) known is dropped."""
        touched = set()
        for event in events:
            inbox = self._inboxes.get(event.id)
            if inbox is not None:
                inbox.events.append(event)
                touched.add(inbox)
        for inbox in touched:
            inbox.wake()

    def answer(self, answer: Answer) -> None:
        """Answer a `question`."""
        question = self._questions.get(answer.id)
        if question is not None and not question.done():
            question.set_result(answer)

    def fail(self, request_id: str, error: ErrorInfo) -> None:
        """End one request or question with an error."""
        inbox = self._inboxes.get(request_id)
        if inbox is not None and inbox.error is None:
            inbox.error = error
            inbox.wake()
        question = self._questions.get(request_id)
        if question is not None and not question.done():
            question.set_exception(from_info(error))

    def fail_all(self, error: ErrorInfo) -> None:
        """End everything, and whatever is asked later, with an error."""
        self._ended = error
        for request_id in [*self._inboxes, *self._questions]:
            self.fail(request_id, error)

    async def generate(
        self, request: Request, submit: Callable[[], Awaitable[None]], abort: Callable[[], None]
    ) -> AsyncGenerator[Event, None]:
        """Submit a request and yield its events until each choice has its last.

        Closing the generator before that calls `abort`.

        Raises:
            SensoriumError: the request failed, or the model is gone.
        """
        self._check(request.id)
        inbox = self._inboxes[request.id] = _Inbox(request.sampling.n)
        running, began = True, time.monotonic()
        waited = False  # for the first token
        try:
            await submit()
            while inbox.choices_left:
                for event in await inbox.take():
                    if not waited and isinstance(event, Delta):
                        waited = True
                        self.ttft_s += _LATEST * (time.monotonic() - began - self.ttft_s)
                    if isinstance(event, Delta) and event.finish_reason is not None:
                        inbox.choices_left -= 1
                        if not inbox.choices_left:
                            running = False
                            self.num_finished += 1
                    yield event
        except SensoriumError:
            running = False
            raise
        finally:
            del self._inboxes[request.id]
            if running:
                abort()

    async def question(self, request_id: str, submit: Callable[[], Awaitable[None]]) -> Answer:
        """Submit something that has one answer, and return it.

        Raises:
            SensoriumError: it failed, or the model is gone.
        """
        self._check(request_id)
        question: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._questions[request_id] = question
        try:
            await submit()
            return await question
        finally:
            del self._questions[request_id]

    def _check(self, request_id: str) -> None:
        if self._ended is not None:
            raise from_info(self._ended)
        if request_id in self._inboxes or request_id in self._questions:
            raise InvalidRequest(
                f"A request with the id {request_id!r} is running; ids must differ.", code="duplicate_id"
            )
