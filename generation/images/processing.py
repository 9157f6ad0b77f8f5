"""Decode, encode and render pixels in processes apart: no file of a stranger can end or stop the process that serves.

Each serving process has one pool of image processes (generation/images/child.py), started on first use. Functions here
take and return bytes and plain data. They block until the job is done, and raise

- a subclass of DecodeError for a picture that cannot be used, TooCostly among them: too much memory or processor time,
  or it ends its process twice;
- ImageProcessingBusy when there is no room for the job soon, or the machine is too slow for it.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from enum import Enum
from functools import cache
from typing import Any

import structlog
from django.conf import settings

from generation.engine import exceptions as decode_errors
from generation.engine.exceptions import DecodeError, TooCostly
from generation.engine.headers import read_header
from generation.engine.recipes import Look
from generation.exceptions import ImageProcessingBusy
from generation.images import wire

log = structlog.get_logger("generation")

FORMATS = {"image/jpeg": "JPEG", "image/png": "PNG", "image/webp": "WEBP"}
CONTENT_TYPES = {image_format: content_type for content_type, image_format in FORMATS.items()}

# -- Functions -------------------------------------------------------------------------------------------------


class Share(Enum):
    """What a job is for: how many of a kind may wait at once, for how many seconds, and for how many requests.

    gunicorn.conf.py has 72 threads: with as many requests as may wait, some are left for pages.
    """

    UPLOAD = (48, 10.0, 48)
    PREVIEW = (6, 5.0, 4)
    CONVERSION = (2, 5.0, 0)
    BACKGROUND = (1000, 60.0, 0)

    def __init__(self, max_waiting: int, wait_seconds: float, max_requests: int) -> None:
        self.max_waiting = max_waiting
        self.wait_seconds = wait_seconds
        self.max_requests = max_requests


@dataclass(frozen=True)
class EncodedImage:
    data: bytes
    width: int
    height: int


@dataclass(frozen=True)
class ImageFiles:
    """What is stored of a picture."""

    picture: EncodedImage
    thumbnail: EncodedImage
    content_type: str


def normalise(
    data: bytes,
    limits: Mapping[str, int],
    *,
    share: Share,
    thumbnail_side: int,
    max_side: int | None = None,
    source_type: str = "",
) -> ImageFiles:
    """Decode a photo or a result and return what is stored of it, marked with `source_type` if there is one."""
    arguments = {"max_side": max_side, "thumbnail_side": thumbnail_side, "source_type": source_type}
    made = _decode("normalise", data, limits, share, arguments, max_side=max_side)
    picture, thumbnail = EncodedImage(**made["picture"]), EncodedImage(**made["thumbnail"])
    return ImageFiles(picture, thumbnail, CONTENT_TYPES[made["format"]])


def scale(
    data: bytes,
    limits: Mapping[str, int],
    *,
    share: Share,
    side: int,
    image_format: str = "JPEG",
    quality: int = 92,
    max_side: int | None = None,
    source_type: str = "",
) -> EncodedImage:
    """Return a picture with a long side of at most `side` pixels."""
    options = {"side": side, "image_format": image_format, "quality": quality, "source_type": source_type}
    arguments = options | {"max_side": max_side}
    return EncodedImage(**_decode("scale", data, limits, share, arguments, max_side=max_side))


def convert(
    data: bytes, limits: Mapping[str, int], *, share: Share, content_type: str, source_type: str
) -> EncodedImage:
    """Return a picture in another format, at its own size."""
    arguments = {"image_format": FORMATS[content_type], "source_type": source_type}
    return EncodedImage(**_decode("convert", data, limits, share, arguments))


def brightest(data: bytes, limits: Mapping[str, int]) -> int:
    """Return the largest luminance of a picture at a size of 64 pixels, 0..255."""
    made: int = _decode("brightest", data, limits, Share.BACKGROUND, {}, max_side=64)
    return made


def render(photo: bytes, recipe: Mapping[str, Any], *, strength: float, seed: int) -> bytes:
    """Return what a recipe makes of a photo as an uncompressed PNG."""
    job = _Job("render", {"photo": photo, "recipe": recipe, "strength": strength, "seed": seed}, Share.BACKGROUND)
    made: bytes = _pool().run(job.measured(photo, more_bytes_per_pixel=RENDER_BYTES_PER_PIXEL))
    return made


def previews(photo: bytes, looks: Sequence[Look], *, side: int, source_type: str, share: Share) -> list[bytes]:
    """Return a WebP of each look of one photo, in the order of the looks."""
    plain = [[look.recipe, look.strength, look.seed] for look in looks]
    arguments = {"photo": photo, "looks": plain, "side": side, "quality": 80, "source_type": source_type}
    made: list[bytes] = _pool().run(_Job("previews", arguments, share).measured(photo, max_side=side))
    return made


def sprite(tiles: Sequence[bytes], *, side: int, source_type: str) -> bytes:
    """Return pictures of ours as square tiles, one below the other, as one WebP."""
    arguments = {"tiles": list(tiles), "side": side, "quality": 80, "source_type": source_type}
    made: bytes = _pool().run(_Job("sprite", arguments, Share.PREVIEW))
    return made


def contact_sheet(rows: Sequence[tuple[str, Sequence[bytes]]], *, cell: int, source_type: str) -> bytes:
    """Return rows of pictures (a name and the files), each row under its name, as one WebP."""
    plain = [[name, list(files)] for name, files in rows]
    arguments = {"rows": plain, "cell": cell, "quality": 70, "source_type": source_type}
    made: bytes = _pool().run(_Job("contact_sheet", arguments, Share.BACKGROUND, large=True))
    return made


def _decode(
    name: str,
    data: bytes,
    limits: Mapping[str, int],
    share: Share,
    arguments: Mapping[str, Any],
    *,
    max_side: int | None = None,
) -> Any:
    job = _Job(name, {"data": data, "limits": dict(limits), **arguments}, share)
    return _pool().run(job.measured(data, max_side=max_side))


# -- What a job costs ------------------------------------------------------------------------------------------

MEGABYTE = 1_000_000
# Peaks of pictures of 12 and 35 megapixels beyond an idle process, rounded up: docs/decisions/0001-image-processes.md.
BASE_BYTES = 40 * MEGABYTE
"""The working copy at MAX_PHOTO_SIDE, its thumbnail and their files."""
FILE_COPIES = 3
PEAK_BYTES_PER_PIXEL = {"JPEG": 6, "PNG": 8, "WEBP": 17, "HEIF": 12}
FULL_SIZE_BYTES_PER_PIXEL = 6
"""More, where a picture is worked on at its own size."""
COEFFICIENT_BYTES = 2
"""A JPEG of several scans keeps all coefficients, also those of pixels that a reduced decoding leaves out."""
RENDER_BYTES_PER_PIXEL = 30

MAX_LARGE_WAITING = 8
"""Large uploads that may wait at once: they take none of the places of small ones."""
LARGE_SCAN_PIXELS = 200_000_000
"""Pixels × scans of a picture that waits in the share of large jobs."""
LARGE_PIXELS = {"JPEG": 100_000_000, "PNG": 24_000_000, "WEBP": 16_000_000, "HEIF": 20_000_000}
FIRST_CPU_SECONDS = 5
"""A small job that takes longer begins again as a large one, where it delays no other small job."""


@dataclass(frozen=True)
class _Job:
    """What an image process is to do. `memory` is the estimated peak in bytes; large ones share a part of the pool.

    `since` is when it began to wait, on the monotonic clock.
    """

    name: str
    arguments: Mapping[str, Any]
    share: Share
    memory: int = BASE_BYTES
    large: bool = False
    is_retry: bool = False
    since: float = 0.0

    def measured(self, data: bytes, *, max_side: int | None = None, more_bytes_per_pixel: int = 0) -> _Job:
        """Return the job with its cost, estimated from its picture's header."""
        header = read_header(data)
        if header is None:
            return self  # it is refused before a decoder is made
        pixels, peak = header.pixels, PEAK_BYTES_PER_PIXEL[header.format] + more_bytes_per_pixel
        if max_side is None:
            peak += FULL_SIZE_BYTES_PER_PIXEL
        elif header.format == "JPEG":
            # The decoder shrinks by a power of two that leaves less than twice the side that is wanted.
            pixels = min(pixels, 4 * max_side**2)
        memory = BASE_BYTES + FILE_COPIES * len(data) + pixels * peak
        if header.progressive or header.scans != 1:
            memory += header.pixels * header.components * COEFFICIENT_BYTES
        large = header.pixels > LARGE_PIXELS[header.format] or header.pixels * header.scans > LARGE_SCAN_PIXELS
        return replace(self, memory=min(memory, settings.IMAGE_MEMORY_MB * MEGABYTE), large=large)

    @property
    def is_patient(self) -> bool:
        """Whether others may still go before it: not when half of the time that it may wait is over."""
        return time.monotonic() - self.since < self.share.wait_seconds / 2

    @property
    def is_light(self) -> bool:
        return self.share is Share.UPLOAD and not self.large

    def is_like(self, other: _Job) -> bool:
        """Whether both wait in one queue. A retry has had its place there, and does not take another's."""
        return (self.share, self.large, self.is_retry) == (other.share, other.large, False)

    @property
    def max_waiting(self) -> int:
        return MAX_LARGE_WAITING if self.large and self.share is Share.UPLOAD else self.share.max_waiting


