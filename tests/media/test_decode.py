from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from sensorium.errors import MediaError, SensoriumError
from sensorium.media import child_process
from sensorium.media.decode import Decoder
from sensorium.settings import MediaLimits
from sensorium.types import MediaItem


def item(data: bytes, where: str = "item", size: tuple[int, int] | None = None) -> MediaItem:
    return MediaItem("image", data, where, size)


@pytest.fixture
def good(encode: Any) -> MediaItem:
    return item(encode(Image.new("RGB", (8, 4), "red")))


@pytest.fixture
def decoder() -> Iterator[Decoder]:
    decoder = Decoder(MediaLimits())
    yield decoder
    decoder.close()


def children() -> set[int]:
    """Processes this one has started, zombies included."""
    return {process.pid for process in psutil.Process().children()}


def the_child(before: set[int]) -> int:
    """The one decoding child among the processes started since."""
    (pid,) = (
        pid for pid in children() - before if b"sensorium.media.child" in Path(f"/proc/{pid}/cmdline").read_bytes()
    )
    return pid


def test_raw_pixels_need_no_child(decoder: Decoder) -> None:
    before = children()
    pixels = decoder.decode_image(item(bytes(range(24)), size=(2, 4)))
    assert pixels.tolist() == np.arange(24).reshape(2, 4, 3).tolist()
    assert pixels.flags.writeable
    assert children() == before


@pytest.mark.parametrize(
    ("num_bytes", "size", "words"),
    [
        (23, (2, 4), "is 4x2 RGB, which is 24 bytes, and 23 came"),
        (0, (0, 0), "no pixels"),
        (12, (-2, -2), "no pixels"),
        (0, (1 << 40, 1 << 40), "megapixels"),
        (3 * 999, (999, 1), "longer side"),
    ],
)
def test_raw_pixels_are_checked(decoder: Decoder, num_bytes: int, size: tuple[int, int], words: str) -> None:
    with pytest.raises(MediaError, match=words):
        decoder.decode_image(item(bytes(num_bytes), size=size))


def test_start_does_not_block_and_close_leaves_nothing(good: MediaItem) -> None:
    before, descriptors, threads = children(), len(os.listdir("/proc/self/fd")), threading.active_count()
    took = []
    for _ in range(3):  # another process may have the core for a moment
        decoder = Decoder(MediaLimits(), num_children=2)
        began = time.monotonic()
        decoder.start()
        took.append(time.monotonic() - began)
        if len(took) < 3:
            decoder.close()
    assert min(took) < 0.1
    decoder.decode_image(good)
    decoder.close()
    decoder.close()
    assert children() == before
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert threading.active_count() == threads
    with pytest.raises(SensoriumError, match="closed"):
        decoder.decode_image(good)
    Decoder(MediaLimits()).close()  # never started


def test_the_child_lives_on_between_items(decoder: Decoder, good: MediaItem) -> None:
    before = children()
    decoder.decode_image(good)
    pid = the_child(before)
    for _ in range(20):
        decoder.decode_image(good)
        with pytest.raises(MediaError):
            decoder.decode_image(item(b"\x89PNG\r\n\x1a\nxxxx"))
    assert the_child(before) == pid


def test_the_child_is_small_confined_and_knows_no_secret(
    decoder: Decoder, good: MediaItem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    before = children()
    decoder.decode_image(good)
    pid = the_child(before)
    limits = Path(f"/proc/{pid}/limits").read_text()
    assert re.search(r"Max core file size\s+0\s+0 ", limits)
    assert re.search(r"Max file size\s+0\s+0 ", limits)
    assert re.search(r"Max open files\s+8\s+8 ", limits)
    (address_space,) = re.findall(r"Max address space\s+(\d+)\s", limits)
    assert 1 << 30 < int(address_space) < 3 << 29
    assert re.search(r"Max cpu time\s+\d+\s", limits)
    assert b"secret" not in Path(f"/proc/{pid}/environ").read_bytes()
    targets = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
    assert sorted(target.partition(":")[0] for target in targets) == ["/dev/null"] * 3 + ["socket"]
    maps = Path(f"/proc/{pid}/maps").read_text()
    assert not re.search("torch|numpy|msgspec", maps)


def test_the_child_ends_with_its_parent(encode: Any, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encode(Image.new("RGB", (8, 4))))
    code = """if True:
        import os, sys, threading
        from sensorium.media.decode import Decoder
        from sensorium.settings import MediaLimits
        from sensorium.types import MediaItem
        decoder = Decoder(MediaLimits())
        # from a thread that ends: the child must outlive it
        data = open(sys.argv[1], "rb").read()
        thread = threading.Thread(target=decoder.decode_image, args=[MediaItem("image", data, "")])
        thread.start(); thread.join()
        child = decoder._pools["image"]._idle.queue[0].result().process.pid
        decoder.decode_image(MediaItem("image", data, ""))
        assert decoder._pools["image"]._idle.queue[0].result().process.pid == child
        os.kill(child, 19)  # stopped, so that only the kernel can end it, not the closed socket
        print(child, flush=True)
        os.kill(os.getpid(), 9)
    """
    result = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "a.png"], stdout=subprocess.PIPE, text=True, timeout=60
    )
    assert result.returncode == -signal.SIGKILL
    deadline = time.monotonic() + 5
    while Path(f"/proc/{int(result.stdout)}/cmdline").exists() and time.monotonic() < deadline:
        if "\nState:\tZ" in Path(f"/proc/{int(result.stdout)}/status").read_text():
            return
        time.sleep(0.01)
    assert not Path(f"/proc/{int(result.stdout)}").exists()


