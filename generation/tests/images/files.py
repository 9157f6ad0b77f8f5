"""Pictures that cost more than they look like, made here: none is larger than a few hundred kilobytes."""

import io
import re
from pathlib import Path

from PIL import Image

FAULTS = Path(__file__).parents[3] / "stefna" / "tests" / "faults"
HEIC = (FAULTS / "phone.heic").read_bytes()
# One byte of a content type is not UTF-8: pi-heif 1.4.0 ends its process with a segmentation fault.
CRASH = (FAULTS / "crash.heic").read_bytes()


def progressive_jpeg(size=(64, 48)):
    out = io.BytesIO()
    Image.new("RGB", size, "teal").save(out, "JPEG", progressive=True)
    return out.getvalue()


def many_scans(count, size=(64, 48)):
    """Return a progressive JPEG with so many scans: its last one, which only refines, again and again."""
    data = progressive_jpeg(size)
    last = [found.start() for found in re.finditer(b"\xff\xda", data)][-1]
    scan = data[last:-2]
    return data[:-2] + scan * (count - 10) + data[-2:]


def lossless_webp(size=(6300, 6300)):
    """Return a picture of one colour: 1.6 kB for 40 megapixels, and 18 bytes of memory for each."""
    out = io.BytesIO()
    Image.new("RGBA", size, (1, 2, 3, 9)).save(out, "WEBP", lossless=True)
    return out.getvalue()
