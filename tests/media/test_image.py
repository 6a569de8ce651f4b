"""What pictures look like after decoding; all of it through the child, as in service."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageOps

from sensorium.errors import MediaError
from sensorium.media.decode import Decoder
from sensorium.settings import MediaLimits
from sensorium.types import MediaItem

WHERE = "messages[1].content[0].image_url"
Decode = Callable[[bytes], npt.NDArray[np.uint8]]


@pytest.fixture(scope="module")
def decode() -> Iterator[Decode]:
    decoder = Decoder(MediaLimits())
    yield lambda data: decoder.decode_image(MediaItem("image", data, WHERE))
    decoder.close()


@pytest.fixture
def picture() -> Image.Image:
    """48x32, every quarter of another colour, smooth enough for JPEG."""
    image = Image.new("RGB", (48, 32), (200, 30, 40))
    image.paste((20, 180, 60), (24, 0, 48, 16))
    image.paste((30, 60, 220), (0, 16, 24, 32))
    image.paste((240, 230, 20), (24, 16, 48, 32))
    return image


@pytest.mark.parametrize(
    ("kind", "options", "tolerance"),
    [
        ("PNG", {}, 0),
        ("PNG", {"interlace": 1}, 0),
        ("BMP", {}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("WEBP", {"quality": 95}, 12),
        ("JPEG", {"quality": 95, "subsampling": 0}, 12),
        ("JPEG", {"quality": 95, "progressive": True, "subsampling": 0}, 12),
        ("GIF", {}, 0),
    ],
)
def test_formats(decode: Decode, encode: Any, picture: Image.Image, kind: str, options: Any, tolerance: int) -> None:
    pixels = decode(encode(picture, kind, **options))
    assert pixels.shape == (32, 48, 3)
    assert pixels.dtype == np.uint8
    assert pixels.flags.writeable
    assert pixels.flags.c_contiguous
    difference = np.abs(pixels.astype(int) - np.asarray(picture, dtype=int))
    assert np.percentile(difference, 80) <= tolerance


@pytest.mark.parametrize("kind", ["PNG", "GIF", "WEBP"])
def test_of_an_animation_the_first_frame(decode: Decode, encode: Any, kind: str) -> None:
    first, second = Image.new("RGB", (20, 20), "red"), Image.new("RGB", (20, 20), "blue")
    data = encode(
        first,
        kind,
        save_all=True,
        append_images=[second] * 3,
        duration=100,
        **({"lossless": True} if kind == "WEBP" else {}),
    )
    assert (decode(data) == (255, 0, 0)).all()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", [*range(1, 9), 0, 9, 65535])
def test_exif_orientation(decode: Decode, encode: Any, picture: Image.Image, kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(picture, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    with Image.open(io.BytesIO(data)) as plain:
        expected = np.asarray(ImageOps.exif_transpose(plain).convert("RGB"))
    pixels = decode(data)
    assert pixels.shape == ((48, 32, 3) if orientation in (5, 6, 7, 8) else (32, 48, 3))
    np.testing.assert_array_equal(pixels, expected)


def test_junk_in_exif_is_ignored(decode: Decode, encode: Any, picture: Image.Image) -> None:
    for junk in (
        b"Exif\0\0",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + bytes(500),
        b"junk",
    ):
        assert decode(encode(picture, "JPEG", exif=junk)).shape == (32, 48, 3)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_becomes_white(decode: Decode, encode: Any, mode: str) -> None:
    image = Image.new("RGBA", (3, 1), (0, 0, 0, 0))  # black under the transparency
    image.putpixel((1, 0), (0, 0, 0, 255))
    image.putpixel((2, 0), (0, 0, 0, 128))
    options: dict[str, Any] = {}
    if mode == "P":
        image = Image.new("P", (3, 1), 0)
        image.putpalette([0, 0, 0, 0, 0, 0, 127, 127, 127])
        image.putdata([0, 1, 2])
        options = {"transparency": 0}
    pixels = decode(encode(image if mode == "P" else image.convert(mode), "PNG", **options))
    np.testing.assert_array_equal(pixels, [[[255] * 3, [0] * 3, [127] * 3]])


def test_transparent_colour_of_grey_and_rgb_files(decode: Decode, encode: Any) -> None:
    grey = encode(Image.frombytes("L", (2, 1), b"\x05\x06"), "PNG", transparency=5)
    assert decode(grey)[0, :, 0].tolist() == [255, 6]
    colour = encode(Image.frombytes("RGB", (2, 1), b"\x01\x02\x03\x04\x05\x06"), "PNG", transparency=(1, 2, 3))
    assert decode(colour)[0].tolist() == [[255, 255, 255], [4, 5, 6]]
    gif = encode(Image.frombytes("P", (2, 1), b"\x00\x01"), "GIF", transparency=0)
    assert decode(gif)[0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("kind", ["PNG", "BMP"])
def test_one_bit(decode: Decode, encode: Any, kind: str) -> None:
    image = Image.new("1", (2, 1))
    image.putpixel((1, 0), 1)
    assert decode(encode(image, kind))[0].tolist() == [[0] * 3, [255] * 3]


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *extra: tuple[bytes, bytes]) -> bytes:
    """Return a PNG of these bare parts."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), *extra, (b"IDAT", zlib.compress(rows, 1)), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def test_sixteen_bits_keep_their_greys(decode: Decode) -> None:
    grey = png(4, 1, 16, 0, b"\0" + struct.pack(">4H", 0, 257, 32768, 65535))
    assert decode(grey)[0, :, 0].tolist() in ([0, 1, 127, 255], [0, 1, 128, 255])
    colour = png(1, 1, 16, 2, b"\0" + struct.pack(">3H", 0, 32768, 65535))
    assert decode(colour)[0, 0].tolist() == [0, 128, 255]
    alpha = png(2, 1, 16, 6, b"\0" + struct.pack(">8H", 0, 0, 0, 0, 0, 0, 0, 65535))
    assert decode(alpha)[0].tolist() == [[255] * 3, [0] * 3]


