"""Only the files named here may open a connection or decode a picture.

A second way to fetch or decode would be one without the checks of the first. Adding a row is a decision about
safety: say in the review what reaches it.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "src" / "sensorium"

# Module, or function of a module -> files and folders (with a slash) of the package that may name it.
ALLOWED: dict[str, tuple[str, ...]] = {
    "socket": (
        "media/address.py",  # looks names up
        "media/channel.py",  # the decoding child's socket pair
        "media/answer_image.py",  # types of the same
        "media/answer_video.py",
        "media/answer_audio.py",
        "media/child.py",
        "media/child_process.py",
        "worker/",  # gateway and worker talk over one
        "server/",  # binds the port
        "cluster/",  # gateway and node agents, at addresses that somebody with the cluster's token signed
        "terminal/worker.py",  # binds the port
        "upstream/vllm_start.py",  # finds a free port of this machine for vLLM
    ),
    "ssl": ("media/download.py",),
    "httpcore": ("media/download.py",),
    # Servers that the user named.
    "httpx": (
        "http_client.py",
        "registry/download.py",
        "registry/modelscope.py",
        "terminal/remote.py",
        "terminal/registry_client.py",
        "client/",
        "cluster/join.py",
        "upstream/client.py",
    ),
    "huggingface_hub": ("registry/download.py", "registry/hub.py"),
    "urllib.request": (),
    "urllib3": (),
    "requests": (),
    "aiohttp": (),
    "http.client": (),
    "ftplib": (),
    "av": ("media/container.py", "media/video.py", "media/audio.py"),
    "av.open": ("media/container.py",),
    "soundfile": ("media/audio.py", "upstream/media.py"),  # the second writes samples that were decoded already
    "soxr": ("media/audio.py",),
    "cv2": (),
    "imageio": (),
    "PIL.Image.open": (),  # by format class only, in media/image.py
    "PIL.ImageFile": ("media/image.py",),
    "PIL.JpegImagePlugin": ("media/image.py",),
    "PIL.PngImagePlugin": ("media/image.py",),
    "PIL.GifImagePlugin": ("media/image.py",),
    "PIL.WebPImagePlugin": ("media/image.py", "media/video.py"),
    "PIL.BmpImagePlugin": ("media/image.py",),
    "asyncio.open_connection": ("worker/",),
    "asyncio.open_unix_connection": ("worker/",),
}


def names_used(code: str) -> set[str]:
    """Return the dotted names of everything a module imports or takes from an import."""
    tree = ast.parse(code)
    bound: dict[str, str] = {}
    used: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                used.add(alias.name)
                bound[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                used.add(f"{node.module}.{alias.name}")
                bound[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            dotted = ast.unparse(node)
            head, _, tail = dotted.partition(".")
            if head in bound:
                used.add(f"{bound[head]}.{tail}")
    return used


def trespasses(path: str, code: str) -> set[str]:
    """Return the names in `code` that a file at `path` may not use."""
    used = names_used(code)
    return {
        name
        for name, places in ALLOWED.items()
        if any(found == name or found.startswith(name + ".") for found in used)
        and not any(path == place or (place.endswith("/") and path.startswith(place)) for place in places)
    }


def test_nothing_else_fetches_or_decodes() -> None:
    files = sorted(ROOT.rglob("*.py"))
    assert any(file.name == "download.py" for file in files)
    found = {str(file.relative_to(ROOT)): trespasses(str(file.relative_to(ROOT)), file.read_text()) for file in files}
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("import socket", "socket"),
        ("import socket as s", "socket"),
        ("from socket import create_connection", "socket"),
        ("def f():\n    import urllib.request", "urllib.request"),
        ("import urllib\nurllib.request.urlopen('x')", "urllib.request"),
        ("from urllib import request", "urllib.request"),
        ("from urllib.request import urlopen as u", "urllib.request"),
        ("from PIL import Image\nImage.open('x')", "PIL.Image.open"),
        ("import PIL.Image\nPIL.Image.open('x')", "PIL.Image.open"),
        ("from PIL.Image import open as o", "PIL.Image.open"),
        ("import PIL.Image as I\nI.open('x')", "PIL.Image.open"),
        ("import asyncio\nasync def f(): await asyncio.open_connection('a', 1)", "asyncio.open_connection"),
        ("from httpx import AsyncClient", "httpx"),
    ],
)
def test_the_check_sees_what_it_should(code: str, name: str) -> None:
    assert trespasses("families/new.py", code) == {name}


def test_the_check_lets_innocent_code_pass() -> None:
    code = "import asyncio, urllib.parse\nfrom PIL import Image\nImage.new('L', (1, 1))\nopen('x')\nhttpx = 1"
    assert trespasses("families/new.py", code) == set()
    assert trespasses("worker/channel.py", "import socket") == set()
