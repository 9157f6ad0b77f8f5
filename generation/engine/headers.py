"""Read the header of a picture in plain Python: its format, its size, and what decoding it will cost.

No decoder is loaded, and every loop is bounded: the process that serves requests calls this on bytes of strangers.
"""

import re
import struct
import zlib
from dataclasses import dataclass

MAX_SCANS = 100
"""A camera writes 1 scan or about 10. Each scan of a progressive JPEG is a pass over the whole picture."""

_MAX_SEGMENTS = 1_000
_MAX_BOXES = 10_000
_PIECE_BYTES = 1 << 18
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE_MARKERS = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
# In the data of a scan 0xFF is followed by 0x00 or by a restart marker; anything else ends the scan. There is no
# repetition in it: in megabytes of 0xFF that takes quadratic time.
_NEXT_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Header:
    """What a header promises. `scans` counts the passes of a JPEG, `components` its colours."""

    format: str
    width: int
    height: int
    scans: int = 1
    progressive: bool = False
    components: int = 3

    @property
    def pixels(self) -> int:
        return self.width * self.height


def read_header(data: bytes) -> Header | None:
    """Return the header of a JPEG, PNG, WebP or HEIC; None where there is none that can be read."""
    try:
        if data.startswith(b"\xff\xd8\xff"):
            return _jpeg(data)
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            return _png(data)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _webp(data)
        if data[4:8] == b"ftyp":
            return _heif(data)
    except (struct.error, IndexError):
        pass
    return None


def _jpeg(data: bytes) -> Header | None:
    """Walk over the segments, up to the first scan or, if there may be too many scans, to the end of the picture.

    A plain search finds more scans than there are where a thumbnail or a second picture has its own, which is harmless
    as long as it does not find too many.
    """
    position, width, height, components, scans, progressive = 2, 0, 0, 3, 0, False
    for _ in range(_MAX_SEGMENTS):
        found = _next_marker(data, position)
        if not found or found[1] == b"\xd9" or scans > MAX_SCANS:
            break
        marker, position = found[1][0], found.end()
        if marker in (0x01, 0xD8):
            continue
        (length,) = struct.unpack_from(">H", data, position)
        if marker in _FRAME_MARKERS:
            height, width, components = struct.unpack_from(">HHB", data, position + 3)
            progressive = marker in _PROGRESSIVE_MARKERS
        if marker == 0xDA:
            scans += 1
            if scans == 1 and (others := data.count(b"\xff\xda", position)) < MAX_SCANS:
                scans += others
                break
        position += length
    else:
        return None  # so many segments are there to hide something behind them
    return Header("JPEG", width, height, scans, progressive, components) if width and height else None


def _next_marker(data: bytes, position: int) -> re.Match[bytes] | None:
    """Search in pieces: a search holds the interpreter's lock, and of megabytes of 0xFF it looks at every byte."""
    for start in range(position, len(data), _PIECE_BYTES):
        # A byte more, for a marker that lies across the end of a piece.
        if found := _NEXT_MARKER.search(data, start, start + _PIECE_BYTES + 1):
            return found
    return None


def _png(data: bytes) -> Header | None:
    if zlib.crc32(data[12:29]) != int.from_bytes(data[29:33], "big"):
        return None
    width, height = struct.unpack_from(">II", data, 16)
    return Header("PNG", width, height)


def _webp(data: bytes) -> Header | None:
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
        return Header("WEBP", width, height)
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return Header("WEBP", (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return Header("WEBP", width & 0x3FFF, height & 0x3FFF)
    return None


def _heif(data: bytes) -> Header | None:
    """Return the largest size of any item: that of the whole picture, of which others are tiles or thumbnails."""
    sizes: list[tuple[int, int]] = []
    boxes = [(0, len(data))]
    for _ in range(_MAX_BOXES):
        if not boxes:
            break
        start, end = boxes.pop()
        if end - start < 8:
            continue
        length, kind = struct.unpack_from(">I4s", data, start)
        body = start + 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, body)
            body += 8
        stop = end if length == 0 else min(end, start + length)
        if stop > start + 8:
            boxes.append((stop, end))
        if kind == b"meta":
            boxes.append((body + 4, stop))
        elif kind in (b"iprp", b"ipco"):
            boxes.append((body, stop))
        elif kind == b"ispe":
            sizes.append(struct.unpack_from(">II", data, body + 4))
    if boxes or not sizes:
        return None
    width, height = max(sizes, key=lambda size: size[0] * size[1])
    return Header("HEIF", width, height)
