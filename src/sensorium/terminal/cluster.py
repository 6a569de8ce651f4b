"""Where the workers of `sensorium serve` come from: its options, and what they make."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

import click

from sensorium.environment import names
from sensorium.settings import Cluster, ServerSettings

if TYPE_CHECKING:
    from sensorium.cluster.spawner import ClusterSpawner
    from sensorium.worker.launcher import Launcher
    from sensorium.worker.spawner import Spawner

CLUSTER_OPTIONS = (
    click.option(
        "--cluster",
        type=click.Choice(get_args(Cluster), case_sensitive=False),
        help="join: machines may join with `sensorium worker`; ray: Ray places workers. Default: none, or join "
        "where a token is given.",
    ),
    click.option(
        "--cluster-token",
        envvar=names("SENSORIUM_CLUSTER_TOKEN"),
        help="Secret of those that join, 16 characters or more; default: made once, in SENSORIUM_HOME/cluster-token.",
    ),
    click.option(
        "--ray-address",
        default="auto",
        envvar=names("SENSORIUM_RAY_ADDRESS"),
        show_default=True,
        help="host:port of the Ray cluster; auto: the one that runs here, else a new one; local: a new one.",
    ),
)


def cluster_of(options: dict[str, Any]) -> Cluster:
    """Return what `--cluster` says, or what follows from the token."""
    chosen: Cluster | None = options["cluster"]
    return chosen or ("join" if options["cluster_token"] else "none")


def cluster_spawner(settings: ServerSettings, launcher: Launcher) -> ClusterSpawner | None:
    """Return where workers come from; None: from this machine's `launcher` alone.

    Raises:
        ConfigurationError: the token is none, or Ray is not there.
    """
    if settings.cluster == "none":
        return None
    from sensorium.cluster.nodes import Nodes
    from sensorium.cluster.spawner import ClusterSpawner
    from sensorium.cluster.token import key_of, read_or_make_token

    key = key_of(settings.cluster_token or read_or_make_token())
    home: Spawner = launcher
    if settings.cluster == "ray":
        from sensorium.cluster.ray import RaySpawner

        home = RaySpawner(settings.ray_address)
    return ClusterSpawner(home, Nodes(key))
