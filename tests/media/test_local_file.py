from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from pathlib import Path
from urllib.parse import quote

import pytest

from sensorium.errors import MediaError
from sensorium.media.fetch import fetch_media
from sensorium.media.local_file import read_file_url
from sensorium.settings import MediaLimits
from sensorium.types import MediaSource

SECRET = b"secret"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "a.png").write_bytes(b"picture")
    (root / "sub" / "a b#?%.png").write_bytes(b"picture")
    (root / "inside.png").symlink_to("sub/a b#?%.png")
    (root / "file-out.png").symlink_to(tmp_path / "secret.png")
    (root / "out").symlink_to(tmp_path)
    (root / "proc").symlink_to("/proc/self")
    (root / "zero").symlink_to("/dev/zero")
    (root / "loop").symlink_to("loop")
    os.mkfifo(root / "fifo")
    (tmp_path / "secret.png").write_bytes(SECRET)
    (tmp_path / "root-beside").mkdir()
    (tmp_path / "root-beside" / "a.png").write_bytes(SECRET)
    return root


@pytest.mark.parametrize(
    "url",
    [
        "file://{root}/a.png",
        "FILE://{root}/a.png",
        "file:{root}/a.png",
        "file://localhost{root}/a.png",
        "file://{root}/a%2Epng",
        "file://{root}/./sub//a%20b%23%3F%25.png",
        "file://{root}/sub/a b#?%.png",
        "file://{root}/inside.png",
        "file://{root}/out/root/a.png",
    ],
)
def test_reads_what_lies_below(root: Path, url: str) -> None:
    assert read_file_url(url.format(root=root), str(root), 100) == b"picture"


def test_the_folder_may_itself_be_a_link(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root)
    assert read_file_url(f"file://{tmp_path}/link/a.png", f"{tmp_path}/link", 100) == b"picture"
    assert read_file_url(f"file://{root}/a.png", f"{tmp_path}/link/", 100) == b"picture"


@pytest.mark.parametrize(
    "url",
    [
        "file://{root}/../secret.png",
        "file://{root}/%2e%2e/secret.png",
        "file://{root}/sub/%2e./%2E%2E/secret.png",
        "file://{root}/..%2fsecret.png",
        "file://{root}/file-out.png",
        "file://{root}/out/secret.png",
        "file://{root}-beside/a.png",
        "file://{root}/a.png%00",
        "file://{root}/fifo",
        "file://{root}/zero",
        "file://{root}/loop",
        "file://{root}/proc/environ",
        "file://{root}/socket",
        "file://{root}/sub",
        "file://{root}",
        "file://{root}/",
        "file://{root}/missing.png",
        "file://{root}/a.png/x",
        "file://{root}/" + "x" * 5000,
        "file:///etc/passwd",
        "file:///dev/zero",
        "file:///dev/stdin",
        "file:///proc/self/environ",
        "file:////etc/passwd",
        "file://host{root}/a.png",
        "file://a.png",
        "file:a.png",
        "file:",
        "file:///",
    ],
)
def test_refuses_everything_else_at_once(root: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        monkeypatch.chdir(root)  # a socket's path may have 107 bytes
        listener.bind("socket")
        began = time.monotonic()
        with pytest.raises(MediaError) as raised:
            read_file_url(url.format(root=root), str(root), 100)
        assert time.monotonic() - began < 1.0
    assert str(root) not in raised.value.message


def test_files_are_off_by_default(root: Path) -> None:
    source = MediaSource("image", f"file://{root}/a.png", "messages[0].content[0].image_url")
    with pytest.raises(MediaError, match="--allowed-local-media-path") as raised:
        asyncio.run(fetch_media([source], MediaLimits()))
    assert raised.value.code == "media_forbidden"
    limits = MediaLimits(allowed_local_path=str(root))
    (item,) = asyncio.run(fetch_media([source], limits))
    assert item.data == b"picture"


def test_size_is_checked_before_reading(root: Path) -> None:
    with open(root / "sparse", "wb") as file:
        file.truncate(3 << 30)
    began = time.monotonic()
    with pytest.raises(MediaError, match=r"it has 3072\.0 MiB; the limit is 1\.0 MiB") as raised:
        read_file_url(f"file://{root}/sparse", str(root), 1 << 20)
    assert raised.value.code == "media_too_large"
    assert time.monotonic() - began < 1.0


def test_files_that_lie_about_their_size_are_still_counted() -> None:
    with pytest.raises(MediaError, match="the limit is"):
        read_file_url("file:///proc/cpuinfo", "/proc", 16)  # st_size is 0
    assert read_file_url("file:///proc/version", "/proc", 10_000).startswith(b"Linux")


def test_no_descriptor_is_left_open(root: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for name in ("a.png", "fifo", "sub", "missing/x", "out/secret.png", "sub/missing"):
        with pytest.raises(MediaError) if name != "a.png" else open(os.devnull):
            read_file_url(f"file://{root}/{name}", str(root), 100)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("swapped", ["a.png", "sub"])
def test_a_link_swapped_in_while_reading_is_never_followed(root: Path, tmp_path: Path, swapped: str) -> None:
    """Whoever can write below the folder replaces a file, or a folder on the way, by a link to the outside."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a.png").write_bytes(SECRET)
    (root / "sub" / "a.png").write_bytes(b"picture")
    true, link = tmp_path / "true", tmp_path / "link"
    (root / swapped).rename(true)
    path = "a.png" if swapped == "a.png" else "sub/a.png"
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            true.rename(root / swapped)
            (root / swapped).rename(true)
            link.symlink_to(outside if swapped == "sub" else outside / "a.png")
            link.rename(root / swapped)
            (root / swapped).unlink()

    swapper = threading.Thread(target=swap)
    swapper.start()
    outcomes = {"picture": 0, "refused": 0}
    try:
        deadline = time.monotonic() + 20
        while sum(outcomes.values()) < 600 or not all(outcomes.values()):
            assert time.monotonic() < deadline, outcomes
            try:
                data = read_file_url(f"file://{quote(str(root))}/{path}", str(root), 100)
            except MediaError:
                outcomes["refused"] += 1
            else:
                assert data == b"picture"
                outcomes["picture"] += 1
    finally:
        stop.set()
        swapper.join()
