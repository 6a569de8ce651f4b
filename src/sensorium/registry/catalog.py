"""What is registered, kept in a database: every change is one transaction, with a revision that others watch.

Blocking; `store.py` runs it in a thread of its own.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
import sqlalchemy as sql

from sensorium.errors import AlreadyRegistered, InvalidRequest, ModelNotFound
from sensorium.registry.database import connect, database_url, measurements, meta, models, reading, refusing, writing
from sensorium.registry.kept import Kept, Snapshot, already, same
from sensorium.registry.measures import Measured
from sensorium.registry.spec import ModelSpec

_MOST_MEASUREMENTS = 10_000

log = logging.getLogger(__name__)


class Put(NamedTuple):
    """What registering came to: whether something is new, what is kept now, and as of which revision."""

    new: bool
    kept: Kept
    revision: int


class Catalog:
    """The registered models in the database at `location`; several processes may have it open.

    Raises:
        RegistryUnavailable: by each method: the database is full, locked, read-only or away; nothing was changed.
        ConfigurationError: `location` is no database, or of a newer version.
    """

    def __init__(self, location: str) -> None:
        self._url = database_url(location)
        self._engine = connect(self._url)

    def close(self) -> None:
        """Close its connections."""
        self._engine.dispose()

    def revision(self) -> int:
        """Return the number of the last change."""
        with refusing(self._url), self._engine.begin() as connection:
            return _revision(connection)

    def snapshot(self) -> Snapshot:
        """Return everything that is kept, as of one moment. A row that cannot be read is left out, and logged."""
        with refusing(self._url), reading(self._engine) as connection:
            return Snapshot(_revision(connection), _all(connection))

    def put(self, spec: ModelSpec, source: str = "", replace: bool = False, over: str | None = None) -> Put:
        """Keep a model.

        Args:
            over: its base, where that is kept here too: it must still be.

        Raises:
            AlreadyRegistered: another spec has this alias, and not `replace`.
            ModelNotFound: `over` has been removed.
        """
        with refusing(self._url), writing(self._engine) as connection:
            revision = _next(connection)  # first: it makes others who write wait
            old = _one(connection, spec.alias)
            if old is not None and (same(old.spec, spec) or not replace):
                connection.rollback()
                if not same(old.spec, spec):
                    raise already(old.spec, spec)
                return Put(False, old, revision - 1)
            if (
                over is not None
                and not connection.execute(sql.select(models.c.alias).where(models.c.alias == over)).all()
            ):
                raise ModelNotFound(f"`lora_of`: {over[:200]!r} has just been removed.", param="lora_of")
            kept = Kept(spec, source)
            _write(connection, kept, revision)
        return Put(True, kept, revision)

    def remove(self, alias: str) -> int:
        """Forget a model; return the revision.

        Raises:
            ModelNotFound: there is none of this alias.
            InvalidRequest: adapters are registered over it.
        """
        with refusing(self._url), writing(self._engine) as connection:
            revision = _next(connection)
            over = connection.execute(sql.select(models.c.alias).where(models.c.lora_of == alias)).scalars().all()
            if over:
                shown = ", ".join(map(repr, over[:5]))
                raise InvalidRequest(
                    f"{alias!r} is the base of {shown}; remove {'it' if len(over) == 1 else 'them'} first.",
                    param="alias",
                )
            if not connection.execute(models.delete().where(models.c.alias == alias)).rowcount:
                raise ModelNotFound(f"Model {alias} not found: nothing is registered by this name.", param="alias")
        return revision

    def apply(self, source: str, specs: Sequence[ModelSpec]) -> Snapshot:
        """Make what came from `source` equal to `specs`, all of it or nothing; return everything that is kept."""
        with refusing(self._url), writing(self._engine) as connection:
            revision = _next(connection)
            there = _all(connection)
            wanted = {spec.alias: spec for spec in specs}
            gone = [alias for alias, kept in there.items() if kept.source == source and alias not in wanted]
            changed = [
                Kept(spec, source)
                for alias, spec in wanted.items()
                if alias not in there or there[alias].source != source or not same(there[alias].spec, spec)
            ]
            if not gone and not changed:
                connection.rollback()
                return Snapshot(revision - 1, there)
            if gone:
                connection.execute(models.delete().where(models.c.alias.in_(gone)))
            for kept in changed:
                _write(connection, kept, revision)
            return Snapshot(revision, _all(connection))

    def measurements(self) -> Mapping[str, Measured]:
        """Return the measured sizes, the newest ones if they are many."""
        newest = sql.select(measurements).order_by(measurements.c.at.desc()).limit(_MOST_MEASUREMENTS)
        with refusing(self._url), self._engine.begin() as connection:
            rows = connection.execute(newest).all()
        found = {}
        for row in rows:
            try:
                found[row.key] = msgspec.json.decode(row.measured, type=Measured)
            except msgspec.DecodeError:
                continue  # measured again with the next load
        return found

    def remember(self, key: str, measured: Measured) -> None:
        """Keep a measured size."""
        row = {"measured": msgspec.json.encode(measured).decode(), "at": time.time()}
        with refusing(self._url), writing(self._engine) as connection:
            if not connection.execute(measurements.update().where(measurements.c.key == key).values(row)).rowcount:
                connection.execute(measurements.insert().values(key=key, **row))


def _revision(connection: sql.Connection) -> int:
    return int(connection.execute(sql.select(meta.c.revision)).scalar_one())


def _next(connection: sql.Connection) -> int:
    connection.execute(meta.update().values(revision=meta.c.revision + 1))
    return _revision(connection)


def _one(connection: sql.Connection, alias: str) -> Kept | None:
    row = connection.execute(sql.select(models).where(models.c.alias == alias)).first()
    if row is None:
        return None
    try:
        return Kept(msgspec.json.decode(row.spec, type=ModelSpec), row.source)
    except msgspec.DecodeError:
        raise AlreadyRegistered(
            f"{alias!r} is registered already, by a newer version of this program.", param="alias"
        ) from None


def _all(connection: sql.Connection) -> dict[str, Kept]:
    found = {}
    for row in connection.execute(sql.select(models).order_by(models.c.alias)):
        try:
            found[row.alias] = Kept(msgspec.json.decode(row.spec, type=ModelSpec), row.source)
        except msgspec.DecodeError as error:
            log.error("registry: %r cannot be read and is left out: %s", row.alias, type(error).__name__)
    return found


def _write(connection: sql.Connection, kept: Kept, revision: int) -> None:
    row = {
        "spec": msgspec.json.encode(kept.spec).decode(),
        "source": kept.source,
        "lora_of": kept.spec.lora_of,
        "revision": revision,
    }
    changed = connection.execute(models.update().where(models.c.alias == kept.spec.alias).values(row))
    if not changed.rowcount:
        connection.execute(models.insert().values(alias=kept.spec.alias, **row))
