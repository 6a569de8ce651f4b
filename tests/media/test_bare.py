"""Media strings without a scheme: base64 alone, and paths."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path

import pytest
from tests.clips import picture, sound, tone, video

from sensorium.errors import MediaError
from sensorium.media.bare import is_path
from sensorium.media.fetch import fetch_media
from sensorium.settings import MediaLimits
from sensorium.types import MediaSource, Modality

FILES: dict[Modality, tuple[bytes, ...]] = {
    "image": (picture(3), picture(3, "JPEG"), picture(3, "GIF"), picture(3, "WEBP"), picture(3, "BMP")),
    "audio": (sound(tone(0.1)), sound(tone(0.1), kind="FLAC"), sound(tone(0.1), kind="OGG")),
    "video": (video(4), video(4, "matroska"), video(4, "mpegts", "mpeg2video", options={})),
}


def fetch(url: str, kind: Modality = "image", folder: Path | None = None) -> bytes:
    limits = MediaLimits(allowed_local_path=str(folder) if folder else None)
    (item,) = asyncio.run(fetch_media([MediaSource(kind, url, "images[0]")], limits))
    return item.data


def refused(url: str, folder: Path | None = None) -> MediaError:
    with pytest.raises(MediaError) as caught:
        fetch(url, folder=folder)
    assert caught.value.param == "images[0]"
    assert caught.value.status == 400
    return caught.value


@pytest.mark.parametrize(("kind", "data"), [(kind, data) for kind, files in FILES.items() for data in files])
def test_base64_alone_is_told_from_paths(kind: Modality, data: bytes, tmp_path: Path) -> None:
    for text in (base64.b64encode(data), base64.urlsafe_b64encode(data), base64.encodebytes(data)):
        assert not is_path(text.decode().strip())
        for folder in (None, tmp_path):
            assert fetch(f" {text.decode()} ", kind, folder) == data


def test_a_jpeg_begins_like_a_path_and_is_none() -> None:
    text = base64.b64encode(picture(3, "JPEG")).decode()
    assert text.startswith("/9j/")
    assert not is_path(text)
    assert is_path("/9j/rose.jpg")
    assert is_path("/data/rose")


def test_paths_below_the_folder_absolute_or_not(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "rose.jpg").write_bytes(b"rose")
    (tmp_path / "plain").write_bytes(b"no ending")
    (tmp_path / "空 格.jpg").write_bytes(b"blank")
    for text in ("a/rose.jpg", "./a/rose.jpg", f"{tmp_path}/a/rose.jpg"):
        assert fetch(text, folder=tmp_path) == b"rose"
    assert fetch(f"{tmp_path}/plain", folder=tmp_path) == b"no ending"
    assert fetch("空 格.jpg", folder=tmp_path) == b"blank"


@pytest.mark.parametrize(
    "text", ["{}/secret.png", "../secret.png", "a/../../secret.png", "link.png", "~/secret.png", "/etc/passwd"]
)
def test_paths_elsewhere_are_refused_whether_they_exist_or_not(text: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "secret.png").write_bytes(b"secret")
    there = refused(text.format(tmp_path), root)
    (tmp_path / "secret.png").unlink()
    assert refused(text.format(tmp_path), root).message == there.message


@pytest.mark.parametrize("text", ["/etc/passwd", "rose.jpg", "./rose.jpg"])
def test_without_a_folder_no_path_is_opened(text: str) -> None:
    error = refused(text)
    assert error.code == "media_forbidden"
    assert "--allowed-local-media-path" in error.message


def test_what_is_neither_is_told_what_was_expected() -> None:
    for text in ("this is no picture at all", "http", "中文", "aGVsbG8gd29ybGQ=", "x" * 5000):
        error = refused(text)
        assert error.message.startswith("images[0]: Failed to load image from URL: ")
        assert "is no http(s), data or file URL, no path" in error.message
        assert len(error.message) < 300
    cut = base64.b64encode(picture(3)).decode()[:101]
    assert "it is not valid base64: 101 characters cannot be; it may have been cut." in refused(cut).message
    assert refused("").message.endswith("it is empty.")
    assert refused("a\x00.png", Path("/")).code == "media_forbidden"
