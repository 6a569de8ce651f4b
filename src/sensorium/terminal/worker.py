"""`sensorium worker`: this machine as a part of a gateway's cluster."""

from __future__ import annotations

import contextlib
import logging
import re
import socket

import click

from sensorium.environment import names
from sensorium.errors import ConfigurationError

_PORT = 7000
_GRACE_S = 30.0  # as `sensorium serve` has it
MANAGER_URL = "http://127.0.0.1:8000"


@click.command()
@click.option(
    "--manager-url",
    default=MANAGER_URL,
    envvar=names("SENSORIUM_MANAGER_URL"),
    show_default=True,
    help="The gateway: `sensorium serve --cluster join`.",
)
@click.option("--worker-id", envvar=names("SENSORIUM_WORKER_ID"), help="Default: the machine's name and the port.")
@click.option(
    "--host",
    envvar=names("SENSORIUM_WORKER_HOST"),
    help="Address to listen on for the gateway; default: the one from which it is reached.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=_PORT,
    envvar=names("SENSORIUM_WORKER_PORT"),
    show_default=True,
    help="0 takes any free one.",
)
@click.option(
    "--public-url",
    envvar=names("SENSORIUM_PUBLIC_URL"),
    help="tcp://HOST:PORT where the gateway reaches this worker, if not at host and port.",
)
@click.option(
    "--token",
    "--cluster-token",
    "cluster_token",
    envvar=names("SENSORIUM_CLUSTER_TOKEN"),
    help="The cluster's secret; default: the file SENSORIUM_HOME/cluster-token, copied from the gateway.",
)
@click.option(
    "--grace", "grace_s", type=click.FloatRange(min=0), default=_GRACE_S, help="Seconds to finish on SIGTERM."
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"], case_sensitive=False),
    default="info",
    envvar=names("SENSORIUM_LOG_LEVEL"),
    help="How much is logged.",
)
def worker(
    manager_url: str,
    worker_id: str | None,
    host: str | None,
    port: int,
    public_url: str | None,
    cluster_token: str | None,
    grace_s: float,
    log_level: str,
) -> int:
    """Let a gateway run models on this machine. They end with the gateway, and with this command."""
    from sensorium.cluster import member, tcp
    from sensorium.cluster.join import own_address
    from sensorium.cluster.token import key_of, read_token, token_file
    from sensorium.worker.launcher import Launcher

    found = cluster_token or read_token()
    if not found:
        raise ConfigurationError(
            f"There is no cluster token: neither --token, nor SENSORIUM_CLUSTER_TOKEN, nor {token_file()}. The gateway "
            "has it in that place, or was given it with --cluster-token."
        )
    key = key_of(found)
    near = own_address(manager_url)
    logging.basicConfig(level=log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    listener = tcp.listen(host or near, port)
    port = listener.getsockname()[1]
    url = public_url or tcp.url_of(near if host in (None, "0.0.0.0", "::") else str(host), port)
    tcp.address_of(url, "--public-url")
    name = worker_id or re.sub(r"[^\w.-]", "-", f"{socket.gethostname()}-{port}")[-100:]
    launcher = Launcher()
    launcher.start()  # from this thread: it ends with it
    with contextlib.closing(launcher), contextlib.closing(listener):
        click.echo(f"Worker {name} listens at {url} for {manager_url}.")
        return member.run(name, url, manager_url, key, launcher, listener, grace_s)
