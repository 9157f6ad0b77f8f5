"""Messages between a serving process and its image processes: JSON, followed by the bytes that it refers to.

Not pickle: a process that decodes bytes of strangers is not trusted, and a pickle can run code in its reader.
"""

import json
import struct
from typing import Any

ORDER = struct.Struct("!cI")
"""What a serving process asks of its template: FORK, with the ends of two pipes, or WAIT and a process's number."""
FORK, WAIT = b"f", b"w"
ANSWER = struct.Struct("!i")
"""The number of the new process; or how a process ended, as `subprocess.Popen.returncode` has it."""

HEAD = struct.Struct(">II")
"""Lengths of the JSON and of all bytes behind it."""


def pack(value: Any) -> list[bytes]:
    """Return the parts of a message; `value` is JSON in which bytes may stand as values."""
    blobs: list[bytes] = []

    def refer(blob: bytes) -> dict[str, int]:
        blobs.append(blob)
        return {"$bytes": len(blob)}

    text = json.dumps(value, default=refer).encode()
    return [HEAD.pack(len(text), sum(map(len, blobs))), text, *blobs]


def unpack(text: bytes | bytearray, blobs: memoryview) -> Any:
    """Return the value of a message. Raises ValueError for one that is not in order."""
    position = 0

    def resolve(members: dict[str, Any]) -> Any:
        nonlocal position
        if members.keys() != {"$bytes"}:
            return members
        start, position = position, position + int(members["$bytes"])
        if not start <= position <= len(blobs):
            raise ValueError("bytes are missing")
        return bytes(blobs[start:position])

    return json.loads(text, object_hook=resolve)
