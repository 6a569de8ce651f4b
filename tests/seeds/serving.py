"""The servers and the media that the seeds' programs are run against: tiny checkpoints, pictures on loopback.

The checkpoints of `MODELS` have random weights and few layers; class, layout and kind of tokenizer are the real ones'.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.checkpoint_chat import write_internvl_chat
from tests.checkpoint_llava import write_llava_llama
from tests.checkpoints import make_checkpoint
from tests.clips import picture, sound, tone, video
from tests.e2e.running import Running, serve
from tests.minicpm_checkpoints import make_minicpm
from tests.qwen_checkpoints import make_qwen


def _internvl2(path: Path) -> None:
    write_internvl_chat(path.with_name(path.name + "-hf"), path, "internlm2")


def _yi_vl(path: Path) -> None:
    hf, authors = path.with_name(path.name + "-hf"), path.with_name(path.name + "-authors")
    write_llava_llama(hf, authors, "yi_vl").rename(path)


MODELS: dict[str, Callable[[Path], None]] = {
    "qwen-vl-2b": partial(make_checkpoint, "qwen3_vl"),
    "MiniCPM-V-2_6": partial(make_minicpm, "2.6"),
    "InternVL2_5": _internvl2,
    "qwen-vl-chat": partial(make_qwen, "qwen_vl"),
    "yi-vl-6b-chat": _yi_vl,
    "minicpm-v-v2_5-chat": partial(make_minicpm, "2.5"),
    "qwen2-audio-7b-instruct": partial(make_checkpoint, "qwen2_audio"),
    "internvl2-2b": _internvl2,
    "minicpm-v-v2_6-chat": partial(make_minicpm, "2.6"),
}
_ENDS = range(5, 560, 16)  # plain tokens that end an answer: random weights would go on to the end of the context


def make_model(name: str, path: Path) -> None:
    """Write the checkpoint of one of MODELS, whose answers are short."""
    MODELS[name](path)
    file = path / "generation_config.json"
    generation = json.loads(file.read_text())
    ends = generation["eos_token_id"]
    generation["eos_token_id"] = [*(ends if isinstance(ends, list) else [ends]), *_ENDS]
    file.write_text(json.dumps(generation))


@contextmanager
def deployed(name: str, folder: Path, *arguments: str) -> Iterator[Running]:
    """Serve one of MODELS by the command of seed 004, with the weights in a folder and media on loopback."""
    make_model(name, folder / "model")
    line = ["--model_type", name, "--model_id_or_path", str(folder / "model"), "--max_model_len", "1024"]
    with deploy(folder, *line, *arguments) as running:
        yield running


@contextmanager
def deploy(folder: Path, *arguments: str) -> Iterator[Running]:
    """Run `sensorium deploy`; its caches are in `folder`/home."""
    line = [*arguments, "--dtype", "fp32", "--allow-private-media"]
    with serve(line, folder / "home", ("sensorium", "deploy")) as running:
        yield running


FILES: dict[str, bytes] = {
    "demo.jpeg": picture(1, "JPEG"),
    "image1.jpg": picture(2, "JPEG"),
    "image2.jpg": picture(3, "JPEG"),
    "rose.jpg": picture(4, "JPEG"),
    "cat.png": picture(5),
    "animal.png": picture(6, "PNG", 96, 64),
    "airplane.jpeg": picture(7, "JPEG", 128, 96),
    "weather.wav": sound(tone(0.6)),
    "other.wav": sound(tone(0.6, hertz=880)),
    "baby.mp4": video(24),
}


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        data = FILES.get(self.path.partition("?")[0].strip("/"))
        self.send_response(200 if data else 404)
        self.send_header("content-length", str(len(data or b"")))
        self.end_headers()
        self.wfile.write(data or b"")

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def media_server() -> Iterator[str]:
    """Serve FILES on loopback; yields the base URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
