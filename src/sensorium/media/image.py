"""From an encoded picture to RGB. Runs in the decoding child: the input is hostile and the decoder is C.

Imported by the child, so only Pillow and the standard library are imported here. The offline API takes `to_rgb` too.
"""

from __future__ import annotations

# Pillow imports these two at the first GIF and at the first picture with EXIF; here it is in time.
import copy  # noqa: F401
import io
import warnings

import PIL.TiffImagePlugin  # noqa: F401
from PIL import Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from sensorium.media.check import Rejected, check_size
from sensorium.media.header import Format, image_format, missing_end, other_format, webp_size

# By class, not by Image.open: no other plugin can be reached, and no plugin is imported late.
_FILES: dict[Format, type[ImageFile.ImageFile]] = {
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "GIF": GifImageFile,
    "WebP": WebPImageFile,
    "BMP": BmpImageFile,
}
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode_rgb(data: bytes | bytearray, max_pixels: int, max_aspect_ratio: int) -> Image.Image:
    """Return the picture in mode RGB, turned as its EXIF orientation says; of an animation, the first frame.

    Raises:
        Rejected: unknown format, over a limit (read from the header, before decoding), truncated or damaged.
        MemoryError: decoding needs more than the process may have.
    """
    kind = image_format(data)
    if kind is None:
        raise Rejected(_unknown(data))
    Image.MAX_IMAGE_PIXELS = max_pixels
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if kind == "WebP" and (size := webp_size(data)) is not None:
                check_size(*size, max_pixels, max_aspect_ratio)
            image = _FILES[kind](io.BytesIO(data))
            check_size(image.height, image.width, max_pixels, max_aspect_ratio)
            image.load()
            check_size(image.height, image.width, max_pixels, max_aspect_ratio)
            return _turn(to_rgb(image), _orientation(image))
    except (Rejected, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise Rejected(f"has far more than {max_pixels / 1e6:.1f} megapixels, the limit", "media_too_large") from None
    except Exception:
        # Pillow raises whatever its parsers met: OSError, SyntaxError, ValueError, struct.error, IndexError ...
        if missing := missing_end(data, kind):
            raise Rejected(f"is truncated: {missing}. Send the whole {kind} file") from None
        raise Rejected(f"cannot be decoded: the {kind} file is damaged") from None


def _unknown(data: bytes | bytearray) -> str:
    if not data:
        return "is empty"
    other = other_format(data)
    return "is not a JPEG, PNG, GIF, WebP or BMP file" + (f"; it looks like {other}" if other else "")


def to_rgb(image: Image.Image) -> Image.Image:
    """Return `image` in mode RGB.

    What is transparent becomes white, as in Qwen's own qwen_vl_utils and in vLLM. Dropping alpha, as Pillow's
    convert("RGB") and transformers' convertto_rgb do, shows whatever colour the transparent pixels happen to
    have, mostly black: black text on a transparent ground would become a black rectangle.
    """
    if image.mode.startswith("I"):  # 16 bits per pixel: Pillow's own conversion clips at 255 and gives white
        image = image.point(lambda value: value * (1 / 257)).convert("L")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        ground = Image.new("RGB", image.size, "white")
        ground.paste(image, mask=image.getchannel("A"))
        return ground
    return image if image.mode == "RGB" else image.convert("RGB")


def _orientation(image: Image.Image) -> object:
    try:
        return image.getexif().get(_ORIENTATION)
    except MemoryError:
        raise
    except Exception:  # junk in EXIF says nothing about the picture
        return None


def _turn(image: Image.Image, orientation: object) -> Image.Image:
    turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)