def test_the_worker_itself_loads_no_decoder() -> None:
    code = "import sys, json, sensorium.media.decode; print(json.dumps(sorted(sys.modules)))"
    modules = json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
    assert not [name for name in modules if name.startswith("PIL")]


def test_a_child_that_hangs_is_killed_and_replaced(good: MediaItem) -> None:
    decoder = Decoder(MediaLimits(decode_timeout_s=0.5))
    before = children()
    decoder.decode_image(good)
    pid = the_child(before)
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(
        MediaError, match=r"item: the image could not be decoded: its decoder took longer than 0\.5 s\."
    ):
        decoder.decode_image(good)
    assert 0.5 <= time.monotonic() - began < 10
    assert decoder.decode_image(good).shape == (4, 8, 3)
    assert pid not in children()
    decoder.close()


def test_a_slow_picture_is_cut_off(encode: Any, good: MediaItem) -> None:
    slow = item(encode(Image.new("1", (8000, 8000)), "PNG"))
    decoder = Decoder(MediaLimits(decode_timeout_s=0.02))
    with pytest.raises(MediaError, match="took longer than"):
        decoder.decode_image(slow)
    decoder.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_a_child_killed_between_or_within_items(decoder: Decoder, good: MediaItem, number: signal.Signals) -> None:
    before = children()
    decoder.decode_image(good)
    pid = the_child(before)
    os.kill(pid, signal.SIGSTOP)
    killer = threading.Timer(0.2, lambda: (os.kill(pid, number), os.kill(pid, signal.SIGCONT)))
    killer.start()
    with pytest.raises(MediaError, match=f"its decoder was ended by {number.name}") as raised:
        decoder.decode_image(item(good.data, "messages[0].content[2].image_url"))
    killer.join()
    assert raised.value.param == "messages[0].content[2].image_url"
    assert decoder.decode_image(good).shape == (4, 8, 3)


def test_running_out_of_memory_fails_one_item_and_leaves_the_parent_as_it_was(encode: Any, good: MediaItem) -> None:
    bomb = item(encode(Image.new("1", (8000, 8000)), "PNG"))
    assert len(bomb.data) < 10_000
    decoder = Decoder(MediaLimits(decode_memory_bytes=32 << 20))
    decoder.decode_image(good)
    Path("/proc/self/clear_refs").write_text("5")  # let the peak be measured anew
    began = peak_bytes()
    with pytest.raises(MediaError, match="needs more than 32 MiB of memory") as raised:
        decoder.decode_image(bomb)
    assert raised.value.code == "media_too_large"
    assert decoder.decode_image(good).shape == (4, 8, 3)
    assert peak_bytes() - began < 8 << 20
    decoder.close()


def peak_bytes() -> int:
    (kib,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(kib) * 1024


def test_a_bomb_over_the_limit_costs_neither_process_memory(decoder: Decoder, encode: Any, good: MediaItem) -> None:
    bomb = item(encode(Image.new("1", (13_377, 13_377)), "PNG"))
    before = children()
    decoder.decode_image(good)
    child = the_child(before)
    Path("/proc/self/clear_refs").write_text("5")
    began = peak_bytes()
    with pytest.raises(MediaError, match="megapixels"):
        decoder.decode_image(bomb)
    assert peak_bytes() - began < 8 << 20
    (kib,) = re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{child}/status").read_text())
    assert int(kib) < 100_000


def test_a_child_that_cannot_start_is_an_error_and_tried_again(
    good: MediaItem, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = Decoder(MediaLimits())
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with pytest.raises(SensoriumError, match="did not start"):
        decoder.decode_image(good)
    monkeypatch.undo()
    with contextlib.suppress(SensoriumError):  # its replacement may have been tried before the undo
        decoder.decode_image(good)
    assert decoder.decode_image(good).shape == (4, 8, 3)
    decoder.close()


def test_many_threads_get_each_its_own_picture(encode: Any) -> None:
    decoder = Decoder(MediaLimits(), num_children=2)
    items = [item(encode(Image.new("RGB", (index + 1, 40), (index, 0, 255 - index)))) for index in range(40)]
    broken = item(b"\xff\xd8\xff")

    def work(index: int) -> None:
        if index % 5 == 4:
            with pytest.raises(MediaError):
                decoder.decode_image(broken)
        pixels = decoder.decode_image(items[index % 40])
        assert pixels.shape == (40, index % 40 + 1, 3)
        assert (pixels == (index % 40, 0, 255 - index % 40)).all()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(400)))
    decoder.close()