# -- The pool --------------------------------------------------------------------------------------------------

START_SECONDS = 60
JOBS_PER_PROCESS = 500
WALL_FACTOR = 3
"""Wall time of any job, in multiples of IMAGE_JOB_SECONDS: a busy machine must not refuse good photos."""
RETRY_AFTER_SECONDS = 5
MAX_WAITING_FOR_PLACE, PLACE_SECONDS = 10, 0.5
"""Requests that may wait until another has left, and for how long: who is refused is told so within a second."""


class _Died(Exception):
    """An image process ended in the middle of a job. `reason` is the name of a signal, or an exit code."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _Pool:
    """Image processes, and who may use them when.

    There are at most IMAGE_PROCESSES jobs at a time, whose estimated memory adds up to at most IMAGE_MEMORY_MB. Once
    anybody has uploaded a photo here, previews, large photos and runs leave one process to small uploads.
    """

    def __init__(self) -> None:
        self._size: int = settings.IMAGE_PROCESSES
        self._changed = threading.Condition()
        self._waiting: list[_Job] = []
        self._running: list[_Job] = []
        self._idle: list[_Process] = []
        self._template: _Template | None = None
        self._keeps_one_for_uploads = False

    def run(self, job: _Job) -> Any:
        """Return the result of a job. Raises a subclass of DecodeError, or ImageProcessingBusy.

        A job whose process is killed is tried once more, as a large one: it may be innocent, and if not it delays no
        small upload again.
        """
        most: int = settings.IMAGE_JOB_SECONDS
        try:
            try:
                return self._run_admitted(job, min(FIRST_CPU_SECONDS, most) if job.is_light else most)
            except _Died as died:
                if died.reason == "SIGXCPU" and not job.is_light:
                    raise
                return self._run_admitted(replace(job, large=True, is_retry=True), most)
        except _Died as died:
            log.warning("image_refused", code=TooCostly.reason, detail=died.reason)
            raise TooCostly(died.reason) from None
        except DecodeError as error:
            log.info("image_refused", code=error.reason, detail=str(error))
            raise

    def _run_admitted(self, job: _Job, cpu_seconds: int) -> Any:
        """Run a job when it is its turn. Raises _Died when its process was killed."""
        with self._admitted(job):
            process = self._take()
            try:
                result = process.run(job, cpu_seconds)
            except DecodeError:
                self._give_back(process)
                raise
            except BaseException as error:
                process.end()
                if isinstance(error, _Died):
                    log.warning("image_process_killed", code=error.reason, detail=job.name)
                raise
            self._give_back(process)
            return result

    @contextmanager
    def _admitted(self, job: _Job) -> Iterator[None]:
        job = replace(job, since=time.monotonic())
        with self._changed:
            self._keeps_one_for_uploads |= job.share is Share.UPLOAD
            if not job.is_retry and len([one for one in self._waiting if one.is_like(job)]) >= job.max_waiting:
                raise _full(job.share)
            self._waiting.append(job)
            try:
                if not self._changed.wait_for(lambda: self._next() is job, job.share.wait_seconds):
                    raise _full(job.share)
            finally:
                # The one behind may have fitted in all the time.
                self._waiting = [one for one in self._waiting if one is not job]
                self._changed.notify_all()
            self._running.append(job)
        try:
            yield
        finally:
            with self._changed:
                self._running = [one for one in self._running if one is not job]
                self._changed.notify_all()

    def _next(self) -> _Job | None:
        """Return the job whose turn it is: of those that fit, the one that has waited longest.

        A job that lacks memory lets others pass only for a while, or small ones would take what gets free for ever.
        """
        for job in self._waiting:
            if self._fits(job):
                return job
            if self._may_run(job) and not job.is_patient:
                return None
        return None

    def _fits(self, job: _Job) -> bool:
        memory = sum(one.memory for one in self._running) + job.memory
        return memory <= settings.IMAGE_MEMORY_MB * MEGABYTE and self._may_run(job)

    def _may_run(self, job: _Job) -> bool:
        """Whether there is a process for a job, if memory suffices."""
        if len(self._running) >= self._size:
            return False
        kept = 1 if self._keeps_one_for_uploads and self._size > 1 else 0
        return job.is_light or sum(not one.is_light for one in self._running) < self._size - kept

    def _take(self) -> _Process:
        """Return an idle process, or a new one. One that was killed while it was idle is forgotten."""
        killed, process = [], None
        with self._changed:
            while self._idle and process is None:
                candidate = self._idle.pop()
                if candidate.is_alive:
                    process = candidate
                else:
                    killed.append(candidate)
            if self._template is None or not self._template.is_alive:
                try:
                    self._template = _Template()
                except OSError as error:
                    raise _not_started(type(error).__name__) from error
            template = self._template
        # Not under the lock: the template may take its time to say how they ended.
        for one in killed:
            log.warning("image_process_killed", code=one.end(), detail="idle")
        return process or _Process(template)

    def _give_back(self, process: _Process) -> None:
        if process.jobs_done >= JOBS_PER_PROCESS or not process.is_alive:
            process.end()
            return
        with self._changed:
            self._idle.append(process)


@cache
def _pool() -> _Pool:
    return _Pool()


# A forked process must not talk over the pipes of its parent.
os.register_at_fork(after_in_child=_pool.cache_clear)


def _full(share: Share) -> ImageProcessingBusy:
    log.warning("image_pool_full", code=share.name.lower())
    return ImageProcessingBusy(retry_after=RETRY_AFTER_SECONDS)


class Place:
    """One of the places for requests of a share. Raises ImageProcessingBusy when none gets free in a moment.

    A request takes it before its body is read: to read and parse what is then refused delays everybody else's pages.
    """

    _free = {share: threading.Semaphore(share.max_requests) for share in (Share.UPLOAD, Share.PREVIEW)}
    _waiting = threading.Semaphore(MAX_WAITING_FOR_PLACE)

    def __init__(self, share: Share) -> None:
        free = self._free[share]
        if not (free.acquire(blocking=False) or self._wait(free)):
            raise _full(share)
        self._release = ExitStack()
        self._release.callback(free.release)

    def _wait(self, free: threading.Semaphore) -> bool:
        if not self._waiting.acquire(blocking=False):
            return False
        try:
            return free.acquire(timeout=PLACE_SECONDS)
        finally:
            self._waiting.release()

    def close(self) -> None:
        self._release.close()


# -- One process -----------------------------------------------------------------------------------------------

CHUNK_BYTES = 1 << 20
MAX_TEXT_BYTES, MAX_BLOB_BYTES = 1 << 20, 1 << 29
NICENESS = 5
"""Pages come first: a process that serves them needs little time, and needs it at once."""
# Without the secrets of this process. Each thread of an allocator or of a numeric library costs address space.
ENVIRONMENT = {"MALLOC_ARENA_MAX": "2", "OPENBLAS_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
INHERITED = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PYTHONPATH", "SYSTEMROOT")


def _not_started(reason: str) -> ImageProcessingBusy:
    """Not the fault of a picture: the machine has too few files, processes or too little memory left."""
    log.error("image_process_not_started", code=reason)
    return ImageProcessingBusy(retry_after=RETRY_AFTER_SECONDS, detail=reason)


class _Template:
    """The process that image processes are forked from: a new one costs milliseconds, and shares its libraries."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._control, theirs = socket.socketpair()
        self._control.settimeout(START_SECONDS)
        kept = {name: os.environ[name] for name in INHERITED if name in os.environ}
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603  (our own program, and a number)
                [sys.executable, "-m", "generation.images.child", str(settings.IMAGE_JOB_MEMORY_MB)],
                cwd=settings.BASE_DIR,
                env=kept | ENVIRONMENT,
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                process_group=0,
            )
        # A process that has just ended is noticed when it is used.
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, self._process.pid, os.getpriority(os.PRIO_PROCESS, 0) + NICENESS)

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def fork(self) -> tuple[int, int, int]:
        """Return the number of a new process, and the pipes to it and from it. Raises OSError."""
        with ExitStack() as theirs, ExitStack() as ours:
            their_requests, requests = _pipe(theirs, ours)
            replies, their_replies = _pipe(ours, theirs)
            pid = self._ask(wire.FORK, 0, [their_requests, their_replies])
            for end in (requests, replies):
                os.set_blocking(end, False)
            ours.pop_all()
            return pid, requests, replies

    def wait(self, pid: int) -> str:
        """Wait for a process that has ended, or is about to, and return how: a signal's name, or an exit code."""
        try:
            code = self._ask(wire.WAIT, pid)
        except OSError:
            return "unknown"
        if code >= 0:
            return f"exit_{code}"
        return signal.Signals(-code).name if -code in signal.valid_signals() and -code < signal.SIGRTMIN else "signal"

    def _ask(self, kind: bytes, pid: int, pipes: Sequence[int] = ()) -> int:
        # Each order may take so long; those behind it do not add their times up.
        if not self._lock.acquire(timeout=START_SECONDS):
            raise TimeoutError("template")
        try:
            return self._answer(kind, pid, pipes)
        finally:
            self._lock.release()

    def _answer(self, kind: bytes, pid: int, pipes: Sequence[int]) -> int:
        try:
            socket.send_fds(self._control, [wire.ORDER.pack(kind, pid)], pipes)
            answer = self._control.recv(wire.ANSWER.size, socket.MSG_WAITALL)
            if len(answer) < wire.ANSWER.size:
                raise ConnectionResetError
        except OSError:
            self._process.kill()
            self._process.wait()
            raise
        number: int = wire.ANSWER.unpack(answer)[0]
        return number


