"""Broken pictures by the thousand, the same for the same seed."""

import io
import random
import struct
from collections.abc import Iterator

from PIL import Image

from generation.tests.images.files import HEIC

HEAD_BYTES = 2000
ODD_BYTES = (0x00, 0x01, 0x7F, 0x80, 0xD9, 0xDA, 0xFE, 0xFF)
ODD_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF)


def originals() -> dict[str, bytes]:
    """Return small whole pictures: each format in the shapes that its decoder has code for."""
    photo = Image.linear_gradient("L").resize((160, 120)).convert("RGB")
    photo.paste("teal", (40, 30, 90, 70))
    alpha = photo.convert("RGBA")
    alpha.putalpha(photo.getchannel("R"))
    return {
        "JPEG": _saved(photo, "JPEG"),
        "JPEG progressive": _saved(photo, "JPEG", progressive=True),
        "JPEG CMYK": _saved(photo.convert("CMYK"), "JPEG"),
        "PNG": _saved(photo, "PNG"),
        "PNG RGBA": _saved(alpha, "PNG"),
        "PNG palette": _saved(photo.quantize(64), "PNG"),
        "PNG 16": _saved(photo.convert("I;16"), "PNG"),
        "WebP": _saved(photo, "WEBP"),
        "WebP alpha": _saved(alpha, "WEBP"),
        "WebP lossless": _saved(alpha, "WEBP", lossless=True),
        # Twice: every crash of a decoder that is known so far is one of libheif's wrapper.
        "HEIC": HEIC,
        "HEIC again": HEIC,
    }


def mutations(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield so many broken pictures, each with a name that says how it was made."""
    chance = random.Random(seed)
    pictures = list(originals().items())
    for number in range(count):
        name, data = pictures[number % len(pictures)]
        changes = [chance.choice(CHANGES) for _ in range(chance.choice((1, 1, 1, 2, 4)))]
        for change in changes:
            data = change(bytearray(data), chance)
        yield f"{name} {seed}.{number} {' '.join(change.__name__ for change in changes)}", bytes(data)


def _saved(image: Image.Image, image_format: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, image_format, **options)
    return out.getvalue()


def _place(data: bytearray, chance: random.Random) -> int:
    """Choose a place: in the head, where the structure is, more often than not."""
    most = len(data) if chance.random() < 0.3 else min(len(data), HEAD_BYTES)
    return chance.randrange(max(1, most))


def _flip_bit(data: bytearray, chance: random.Random) -> bytes:
    if data:
        data[_place(data, chance)] ^= 1 << chance.randrange(8)
    return data


def _set_byte(data: bytearray, chance: random.Random) -> bytes:
    if data:
        data[_place(data, chance)] = chance.choice(ODD_BYTES)
    return data


def _set_number(data: bytearray, chance: random.Random) -> bytes:
    """Overwrite what may be a length or a size, of 2 or 4 bytes in either order."""
    layout = chance.choice((">H", "<H", ">I", "<I"))
    place, size = _place(data, chance), struct.calcsize(layout)
    if place + size <= len(data):
        struct.pack_into(layout, data, place, chance.choice(ODD_NUMBERS) & (1 << 8 * size) - 1)
    return data


def _truncate(data: bytearray, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data) + 1)]


def _repeat(data: bytearray, chance: random.Random) -> bytes:
    start = _place(data, chance)
    piece = data[start : start + chance.randrange(1, 200)]
    return data[:start] + piece * chance.choice((2, 3, 50)) + data[start + len(piece) :]


def _delete(data: bytearray, chance: random.Random) -> bytes:
    start = _place(data, chance)
    return data[:start] + data[start + chance.randrange(1, 64) :]


def _insert(data: bytearray, chance: random.Random) -> bytes:
    start = _place(data, chance)
    return data[:start] + chance.randbytes(chance.randrange(1, 64)) + data[start:]


CHANGES = (_flip_bit, _flip_bit, _set_byte, _set_byte, _set_number, _set_number, _truncate, _repeat, _delete, _insert)
