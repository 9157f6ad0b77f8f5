"""The program of the image processes: a template, and the processes that are forked from it.

The template loads all libraries once and never sees a picture. It forks a process for each pair of pipes that its
parent sends it, and says how it ended. A process does one job at a time; it knows no settings, opens no file and no
socket, and ends when its parent is gone. generation/images/processing.py starts the template as
`python -m generation.images.child MEMORY_MB`.
"""

import fcntl
import io
import math
import os
import resource
import select
import signal
import socket
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from PIL import Image

from generation.engine.exceptions import DecodeError, TooCostly
from generation.images import wire
from generation.images.jobs import JOBS

IS_LINUX = sys.platform == "linux"


def main(memory_mb: int) -> None:
    # Signals that end a service are for the parent, which lets running jobs end, and this process with it.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    control = socket.socket(fileno=os.dup(0))
    _close_standard_streams()
    while True:
        order, pipes, _, _ = socket.recv_fds(control, wire.ORDER.size, 2)
        if not order:
            return
        kind, pid = wire.ORDER.unpack(order)
        if kind == wire.WAIT:
            control.sendall(wire.ANSWER.pack(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])))
            continue
        pid = os.fork()
        if pid == 0:
            control.close()
            _serve(pipes[0], pipes[1], memory_mb)
        for pipe in pipes:
            os.close(pipe)
        control.sendall(wire.ANSWER.pack(pid))


def _close_standard_streams() -> None:
    """Let what a library prints go nowhere: broken pictures would fill the log."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)
    os.close(nothing)


def _serve(requests: int, replies: int, memory_mb: int) -> NoReturn:
    """Do jobs in a forked process until there are no more requests. Does not return into the template."""
    try:
        _warm_up()
        _limit(memory_mb)
        with os.fdopen(requests, "rb", buffering=0) as reader, os.fdopen(replies, "wb", buffering=0) as writer:
            _write(writer, {"ready": True})
            while (request := _read(reader)) is not None:
                with _limited_to(request["cpu_seconds"]), _ending_with_parent(reader):
                    reply = _reply(request["job"], request["arguments"])
                _write(writer, reply)
    finally:
        os._exit(0)


def _warm_up() -> None:
    """Load what decoders, encoders and the engine load on first use: afterwards no file can be opened.

    In each process and not in the template, because the engine starts threads, which a fork would leave behind.
    """
    out = io.BytesIO()
    Image.new("RGB", (96, 64), "teal").save(out, "JPEG")
    photo, limits = out.getvalue(), {"pixels": 10_000}
    for image_format in ("JPEG", "PNG", "WEBP"):
        converted = JOBS["convert"](photo, limits, image_format=image_format, source_type="warm-up")
        JOBS["normalise"](converted["data"], limits, max_side=90, thumbnail_side=40, source_type="")
    steps = [{"op": "gamma", "value": 1.2}, {"op": "bloom", "amount": 0.4}]
    for recipe in ({"version": 1, "steps": []}, {"version": 1, "steps": steps}):
        previews = JOBS["previews"](photo, [[recipe, 0.5, 1]], side=64, quality=80, source_type="warm-up")
    JOBS["render"](photo, {"version": 1, "steps": steps}, strength=0.5, seed=1)
    JOBS["contact_sheet"]([["warm-up", previews]], cell=20, quality=50, source_type="warm-up")
    traceback.format_exception(ValueError("warm-up"))


def _limit(memory_mb: int) -> None:
    """Take away for good: more memory than one job may have, core dumps, and opening anything."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if IS_LINUX:
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        most = taken + memory_mb * 1_000_000
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    lowest = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, lowest))


@contextmanager
def _limited_to(cpu_seconds: int) -> Iterator[None]:
    """Let the kernel end this process when a job takes more processor time; the limit counts the process's life."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(used.ru_utime + used.ru_stime) + cpu_seconds, hard))
    yield
    resource.setrlimit(resource.RLIMIT_CPU, (hard, hard))


@contextmanager
def _ending_with_parent(requests: BinaryIO) -> Iterator[None]:
    """Have the kernel end this process when the parent closes its pipe or dies, even in the middle of a decoder.

    A thread could not: many decoders hold the interpreter's lock. Elsewhere than on Linux the job is finished first.
    """
    if not IS_LINUX:
        yield
        return
    flags = fcntl.fcntl(requests, fcntl.F_GETFL)
    fcntl.fcntl(requests, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(requests, fcntl.F_SETFL, flags | os.O_ASYNC)
    hung_up = select.poll()
    hung_up.register(requests, 0)
    if hung_up.poll(0):
        sys.exit()
    yield
    fcntl.fcntl(requests, fcntl.F_SETFL, flags)


def _reply(job: str, arguments: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"result": JOBS[job](**arguments)}
    except DecodeError as error:
        return {"error": type(error).__name__, "detail": repr(error.__cause__ or error)}
    except MemoryError:
        return {"error": TooCostly.__name__, "detail": "MemoryError"}
    except Exception:  # noqa: BLE001  (the parent logs it as a bug of ours)
        return {"crash": traceback.format_exc()}


def _read(pipe: BinaryIO) -> Any:
    """Return the next message, or None when there is none any more."""
    head = _read_exactly(pipe, wire.HEAD.size)
    if head is None:
        return None
    text_length, blob_length = wire.HEAD.unpack(head)
    text, blobs = _read_exactly(pipe, text_length), _read_exactly(pipe, blob_length)
    return None if text is None or blobs is None else wire.unpack(text, memoryview(blobs))


def _read_exactly(pipe: BinaryIO, size: int) -> bytearray | None:
    data, filled = bytearray(size), 0
    view = memoryview(data)
    while filled < size:
        count = pipe.readinto(view[filled:])  # type: ignore[attr-defined]
        if not count:
            return None
        filled += count
    return data


def _write(pipe: BinaryIO, value: Any) -> None:
    for part in wire.pack(value):
        view = memoryview(part)
        while view:
            view = view[pipe.write(view) :]


if __name__ == "__main__":
    main(int(sys.argv[1]))
