from __future__ import annotations

from typing import Any

from sensorium.cluster.placement import Ask
from sensorium.cluster.ray_resources import bundle_of, could_hold, row_of, shown
from sensorium.settings import GIB


def node(name: str, alive: bool = True, **resources: float) -> dict[str, Any]:
    return {"NodeID": name, "Alive": alive, "Resources": resources, "NodeManagerAddress": "10.0.0.1"}


def test_what_is_reserved() -> None:
    assert bundle_of(Ask("m")) == {"CPU": 0.01}
    assert bundle_of(Ask("m", 2, 3 * GIB)) == {"CPU": 2, "memory": 3 * GIB}
    assert bundle_of(Ask("m", 1, 3 * GIB, 0.5)) == {"CPU": 1, "GPU": 0.5}
    assert (
        shown({"CPU": 0.5, "GPU": 2.0, "memory": 1.5 * GIB, "node:10.0.0.1": 1.0}) == "0.5 CPU, 2 GPU, 1.5 GiB memory"
    )


def test_whether_there_could_ever_be_room() -> None:
    nodes = [node("a", CPU=4), node("b", CPU=1, GPU=2), node("gone", alive=False, CPU=64, GPU=8)]
    assert could_hold(nodes, {"CPU": 4})
    assert could_hold(nodes, {"GPU": 2})
    assert not could_hold(nodes, {"CPU": 4, "GPU": 1})  # not on one node
    assert not could_hold(nodes, {"GPU": 4})
    assert not could_hold(nodes, {"CPU": 4}, "b")


def test_rows_of_the_list() -> None:
    held = [("a", "tiny", 17), ("b", "other", 18)]
    row = row_of(node("a", CPU=4, GPU=1, memory=2.0 * GIB), held)
    assert row["instances"] == {"tiny#17": {"alias": "tiny", "status": "running", "pid": 17}}
    assert (row["status"], row["cpu_count"], row["total_memory_gb"], row["gpu_info"]["gpu_count"]) == (
        "active",
        4,
        2,
        1,
    )
    assert row_of(node("a", alive=False), [])["status"] == "inactive"
