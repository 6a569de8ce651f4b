from __future__ import annotations

import io
import json
import shlex
import urllib.request

import pytest
from PIL import Image
from rich.console import Console

from sensorium.terminal.banner import circle_png, curl_line, show_banner


def test_the_picture_is_a_red_circle_on_white() -> None:
    picture = Image.open(io.BytesIO(circle_png())).convert("RGB")
    assert picture.size == (224, 224)
    assert picture.getpixel((2, 2)) == (255, 255, 255)
    red, green, blue = picture.getpixel((112, 112))  # type: ignore[misc]
    assert red > 200 > 50 > green
    assert blue < 50
    assert len(circle_png()) < 800


@pytest.mark.parametrize("sees", [True, False])
def test_the_line_is_a_request_a_shell_understands(sees: bool) -> None:
    words = shlex.split(curl_line("http://127.0.0.1:8000", "it's", sees=sees, api_key="key"))
    assert words[:2] == ["curl", "http://127.0.0.1:8000/v1/chat/completions"]
    assert "Authorization: Bearer key" in words
    body = json.loads(words[-1])
    assert body["model"] == "it's"
    content = body["messages"][0]["content"]
    if sees:
        with urllib.request.urlopen(content[0]["image_url"]["url"]) as data:
            assert data.read() == circle_png()
    else:
        assert isinstance(content, str)


def test_a_log_file_does_not_get_the_key_and_long_lines_stay_whole() -> None:
    out = io.StringIO()
    show_banner(Console(file=out, width=40), "http://127.0.0.1:8000", ["a", "b"], sees=True, api_key="secret")
    text = out.getvalue()
    assert "secret" not in text
    assert "$SENSORIUM_API_KEY" in text
    assert "Models: a, b\n" in text
    assert text.splitlines()[-1].startswith("curl ")
    assert "\x1b" not in text
    on_terminal = io.StringIO()
    console = Console(file=on_terminal, force_terminal=True)
    show_banner(console, "http://127.0.0.1:8000", ["a"], sees=True, api_key="secret")
    assert "Bearer secret" in on_terminal.getvalue()