def test_cmyk(decode: Decode, encode: Any) -> None:
    pixels = decode(encode(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95))
    assert np.abs(pixels.astype(int) - (255, 0, 0)).max() < 8


def test_a_multi_picture_jpeg_gives_its_first(decode: Decode, encode: Any, picture: Image.Image) -> None:
    data = encode(picture, "MPO", save_all=True, append_images=[Image.new("RGB", (8, 8))])
    assert decode(data).shape == (32, 48, 3)


def refusal(decode: Decode, data: bytes) -> MediaError:
    with pytest.raises(MediaError) as raised:
        decode(data)
    assert raised.value.param == WHERE
    assert raised.value.message.startswith(f"{WHERE}: the image ")
    return raised.value


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP"])
@pytest.mark.parametrize("part", [0.3, 0.6, 0.9, 0.98])
def test_a_truncated_file_says_so(decode: Decode, encode: Any, kind: str, part: float) -> None:
    noise = Image.effect_noise((64, 64), 80).convert("RGB")
    data = encode(noise, kind)
    error = refusal(decode, data[: int(len(data) * part)])
    assert "is truncated: it" in error.message
    assert f"Send the whole {'WebP' if kind == 'WEBP' else kind} file" in error.message


def test_a_truncated_jpeg_with_a_thumbnail_says_so(decode: Decode, encode: Any) -> None:
    noise = Image.effect_noise((64, 64), 80)
    data = encode(noise, "JPEG", exif=b"Exif\0\0" + encode(noise.resize((8, 8)), "JPEG"))
    assert decode(data).shape == (64, 64, 3)
    assert "is truncated: it ends after" in refusal(decode, data[:-100]).message


def test_what_is_no_picture_is_named(decode: Decode, encode: Any, picture: Image.Image) -> None:
    assert "is empty" in refusal(decode, b"").message
    assert "looks like HTML or XML." in refusal(decode, b"\n <!DOCTYPE html><html>").message
    assert "looks like TIFF" in refusal(decode, encode(picture, "TIFF")).message
    assert "looks like PDF" in refusal(decode, encode(picture, "PDF")).message
    for other in (b"a", bytes(1000), b"GIF88a", encode(picture, "PPM"), encode(picture, "ICO"), encode(picture, "TGA")):
        assert "is not a JPEG, PNG, GIF, WebP or BMP file" in refusal(decode, other).message