def _pipe(reading: ExitStack, writing: ExitStack) -> tuple[int, int]:
    """Return the ends of a large pipe; each is closed with its stack."""
    ends = os.pipe()
    for end, stack in zip(ends, (reading, writing), strict=True):
        stack.callback(os.close, end)
    # Others may have used up what an unprivileged user may have of these.
    with suppress(OSError, AttributeError):
        fcntl.fcntl(ends[0], fcntl.F_SETPIPE_SZ, CHUNK_BYTES)
    return ends


class _Process:
    """A process that does one job at a time. It ends when the pipe to it is closed, however this process ends."""

    def __init__(self, template: _Template) -> None:
        self.jobs_done = 0
        self._template = template
        self._reason = ""
        try:
            self.pid, self._requests, self._replies = template.fork()
        except OSError as error:
            raise _not_started(type(error).__name__) from error
        try:
            self._read(time.monotonic() + START_SECONDS)
        except (_Died, TimeoutError) as error:
            self.end()
            raise _not_started(str(error)) from error

    @property
    def is_alive(self) -> bool:
        """Whether it still has its pipe; an idle process writes nothing."""
        poll = select.poll()
        poll.register(self._replies, select.POLLIN)
        return not self._reason and not poll.poll(0)

    def run(self, job: _Job, cpu_seconds: int) -> Any:
        """Return the result of a job. Raises a subclass of DecodeError, _Died or ImageProcessingBusy."""
        until = time.monotonic() + settings.IMAGE_JOB_SECONDS * WALL_FACTOR
        request = {"job": job.name, "arguments": job.arguments, "cpu_seconds": cpu_seconds}
        try:
            self._write(request, until)
            reply = self._read(until)
        except TimeoutError:
            log.warning("image_process_killed", code="deadline", detail=job.name)
            raise ImageProcessingBusy(retry_after=RETRY_AFTER_SECONDS, detail="deadline") from None
        self.jobs_done += 1
        return _result(reply)

    def end(self) -> str:
        """End the process if it is still there, close the pipes to it, and return how it ended."""
        if not self._reason:
            # First of all: descriptors that are closed twice may be another's by then.
            self._reason = "unknown"
            os.close(self._requests)
            os.close(self._replies)
            # Without the template, which waits for it, its number may be another process's; without pipes it ends too.
            if self._template.is_alive:
                with suppress(ProcessLookupError):
                    os.kill(self.pid, signal.SIGKILL)
            self._reason = self._template.wait(self.pid)
        return self._reason

    def _write(self, value: Any, until: float) -> None:
        for part in wire.pack(value):
            view = memoryview(part)
            while view:
                _wait(self._requests, select.POLLOUT, until)
                try:
                    view = view[os.write(self._requests, view[:CHUNK_BYTES]) :]
                except BlockingIOError:
                    continue
                except BrokenPipeError:
                    raise _Died(self.end()) from None

    def _read(self, until: float) -> Any:
        text_length, blob_length = wire.HEAD.unpack(self._read_exactly(wire.HEAD.size, until))
        if text_length > MAX_TEXT_BYTES or blob_length > MAX_BLOB_BYTES:
            raise _Died("reply_too_large")
        text, blobs = self._read_exactly(text_length, until), self._read_exactly(blob_length, until)
        try:
            return wire.unpack(text, memoryview(blobs))
        except (ValueError, RecursionError):
            raise _Died("bad_reply") from None

    def _read_exactly(self, size: int, until: float) -> bytearray:
        data = bytearray()
        while len(data) < size:
            _wait(self._replies, select.POLLIN, until)
            with suppress(BlockingIOError):
                chunk = os.read(self._replies, min(CHUNK_BYTES, size - len(data)))
                if not chunk:
                    raise _Died(self.end())
                data += chunk
        return data


def _wait(pipe: int, event: int, until: float) -> None:
    """Wait until a pipe can be used, or its other end is closed. Raises TimeoutError."""
    poll = select.poll()
    poll.register(pipe, event)
    if not poll.poll(max(0, until - time.monotonic()) * 1000):
        raise TimeoutError


def _result(reply: Any) -> Any:
    if "result" in reply:
        return reply["result"]
    if name := reply.get("error"):
        error = getattr(decode_errors, name, DecodeError)
        raise error(reply["detail"])
    # A bug of ours.
    raise RuntimeError(reply["crash"])
