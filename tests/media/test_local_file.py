from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sensorium.errors import MediaError
from sensorium.media import local_file
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
        assert time.monotonic() - began < 10
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
    assert time.monotonic() - began < 10


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


@pytest.fixture
def swappable(root: Path, tmp_path: Path) -> Path:
    """The folder whose a.png is the secret, to be linked to from below the root."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a.png").write_bytes(SECRET)
    (root / "sub" / "a.png").write_bytes(b"picture")
    return outside


@pytest.mark.parametrize(("swapped", "path"), [("a.png", "a.png"), ("sub", "sub/a.png")])
def test_a_link_put_in_place_right_after_the_check_is_refused(
    root: Path, swappable: Path, monkeypatch: pytest.MonkeyPatch, swapped: str, path: str
) -> None:
    """The worst moment: the path has been resolved and found good, and nothing has been opened."""
    url = f"file://{root}/{path}"
    assert read_file_url(url, str(root), 100) == b"picture"
    check = local_file._parts_below

    def check_then_swap(path: bytes, root_bytes: bytes) -> list[bytes]:
        parts = check(path, root_bytes)
        (root / swapped).rename(root / "moved")
        (root / swapped).symlink_to(swappable if swapped == "sub" else swappable / "a.png")
        return parts

    monkeypatch.setattr(local_file, "_parts_below", check_then_swap)
    with pytest.raises(MediaError):
        read_file_url(url, str(root), 100)


SWAP = """if True:
    import os, sys
    place, true, link, target = sys.argv[1:]
    while True:
        os.rename(true, place)
        os.rename(place, true)
        os.symlink(target, link)
        os.rename(link, place)
        os.unlink(place)
"""


@pytest.mark.parametrize(("swapped", "path"), [("a.png", "a.png"), ("sub", "sub/a.png")])
def test_a_link_swapped_in_at_any_moment_is_never_followed(
    root: Path, tmp_path: Path, swappable: Path, swapped: str, path: str
) -> None:
    """Another process, as fast as it can, has a file or a folder on the way be itself, absent or a link."""
    place, true, target = root / swapped, tmp_path / "true", swappable if swapped == "sub" else swappable / "a.png"
    place.rename(true)
    swapper = subprocess.Popen([sys.executable, "-c", SWAP, place, true, tmp_path / "link", target])
    num_read = num_refused = 0
    deadline = time.monotonic() + 20
    try:
        while num_read + num_refused < 1000 or not num_read or not num_refused:
            assert time.monotonic() < deadline
            try:
                data = read_file_url(f"file://{root}/{path}", str(root), 100)
            except MediaError:
                num_refused += 1
            else:
                assert data == b"picture"
                num_read += 1
    finally:
        swapper.kill()
        swapper.wait()
