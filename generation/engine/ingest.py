"""Pixels in and out of files: decode safely, orient, convert to sRGB, shrink, encode.

Nothing here trusts a file: the bytes decide the type, the header is checked before a decoder is made, and every
way in which a decoder can fail comes out as one exception. Called only in an image process (generation/images).
"""

import io
import struct
import warnings
import zlib
from dataclasses import dataclass
from typing import Any, cast

from PIL import (
    Image,
    ImageCms,
    ImageOps,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from generation.engine.exceptions import DamagedImage, InvalidDimensions, TooCostly, TooManyPixels, UnsupportedType
from generation.engine.headers import MAX_SCANS, Header, read_header

# Importing a plugin registers it. Image.init() would load Pillow's forty others, which takes as long as the rest.
_PLUGINS = (JpegImagePlugin.JpegImageFile, PngImagePlugin.PngImageFile, WebPImagePlugin.WebPImageFile)
FORMATS: tuple[str, ...] = tuple(plugin.format for plugin in _PLUGINS)
# What Pillow loads only for some files, for EXIF among them: an image process can load nothing later.
PRELOADED = (MpoImagePlugin, TiffImagePlugin)
try:
    import pi_heif
except ImportError:
    pass  # an optional codec: without it HEIC is a type that is not supported
else:
    pi_heif.register_heif_opener()
    FORMATS += ("HEIF",)

# What Pillow's decoders raise on broken files, collected over public corpora of malformed pictures.
BROKEN = (
    OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError,
    OverflowError, RuntimeError, NotImplementedError, AssertionError, struct.error, zlib.error,
    Image.DecompressionBombError,
)  # fmt: skip

_SRGB = ImageCms.createProfile("sRGB")
# Pillow warns of very large pictures; as an error it reaches the one place where size is judged.
warnings.simplefilter("error", Image.DecompressionBombWarning)
# The texts of a PNG are unpacked before they are dropped; Pillow allows 64 MB of them.
PngImagePlugin.MAX_TEXT_MEMORY = 8_000_000


@dataclass(frozen=True)
class Limits:
    """What is decoded at all: pixels in total, the shortest and the longest side, in pixels."""

    pixels: int = 80_000_000
    shortest_side: int = 1
    longest_side: int = 30_000


def decode(data: bytes, limits: Limits, *, max_side: int | None = None) -> Image.Image:
    """Decode the first frame upright, in sRGB, as RGB or RGBA with 8 bits, at most `max_side` on the long side.

    Nothing but pixels comes through: no EXIF, XMP, colour profile or comment.

    Raises a subclass of DecodeError, and nothing else.
    """
    promised = _check_header(data, limits)
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except MemoryError as error:
        raise TooCostly from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise TooManyPixels from error
    except UnidentifiedImageError as error:
        # A file that says it is a JPEG, PNG or WebP and cannot be opened is damaged, not of another type.
        raise (DamagedImage if _claims_known_type(data) else UnsupportedType) from error
    except BROKEN as error:
        raise DamagedImage from error
    with image:
        _check_size(*image.size, limits)
        if image.width * image.height > promised.pixels:
            raise DamagedImage("larger than its header says")
        try:
            if max_side:
                _draft(image, max_side)
            image.load()
            # A HEIC of several pictures reads its pixels anew whenever it is looked at, and no longer fits when shrunk.
            pixels = _averageable(image.copy() if getattr(image, "is_animated", False) else image)
            if max_side:
                # First of all, so that turning and converting have fewer pixels to do. Hamming is as sharp as bicubic
                # when shrinking, in half of the time of Lanczos.
                pixels.thumbnail((max_side, max_side), Image.Resampling.HAMMING, reducing_gap=3.0)
            pixels = _to_srgb(ImageOps.exif_transpose(pixels))
        except MemoryError as error:
            raise TooCostly from error
        except BROKEN as error:
            raise DamagedImage from error
    pixels.info.clear()
    return pixels


def brightest(data: bytes, limits: Limits) -> int:
    """Return the largest luminance of a picture at a size of 64 pixels, 0..255. Raises a subclass of DecodeError."""
    return cast(tuple[int, int], decode(data, limits, max_side=64).convert("L").getextrema())[1]


def encode(image: Image.Image, image_format: str, *, quality: int = 92, xmp: bytes = b"", **options: Any) -> bytes:
    """Encode RGB or RGBA as JPEG, PNG or WEBP, with an XMP packet if there is one. JPEG lays transparency on white."""
    if image_format == "JPEG" and image.mode != "RGB":
        flat = Image.new("RGB", image.size, "white")
        flat.paste(image, mask=image.getchannel("A"))
        image = flat
    settings: dict[str, Any] = {
        "JPEG": {"quality": quality, "progressive": True, "subsampling": 0 if quality > 90 else 2},
        # Level 3 is within 3 % of the default's size in less than half of its time.
        "PNG": {"compress_level": 3},
        "WEBP": {"quality": quality, "method": 2},
    }[image_format]
    if xmp and image_format == "PNG":
        # Pillow ignores `xmp=` for PNG; the XMP specification keeps the packet in an iTXt chunk.
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", xmp.decode())
    elif xmp:
        options["xmp"] = xmp
    out = io.BytesIO()
    try:
        image.save(out, image_format, **(settings | options))
    except OSError:
        # Pillow guesses how much room a progressive JPEG needs, and a very busy picture needs more.
        out = io.BytesIO()
        image.save(out, image_format, **(settings | options | {"progressive": False}))
    return out.getvalue()


def thumbnail(image: Image.Image, side: int) -> Image.Image:
    """Return a copy whose long side is at most `side`."""
    small = image.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return small


def _check_header(data: bytes, limits: Limits) -> Header:
    """Refuse by the header alone: Pillow's WebP decoder takes its memory when the file is opened."""
    header = read_header(data)
    if header is None:
        raise DamagedImage("no header") if _claims_known_type(data) else UnsupportedType
    _check_size(header.width, header.height, limits)
    if header.scans > MAX_SCANS:
        raise TooCostly(f"more than {MAX_SCANS} scans")
    return header


def _check_size(width: int, height: int, limits: Limits) -> None:
    if width * height > limits.pixels:
        raise TooManyPixels
    if min(width, height) < limits.shortest_side or max(width, height) > limits.longest_side:
        raise InvalidDimensions


def _claims_known_type(data: bytes) -> bool:
    return (
        data.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"))
        or (data[:4] == b"RIFF" and data[8:12] == b"WEBP")
        or (data[4:8] == b"ftyp" and data[8:11] in (b"hei", b"mif", b"hev"))
    )


def _draft(image: Image.Image, max_side: int) -> None:
    """Let the JPEG decoder shrink by the power of two that still leaves enough pixels."""
    width, height = image.size
    scale = max_side / max(width, height)
    if scale < 1:
        image.draft(None, (max(1, round(width * scale)), max(1, round(height * scale))))


def _averageable(image: Image.Image) -> Image.Image:
    """Convert the modes whose pixels cannot be averaged, or would clip: palettes, one bit, sixteen bits."""
    if image.mode == "RGBA":
        return image  # converting would copy all of it
    if image.has_transparency_data:
        return image.convert("RGBA")
    if image.mode in ("I;16", "I;16B", "I;16L", "I", "F"):
        # Pillow's own conversion clips 16-bit grey to white.
        return image.convert("F").point(lambda v: v * (1 / 256) + 0).convert("L")
    return image.convert("RGB") if image.mode in ("P", "1") else image


def _to_srgb(image: Image.Image) -> Image.Image:
    """Convert to RGB, or RGBA where something is transparent, in sRGB."""
    profile = image.info.get("icc_profile")
    alpha: Image.Image | None = None
    if image.mode == "RGBA":
        alpha = image.getchannel("A")
        image = image.convert("RGB")
    if profile:
        image = _apply_profile(image, profile)
    if image.mode != "RGB":
        image = image.convert("RGB")
    if alpha is not None and cast(tuple[int, int], alpha.getextrema())[0] < 255:
        image.putalpha(alpha)
    return image


def _apply_profile(image: Image.Image, profile: bytes) -> Image.Image:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(image, source, _SRGB, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image  # a broken profile is no reason to refuse the photo
    return converted or image
