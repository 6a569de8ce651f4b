"""Registers and removes models: what is kept of them, and the pool that loads them, change together.

What is kept changes first, in one transaction, and then the pool: a crash between the two leaves a change that nobody
was told of, whole, and never half of one. A gateway that shares the database follows what others change in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Collection, Coroutine, Sequence
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import msgspec

from sensorium.errors import AlreadyRegistered, ConfigurationError, InvalidRequest, ModelNotFound, SensoriumError
from sensorium.registry.interface import Pool
from sensorium.registry.kept import Kept, Snapshot, already, same
from sensorium.registry.registration import checked
from sensorium.registry.spec import ModelSpec
from sensorium.registry.store import Store
from sensorium.settings import MediaLimits

T = TypeVar("T")

_FOLLOW_S = 2.0
_UNREAD = -1  # the revision of what was never read

log = logging.getLogger(__name__)


class Registrar:
    """The registered models of one gateway.

    Args:
        pool: loads them. What it has now was named on the command line: it is not kept, and cannot be removed.
        store: where they are kept; None: nowhere.
        media: the server's ceilings, which hold for every model.
    """

    def __init__(
        self, pool: Pool, store: Store | None = None, media: MediaLimits | None = None, follow_s: float = _FOLLOW_S
    ) -> None:
        self._pool = pool
        self._store = store
        self._media = media
        self._follow_s = follow_s
        self._fixed: Collection[str] = frozenset(pool.names())
        self._kept: dict[str, Kept] = {}
        self._as_of: dict[str, int] = {}  # alias -> revision of the change that we know of
        self._revision = _UNREAD
        self._file: tuple[str, Sequence[ModelSpec]] = ("", ())
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._following: asyncio.Task[None] | None = None

    def spec(self, alias: str) -> ModelSpec | None:
        """Return what is registered as `alias`; None: nothing is."""
        kept = self._kept.get(alias)
        return kept.spec if kept else None

    def source(self, alias: str) -> str:
        """Return where a name comes from: "command line", "registry", or the path of a models.toml."""
        kept = self._kept.get(alias)
        return "command line" if kept is None else kept.source or "registry"

    async def start(self, models: Sequence[ModelSpec] = (), source: str = "", *, required: bool = False) -> None:
        """Hand over to the pool what is kept, and what a file says; then follow the changes of others.

        Args:
            models: what the file `source` says; what it said once and no longer says is forgotten.
            required: fail if nothing can be read; otherwise that is logged, and tried again.

        Raises:
            ConfigurationError: a name of the file is taken; or the registry cannot be read (`required`).
        """
        for spec in models:
            if spec.alias in self._fixed:
                raise ConfigurationError(f"{source}: {spec.alias!r} is a model of the command line already.")
        self._file = source, tuple(models)
        snapshot = Snapshot(_UNREAD, {spec.alias: Kept(spec, source) for spec in models})
        if self._store is not None:
            try:
                if source or not self._store.is_new():
                    snapshot = await self._read(self._store)
            except SensoriumError as error:
                if required:
                    raise ConfigurationError(error.message) from None
                log.error("%s Registered models are not known until it can be read.", error.message)
            self._following = asyncio.create_task(self._follow(), name="registry")
        await self._take_all(snapshot)

    async def register(self, spec: ModelSpec, *, replace: bool = False) -> tuple[bool, ModelSpec]:
        """Keep a model and let the pool answer to its alias; return whether that is new, and what is kept.

        Raises:
            AlreadyRegistered: the alias is taken, and not `replace`, or by the command line.
            InvalidRequest: it could never be loaded.
            ModelNotFound: the base of an adapter is not there.
            RegistryUnavailable: it could not be kept; nothing has changed.
        """
        return await self._alone(self._register(spec, replace))

    async def remove(self, alias: str) -> None:
        """Forget a model; done when its requests have ended and its memory is free.

        Raises:
            ModelNotFound: there is none.
            InvalidRequest: it was named on the command line, or is the base of adapters.
            RegistryUnavailable: it could not be forgotten; nothing has changed.
        """
        unknown = alias not in self._kept and alias not in self._fixed
        if unknown and self._store is not None and not self._store.is_new():
            await self._take_all(await self._store.snapshot())  # another server may have registered it a moment ago
        await self._alone(self._remove(alias))

    async def close(self) -> None:
        """Follow no more; let changes under way end."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=2.0)
        if self._store is not None:
            await self._store.close()

    async def _register(self, spec: ModelSpec, replace: bool) -> tuple[bool, ModelSpec]:
        async with self._locked(spec.alias):
            if spec.alias in self._fixed:
                raise AlreadyRegistered(
                    f"{spec.alias!r} was named when the server was started; choose another alias.", param="alias"
                )
            if spec.alias not in self._kept and spec.alias in self._pool.names():
                raise AlreadyRegistered(f"{spec.alias!r} is the name of an adapter.", param="alias")
            self._check_base(spec)
            spec = await asyncio.to_thread(checked, spec)  # after the cheap refusals: it reads files
            spec = msgspec.structs.replace(spec, created=spec.created or time.time())
            new, kept, revision = await self._put(spec, replace)
            before = self._kept.get(spec.alias)
            try:
                await self._take(spec.alias, kept, revision)
            except SensoriumError:
                if new:
                    await self._undo(spec.alias, before)
                raise
            return new, kept.spec

    async def _put(self, spec: ModelSpec, replace: bool) -> tuple[bool, Kept, int]:
        if self._store is not None:
            return await self._store.put(spec, "", replace, spec.lora_of if spec.lora_of in self._kept else None)
        old = self._kept.get(spec.alias)
        if old is not None and same(old.spec, spec):
            return False, old, 0
        if old is not None and not replace:
            raise already(old.spec, spec)
        return True, Kept(spec), 0

    async def _undo(self, alias: str, before: Kept | None) -> None:
        """Keep again what was kept before a change that the pool refused."""
        with contextlib.suppress(SensoriumError):
            revision = self._as_of.get(alias, 0)
            if self._store is not None and before is None:
                revision = await self._store.remove(alias)
            elif self._store is not None and before is not None:
                revision = (await self._store.put(before.spec, before.source, True)).revision
            await self._take(alias, before, revision)

    async def _remove(self, alias: str) -> None:
        async with self._locked(alias):
            if alias in self._fixed:
                raise InvalidRequest(
                    f"{alias!r} was named when the server was started, and stays as long as it runs; `unload` gives "
                    "its memory back.",
                    param="alias",
                )
            if alias not in self._kept:
                raise ModelNotFound(f"Model {alias[:200]} not found", param="alias")
            over = [kept.spec.alias for kept in self._kept.values() if kept.spec.lora_of == alias]
            if over:
                shown = ", ".join(map(repr, over[:5]))
                raise InvalidRequest(f"{alias!r} is the base of {shown}; remove what is over it first.", param="alias")
            if self._store is not None:
                try:
                    self._as_of[alias] = await self._store.remove(alias)
                except ModelNotFound:
                    log.info("model %r: another server has removed it already", alias)
            del self._kept[alias]
            with contextlib.suppress(ModelNotFound):
                await self._pool.remove(alias)
            log.info("model %r: removed", alias)

    def _check_base(self, spec: ModelSpec) -> None:
        if spec.lora_of is None:
            return
        base = self._kept.get(spec.lora_of)
        if spec.lora_of not in self._pool.names():
            raise ModelNotFound(
                f"`lora_of`: there is no model {spec.lora_of[:200]!r}; register it first.", param="lora_of"
            )
        if spec.lora_of == spec.alias or (base is not None and base.spec.lora_of) or self._pool.base(spec.lora_of):
            raise InvalidRequest(f"`lora_of`: {spec.lora_of[:200]!r} is an adapter itself.", param="lora_of")

    async def _take(self, alias: str, kept: Kept | None, revision: int) -> None:
        """Let the pool have what is kept of one alias. The caller has its lock."""
        old = self._kept.get(alias)
        if old is not None and (kept is None or not same(old.spec, kept.spec)):
            del self._kept[alias]
            await self._let_go(alias)
        if kept is not None and alias not in self._kept:
            self._pool.add(self._for_this_machine(kept.spec))
            log.info("model %r: registered", alias)
        if kept is not None:
            self._kept[alias] = kept
        self._as_of[alias] = max(revision, self._as_of.get(alias, _UNREAD))

    async def _let_go(self, alias: str) -> None:
        """Take a name away from the pool; its running requests end, and its memory is free, some time after."""
        task = self._spawn(self._pool.remove(alias))
        while not task.done() and alias in self._pool.names():
            await asyncio.sleep(0)
        if task.done() and task.exception() is not None:
            log.info("model %r: %s", alias, task.exception())

    async def _read(self, store: Store) -> Snapshot:
        """Read everything for the first time."""
        source, models = self._file
        snapshot = await (store.apply(source, models) if source else store.snapshot())
        await store.read_measurements()
        return snapshot

    async def _follow(self) -> None:
        """Take over what others change in the database."""
        assert self._store is not None
        silent = False
        while True:
            await asyncio.sleep(self._follow_s)
            unread = self._revision == _UNREAD
            if unread and self._store.is_new() and not self._file[0]:
                continue  # nobody has registered anything yet
            try:
                if unread:
                    await self._take_all(await self._read(self._store))
                elif await self._store.revision() != self._revision:
                    await self._take_all(await self._store.snapshot())
                silent = False
            except SensoriumError as error:
                if not silent:
                    log.warning("%s Changes of other servers are not seen meanwhile.", error.message)
                silent = True
            except Exception:
                log.exception("what others have registered could not be taken over")

    async def _take_all(self, snapshot: Snapshot) -> None:
        kept = snapshot.kept
        gone = sorted(set(self._kept) - set(kept), key=lambda alias: not self._kept[alias].spec.lora_of)
        there = sorted(kept, key=lambda alias: bool(kept[alias].spec.lora_of))  # adapters after their bases
        for alias in (*gone, *there):
            if alias in self._fixed:
                log.warning("model %r: the command line's counts, not the registered one", alias)
                continue
            async with self._locked(alias):
                if snapshot.revision <= self._as_of.get(alias, _UNREAD - 1):
                    continue  # changed here since the snapshot was taken
                try:
                    await self._take(alias, kept.get(alias), snapshot.revision)
                except SensoriumError as error:
                    log.error("model %r: registered, but cannot be served here: %s", alias, error.message)
        self._revision = snapshot.revision

    def _for_this_machine(self, spec: ModelSpec) -> ModelSpec:
        if self._media is None:
            return spec
        return msgspec.structs.replace(spec, settings=msgspec.structs.replace(spec.settings, media=self._media))

    @contextlib.asynccontextmanager
    async def _locked(self, alias: str) -> AsyncIterator[None]:
        """Do one thing with an alias at a time."""
        lock = self._locks.setdefault(alias, asyncio.Lock())
        async with lock:
            yield

    async def _alone(self, change: Coroutine[Any, Any, T]) -> T:
        """Run a change to its end, whatever becomes of the caller."""
        return await asyncio.shield(self._spawn(change))

    def _spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waits for it gets it; if nobody does any more, it is no news
