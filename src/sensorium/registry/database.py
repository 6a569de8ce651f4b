"""The registry's database: SQLite or PostgreSQL, its tables, and its failures as errors of ours.

Imports SQLAlchemy, so only `store.py` imports it, and only when there is something to keep.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sql
from sqlalchemy import event
from sqlalchemy.engine import URL, make_url

from sensorium.errors import ConfigurationError, RegistryUnavailable

SCHEMA_VERSION = 1
_BUSY_S = 5.0  # how long to wait for another process that writes
_LOCK = 0x5E450121  # of PostgreSQL's advisory locks: creating tables

metadata = sql.MetaData()
meta = sql.Table(
    "sensorium_meta",
    metadata,
    sql.Column("id", sql.Integer, primary_key=True),
    sql.Column("schema_version", sql.Integer, nullable=False),
    sql.Column("revision", sql.BigInteger, nullable=False),  # one more with each change: others see it and read again
)
models = sql.Table(
    "sensorium_models",
    metadata,
    sql.Column("alias", sql.Text, primary_key=True),
    sql.Column("spec", sql.Text, nullable=False),  # ModelSpec as JSON
    sql.Column("source", sql.Text, nullable=False),  # "" or the models.toml that it came from
    sql.Column("lora_of", sql.Text),
    sql.Column("revision", sql.BigInteger, nullable=False),
)
measurements = sql.Table(
    "sensorium_measurements",
    metadata,
    sql.Column("key", sql.Text, primary_key=True),
    sql.Column("measured", sql.Text, nullable=False),  # Measured as JSON
    sql.Column("at", sql.Float, nullable=False),  # seconds since the epoch
)

# What SQLite calls it -> our code, and what to do.
_ELSEWHERE = "name another place with --registry or SENSORIUM_HOME"
_SQLITE = {
    "SQLITE_FULL": ("registry_full", "the disk is full"),
    "SQLITE_IOERR": ("registry_full", "the disk cannot be written or read"),
    "SQLITE_READONLY": ("registry_readonly", f"it may not be written; {_ELSEWHERE}"),
    "SQLITE_BUSY": ("registry_locked", "another program keeps it locked"),
    "SQLITE_LOCKED": ("registry_locked", "another program keeps it locked"),
    "SQLITE_CANTOPEN": ("registry_unreachable", f"it cannot be opened; {_ELSEWHERE}"),
    "SQLITE_PERM": ("registry_unreachable", f"it cannot be opened; {_ELSEWHERE}"),
    "SQLITE_CORRUPT": ("registry_corrupt", "it is damaged; move it away or restore a copy"),
    "SQLITE_NOTADB": ("registry_corrupt", "it is no database of SQLite; move it away"),
}
_POSTGRES = {  # by the first characters of SQLSTATE
    "53100": ("registry_full", "its disk is full"),
    "25006": ("registry_readonly", "it may not be written: it is a replica, or set so"),
    "55P03": ("registry_locked", "another program keeps it locked"),
    "57014": ("registry_locked", "it took too long"),
    "28": ("registry_unreachable", "it does not accept the user or the password"),
    "3D": ("registry_unreachable", "there is no database of this name"),
    "42501": ("registry_readonly", "the user may not change its tables"),
}


def database_url(location: str) -> URL:
    """Return the URL of what `--registry` names: a file, or a URL of SQLite or PostgreSQL.

    Raises:
        ConfigurationError: it names neither, or the driver is not installed.
    """
    if "://" not in location:
        return URL.create("sqlite", database=str(Path(location).expanduser().absolute()))
    try:
        url = make_url(location)
    except (sql.exc.ArgumentError, ValueError):
        raise ConfigurationError("--registry is no URL of a database; write postgresql://user@host/name.") from None
    kind = url.get_backend_name()
    if kind in ("postgresql", "postgres"):
        try:
            import psycopg  # noqa: F401
        except ImportError:
            raise ConfigurationError(
                "A registry in PostgreSQL needs the package psycopg: pip install 'sensorium[postgres]'."
            ) from None
        return url.set(drivername="postgresql+psycopg")
    if kind != "sqlite" or not url.database or url.database == ":memory:":
        raise ConfigurationError(
            f"--registry: {kind!r} is not served; give a file, sqlite:///file, postgresql://user@host/name, or none."
        )
    return url


def shown(url: URL) -> str:
    """Return the URL, or the file, as it may be printed: without password, nor options, which may hold one too."""
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    return url.set(query={}).render_as_string(hide_password=True)


def connect(url: URL) -> sql.Engine:
    """Return the database, its tables made if need be.

    Raises:
        RegistryUnavailable: it cannot be reached or written.
        ConfigurationError: a newer version made its tables.
    """
    lite = url.get_backend_name() == "sqlite"
    with refusing(url):
        engine = _sqlite(url) if lite else _postgres(url)
        found = _version(engine)
        if found is None:
            with writing(engine) as connection:
                if not lite:
                    connection.execute(sql.select(sql.func.pg_advisory_xact_lock(_LOCK)))
                metadata.create_all(connection)
                if connection.execute(sql.select(meta.c.id)).first() is None:
                    connection.execute(meta.insert().values(id=1, schema_version=SCHEMA_VERSION, revision=0))
            found = _version(engine)
    if found != SCHEMA_VERSION:
        raise ConfigurationError(
            f"The registry {shown(url)} has version {found} of its tables, this program knows {SCHEMA_VERSION}. "
            "Use the newer program, or another --registry."
        )
    return engine


@contextmanager
def writing(engine: sql.Engine) -> Iterator[sql.Connection]:
    """Yield a connection in a transaction that may write; it is committed at the end, or nothing of it is."""
    with engine.execution_options(sensorium_writes=True).begin() as connection:
        yield connection


@contextmanager
def reading(engine: sql.Engine) -> Iterator[sql.Connection]:
    """Yield a connection to which the database looks the same from the first statement to the last."""
    lite = engine.dialect.name == "sqlite"  # whose transactions are like that
    options: dict[str, Any] = {} if lite else {"isolation_level": "REPEATABLE READ"}
    with engine.execution_options(**options).begin() as connection:
        yield connection


@contextmanager
def refusing(url: URL) -> Iterator[None]:
    """Turn what the database raises into RegistryUnavailable."""
    try:
        yield
    except sql.exc.DBAPIError as error:
        code, why = _reason(error.orig)
        raise RegistryUnavailable(f"The registry {shown(url)} did not take part: {why}.", code=code) from error
    except (OSError, sql.exc.SQLAlchemyError) as error:
        why = (isinstance(error, OSError) and error.strerror) or type(error).__name__
        raise RegistryUnavailable(f"The registry {shown(url)} cannot be used: {why}; {_ELSEWHERE}.") from error


def _reason(error: Any) -> tuple[str, str]:
    name = getattr(error, "sqlite_errorname", None) or ""
    state = getattr(error, "sqlstate", None) or ""
    for table, key in ((_SQLITE, name), (_POSTGRES, state)):
        if found := next((row for start, row in table.items() if key.startswith(start)), None):
            return found
    if not name and not state:  # PostgreSQL's client could not even ask
        return "registry_unreachable", "no server answers there, or the connection broke"
    return "registry_unavailable", f"it reports {name or state}"


def _version(engine: sql.Engine) -> int | None:
    with engine.connect() as connection:
        if not sql.inspect(connection).has_table(meta.name):
            return None
        row = connection.execute(sql.select(meta.c.schema_version)).first()
        return None if row is None else int(row[0])


def _sqlite(url: URL) -> sql.Engine:
    file = Path(str(url.database))
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))  # keys of remote engines are in it
    # One thread uses it (`store.py`), so one connection is enough; it stays open.
    engine = sql.create_engine(
        url, poolclass=sql.pool.StaticPool, connect_args={"timeout": _BUSY_S, "check_same_thread": False}
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, record: Any) -> None:
        connection.isolation_level = None  # transactions begin where `begin` below says
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            try:
                connection.execute(f"PRAGMA {pragma}").fetchall()
            except Exception as error:  # a file that may not be written can still be read
                if not str(getattr(error, "sqlite_errorname", "")).startswith(("SQLITE_READONLY", "SQLITE_BUSY")):
                    raise

    @event.listens_for(engine, "begin")
    def begin(connection: sql.Connection) -> None:
        writes = connection.get_execution_options().get("sensorium_writes")
        # A transaction that reads first and writes later could find that another one wrote in between.
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _postgres(url: URL) -> sql.Engine:
    return sql.create_engine(
        url,
        pool_size=1,
        max_overflow=0,
        pool_pre_ping=True,  # the server may have been restarted
        connect_args={
            "connect_timeout": 5,
            "tcp_user_timeout": 10_000,
            "keepalives_idle": 15,
            "options": "-c statement_timeout=10000 -c lock_timeout=5000 -c synchronous_commit=on",
        },
    )