def test_close_while_others_wait(good: MediaItem) -> None:
    decoder = Decoder(MediaLimits())
    decoder.decode_image(good)

    def work() -> str:
        try:
            while True:
                decoder.decode_image(good)
        except SensoriumError as error:
            return error.message

    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(work) for _ in range(4)]
        time.sleep(0.05)
        decoder.close()
        assert {future.result(10) for future in futures} == {"the image decoder is closed"}


def mutations(seeds: list[bytes], count: int) -> Iterator[bytes]:
    """Yield damaged copies: flipped bytes, cuts, repeats, inserted junk, extreme numbers, two files spliced."""
    draw = random.Random(20)
    extremes = [
        b"\0\0\0\0",
        b"\xff\xff\xff\xff",
        b"\x7f\xff\xff\xff",
        b"\0\0\0\x01",
        b"\x01\0\0\0",
        b"\xff\xd9",
        b"\xff\xc4",
    ]
    for _ in range(count):
        data = bytearray(draw.choice(seeds))
        for _ in range(draw.choice([1, 1, 2, 4, 16])):
            at, length = draw.randrange(len(data) + 1), draw.randrange(1, 16)
            kind = draw.randrange(6)
            if kind == 0 and at < len(data):
                data[at] ^= 1 << draw.randrange(8)
            elif kind == 1:
                del data[at : at + length]
            elif kind == 2:
                data[at:at] = data[at : at + length] * draw.randrange(1, 4)
            elif kind == 3:
                data[at:at] = draw.randbytes(length)
            elif kind == 4:
                extreme = draw.choice(extremes)
                data[at : at + len(extreme)] = extreme
            elif draw.random() < 0.1:
                other = draw.choice(seeds)
                data[at:] = other[draw.randrange(len(other)) :]
        yield bytes(data)


def test_damaged_files_give_a_picture_or_a_media_error(encode: Any) -> None:
    noise = Image.effect_noise((24, 16), 90)
    exif = Image.Exif()
    exif[0x0112] = 6
    frames = [noise.convert("P"), noise.rotate(90).convert("P")]
    seeds = [
        *(encode(noise.convert(mode), "PNG") for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")),
        *(encode(noise.convert(mode), "BMP") for mode in ("1", "L", "P", "RGB", "RGBA")),
        *(encode(noise.convert(mode), "JPEG", exif=exif) for mode in ("L", "RGB", "CMYK")),
        encode(noise.convert("RGB"), "JPEG", progressive=True, icc_profile=b"icc" * 50),
        encode(noise.convert("RGB"), "PNG", pnginfo=None, exif=exif, icc_profile=b"icc" * 50),
        *(encode(noise.convert("RGBA"), "WEBP", lossless=lossless, exif=exif) for lossless in (True, False)),
        encode(frames[0], "WEBP", save_all=True, append_images=frames[1:]),
        encode(frames[0], "GIF"),
        encode(frames[0], "GIF", save_all=True, append_images=frames[1:], transparency=3, disposal=2),
    ]
    limits = MediaLimits(max_pixels=1_000_000, decode_memory_bytes=256 << 20, decode_timeout_s=5.0)
    decoder = Decoder(limits)
    errors: list[MediaError] = []
    shapes: list[tuple[int, ...]] = []
    for data in mutations(seeds, 4000):
        try:
            shapes.append(decoder.decode_image(item(data, "where")).shape)
        except MediaError as error:  # anything else fails the test
            errors.append(error)
    decoder.close()
    assert len(errors) > 400
    assert {(error.param, error.code) for error in errors} <= {("where", "media_invalid"), ("where", "media_too_large")}
    unfit = re.compile(r"\b0x[0-9a-f]{4}|site-packages|/tmp|Traceback|<|its decoder")  # the last: no child was lost
    assert [error.message for error in errors if unfit.search(error.message)] == []
    assert len(shapes) > 400
    assert all(0 < height * width <= limits.max_pixels and depth == 3 for height, width, depth in shapes)


def test_a_child_without_memory_in_the_middle_of_its_answer_is_lost_at_once(
    encode: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its refusal would be read as pixels: as those of this picture, or, where they do not suffice, of the next."""
    broken = (
        "import sensorium.media.answer_image as module\n"
        "class Broken:\n"
        "    def __init__(self, image): self.size = image.size\n"
        "    def tobytes(self): raise MemoryError\n"
        "whole = module.decode_rgb\n"
        "module.decode_rgb = lambda *arguments: Broken(whole(*arguments))\n"
    )
    start = child_process._START.replace("from sensorium.media.child", f"exec({broken!r}); from sensorium.media.child")
    monkeypatch.setattr(child_process, "_START", start)
    decoder = Decoder(MediaLimits(decode_timeout_s=20.0))
    try:
        for size in ((2, 2), (100, 100)):
            decoder.start()
            before = time.monotonic()
            with pytest.raises(MediaError, match="could not be decoded: its decoder ended"):
                decoder.decode_image(item(encode(Image.new("RGB", size, "red"))))
            assert time.monotonic() - before < 15
    finally:
        decoder.close()