@pytest.mark.parametrize("prefix", [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF\0\0\0\0WEBP", b"BM"])
@pytest.mark.parametrize("rest", [b"", b"\0" * 100, b"\xff" * 100, b"junk" * 100])
def test_only_a_magic_number(decode: Decode, prefix: bytes, rest: bytes) -> None:
    assert refusal(decode, prefix + rest).code in ("media_invalid", "media_too_large")


@pytest.mark.parametrize(
    ("width", "height", "words"),
    [
        (
            20_000,
            20_000,
            "is 20000x20000 = 400.0 megapixels; the limit is 64.0. Send a smaller picture or raise --max-image-pixels.",
        ),
        (13_377, 13_377, "= 178.9 megapixels"),
        (100_000, 100_000, "= 10000.0 megapixels"),
        (0x7FFFFFFF, 0x7FFFFFFF, "megapixels"),
        (1, 65_535, "is 1x65535: its longer side is more than 200 times the shorter"),
        (65_535, 1, "is 65535x1: its longer side"),
        (201, 1, "is 201x1"),
        (0, 10, "the image "),
        (10, 0, "the image "),
    ],
)
def test_a_header_over_the_limits_is_refused_before_decoding(
    decode: Decode, width: int, height: int, words: str
) -> None:
    error = refusal(decode, png(width, height, 1, 0, b"\0" * 100))
    assert words in error.message
    assert error.code == ("media_too_large" if "megapixels" in words else "media_invalid")


def test_lying_headers_of_other_formats(decode: Decode, encode: Any, picture: Image.Image) -> None:
    gif = bytearray(encode(picture, "GIF"))
    gif[6:10] = b"\xff\xff\xff\xff"
    bmp = bytearray(encode(picture, "BMP"))
    bmp[18:26] = struct.pack("<ii", 100_000, 100_000)
    jpeg = bytearray(encode(picture, "JPEG"))
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = b"\xff\xff\xff\xff"
    webp = bytearray(encode(picture, "WEBP", lossless=True))
    webp[21:25] = b"\xff\xff\xff\x0f"
    extended = b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\xff" * 6
    for data in (gif, bmp, jpeg, webp, extended):
        error = refusal(decode, bytes(data))
        assert "megapixels; the limit is 64.0" in error.message
        assert error.code == "media_too_large"


def test_a_gif_of_ten_thousand_frames_costs_one(decode: Decode, encode: Any) -> None:
    one = encode(Image.new("RGB", (200, 200), "red"), "GIF")
    start = one.index(b",", 13 + 6)
    frame = one[start:-1]
    data = one[:start] + frame * 10_000 + b";"
    assert (decode(data) == (255, 0, 0)).all()


def test_a_png_with_a_text_bomb(decode: Decode) -> None:
    bomb = b"key\0\0" + zlib.compress(bytes(80 << 20), 9)
    assert refusal(decode, png(1, 1, 8, 0, b"\0\0", (b"zTXt", bomb))).code == "media_invalid"


def test_pictures_of_the_largest_size_fit_the_default_memory(encode: Any) -> None:
    """Also where they are turned or laid on white. A quarter of the default limits, to be quick."""
    default = MediaLimits()
    limits = MediaLimits(max_pixels=default.max_pixels // 4, decode_memory_bytes=default.decode_memory_bytes // 4)
    decoder = Decoder(limits)
    exif = Image.Exif()
    exif[0x0112] = 6
    for image, kind in (
        (Image.new("RGB", (5_000, 3_200), "red"), "JPEG"),
        (Image.new("RGBA", (5_000, 3_200), (255, 0, 0, 255)), "PNG"),
    ):
        data = encode(image, kind, exif=exif, **({"progressive": True} if kind == "JPEG" else {"compress_level": 1}))
        pixels = decoder.decode_image(MediaItem("image", data, WHERE))
        assert pixels.shape == (5_000, 3_200, 3)
        assert pixels[-1, -1, 0] >= 250
    decoder.close()
