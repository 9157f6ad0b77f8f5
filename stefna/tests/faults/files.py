"""Files that people and attackers send as photos, and the forms that they come in."""

import io
import uuid
import zipfile
import zlib
from pathlib import Path

from PIL import Image

from conftest import small
from generation import photos

HEIC = Path(__file__).with_name("phone.heic").read_bytes()
BOUNDARY = "----a-boundary-of-the-tests"
FORM = f"multipart/form-data; boundary={BOUNDARY}"
SECRET = b"SECRET"

# -- Forms ---------------------------------------------------------------------------------------------------


def part(name, value, filename=None):
    disposition = f'Content-Disposition: form-data; name="{name}"'
    if filename is not None:
        disposition += f'; filename="{filename}"\r\nContent-Type: image/jpeg'
    return f"--{BOUNDARY}\r\n{disposition}\r\n\r\n".encode() + value + b"\r\n"


def form(*parts):
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def file(data, name="photo.jpg"):
    return part("photo", data, name)


def wanted():
    """What the page sends beside the photo."""
    return part("key", uuid.uuid4().hex.encode()), part("look", b"duotone")


def stored(photo):
    return [photos.read(photo.file), photos.read(photo.thumbnail)]


# -- Files ---------------------------------------------------------------------------------------------------


def saved(image, image_format="JPEG", **options):
    out = io.BytesIO()
    image.save(out, image_format, **options)
    return out.getvalue()


def photograph(side=160):
    return Image.open(io.BytesIO(small("coffee", side))).convert("RGB")


def plain(colour, size=(96, 80)):
    return Image.new("RGB", size, colour)


def quarters():
    """A picture of which every corner says where it belongs: the one in phone.heic."""
    image = Image.new("RGB", (96, 128))
    for place, colour in zip([(0, 0), (48, 0), (0, 64), (48, 64)], QUARTERS, strict=True):
        image.paste(colour, (*place, place[0] + 48, place[1] + 64))
    return image


QUARTERS = [(200, 60, 50), (60, 160, 70), (60, 80, 190), (210, 190, 70)]


def chunk(kind, data):
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def png(width, height, *chunks, kind=b"\x08\x02\0\0\0", pixels=b"\0" * 5000):
    """A PNG with parts of one's own between its header and its pixels."""
    header = chunk(b"IHDR", width.to_bytes(4, "big") + height.to_bytes(4, "big") + kind)
    return (
        b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    )


def zipped(name="x.txt", content=SECRET, data=b""):
    """A ZIP, behind some bytes that are something else."""
    out = io.BytesIO(data)
    with zipfile.ZipFile(out, "a") as archive:
        archive.writestr(name, content)
    return out.getvalue()


def frames(image_format, count=2, size=(96, 80)):
    """An animation: first red, then blue and green."""
    others = [plain(("blue", "green")[number % 2], size) for number in range(count - 1)]
    return saved(plain("red", size), image_format, save_all=True, append_images=others)


def flipped(data, place, bits=0xFF):
    return data[:place] + bytes([data[place] ^ bits]) + data[place + 1 :]
