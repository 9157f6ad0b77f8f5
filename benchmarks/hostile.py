"""What strangers with costly files do to everybody else: gunicorn alone and attacked, in turns, in one run.

Run it as `python -m benchmarks.hostile [NAME…]`: scans, webp, poison, uploads, previews, polls, slugs, locked;
without names, all of them. `locked` needs an empty PostgreSQL database in DATABASE_URL.
Attackers and whoever measures are processes apart, and files are made before: this program's own load is not measured.
"""

import io
import itertools
import json
import multiprocessing
import os
import random
import statistics
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

# isort: split
# First of all: it sets the environment before Django reads it.
from stefna.tests import environment  # noqa: F401

os.environ["DJANGO_SETTINGS_MODULE"] = "stefna.settings"

import django

django.setup()

# isort: split
import psycopg  # noqa: E402
from PIL import Image  # noqa: E402

from benchmarks import report  # noqa: E402
from benchmarks.limits import UNLIMITED_ADDRESSES  # noqa: E402
from generation.images.processing import Share  # noqa: E402
from generation.tests.images.files import CRASH, lossless_webp, many_scans  # noqa: E402
from stefna.tests.conftest import Server  # noqa: E402
from stefna.tests.faults import files  # noqa: E402
from stefna.tests.faults.web import Web, signed_in  # noqa: E402

ROUNDS = 5
ALONE_SECONDS = 8
NORMAL_UPLOADS, NORMAL_CLIENTS = 20, 4
UPLOAD_PROCESSES, UPLOAD_THREADS = 4, 25
PREVIEWS, PREVIEW_THREADS = 200, 16
PAGE_ROUNDS = 3
POLLS = 70
SLUGS, SLUG_REQUESTS = 20_000, 40
LOCKED_SECONDS, LOCKED_REQUESTS = 45, 16
DATABASE = os.environ["DATABASE_URL"]
FORK = multiprocessing.get_context("fork")
ROOMY = {"ALLOW_GUESTS": "1", "DAILY_RUN_LIMIT": "0", "MAX_ACTIVE_RUNS": "0", "RUN_WORKER_THREADS": "2"}
ROOMY |= UNLIMITED_ADDRESSES
ANONYMOUS = {
    "Cookie": f"csrftoken={'c' * 32}",
    "X-CSRFToken": "c" * 32,
    "Referer": "https://stefna.example/",
    "Content-Type": files.FORM,
}
Call = Callable[[], Any]
Answers = list[tuple[int, float]]


class Service(Web):
    """gunicorn with one worker, and members enough that no throttle of a single one is met."""

    def __init__(self, **variables: str) -> None:
        super().__init__(_install, Path(tempfile.mkdtemp(prefix="hostile")), **ROOMY | variables)
        self.first_worker = self.worker
        self.members = itertools.cycle([self.server.call("member") for _ in range(24)])
        self.upload(photo(0))

    def upload(self, data: bytes) -> tuple[int, float]:
        """Return the status of an upload and the seconds until its answer."""
        headers = signed_in(next(self.members)) | {"Content-Type": files.FORM}
        return self.timed("POST", "/api/v1/photos", files.form(files.file(data)), **headers)

    def preview(self, data: bytes) -> tuple[int, float]:
        return self.timed("POST", "/sketches", files.form(files.file(data)), **ANONYMOUS)

    def timed(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, float]:
        started = time.monotonic()
        return self.ask(method, path, body, **headers).status, time.monotonic() - started

    def check(self) -> None:
        assert self.status("/healthz/live") == 200
        assert self.worker == self.first_worker, "the serving process died"
        assert "Internal Server Error" not in self.log()

    def processor_seconds(self) -> float:
        """Return the processor time that the serving process has used, without its image processes."""
        fields = Path(f"/proc/{self.worker}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _install(state: Path, **settings: str) -> Server:
    server = Server(state, **settings)
    server.manage("migrate", "-v0")
    server.manage("load_presets", "-v0")
    server.manage("collectstatic", "--no-input", "-v0")
    return server


def photo(number: int, size: tuple[int, int] = (1632, 1224)) -> bytes:
    """Return a photo of 2 megapixels that nobody has sent before."""
    chance = random.Random(number)
    noise = Image.frombytes("RGB", (64, 48), chance.randbytes(64 * 48 * 3))
    out = io.BytesIO()
    noise.resize(size, Image.Resampling.BICUBIC).save(out, "JPEG", quality=90)
    return out.getvalue()


_numbers = itertools.count(1)


def normal_uploads(service: Service) -> list[tuple[int, float]]:
    """Return the answers to NORMAL_UPLOADS photos from NORMAL_CLIENTS clients."""
    photos = [photo(next(_numbers)) for _ in range(NORMAL_UPLOADS)]
    with ThreadPoolExecutor(NORMAL_CLIENTS) as clients:
        return list(clients.map(service.upload, photos))


@contextmanager
def attacked_by(calls: list[Call]) -> Iterator[list[Any]]:
    """Make all calls at once in the background, and wait for their answers at the end."""
    answers: list[Any] = []
    with ThreadPoolExecutor(len(calls)) as attackers:
        sent = [attackers.submit(call) for call in calls]
        time.sleep(0.2)
        yield answers
        answers += [call.result() for call in sent]


def started(work: Call) -> Call:
    """Start work in a process of its own, and return what waits for its result."""
    ours, theirs = FORK.Pipe(duplex=False)
    process = FORK.Process(target=lambda: theirs.send(work()))
    process.start()
    theirs.close()

    def wait() -> Any:
        result = ours.recv()
        process.join()
        return result

    return wait


def sent_by(threads: int, call: Callable[[bytes], tuple[int, float]], photos: list[bytes]) -> Answers:
    with ThreadPoolExecutor(threads) as clients:
        return list(clients.map(call, photos))


def check_statuses(answers: Answers) -> Counter[int]:
    """Count statuses; an error of the server is only ever that it is busy."""
    found = Counter(status for status, _ in answers)
    assert all(status < 500 or status == 503 for status in found), found
    return found


def p95(seconds: list[float]) -> float:
    return statistics.quantiles(seconds, n=20, method="inclusive")[-1]


def beside(service: Service, attack: Callable[[], list[Call]]) -> tuple[str, Counter[int]]:
    """Measure normal uploads alone and beside an attack, in turns; return a table and the attack's statuses."""
    alone: list[tuple[int, float]] = []
    attacked: list[tuple[int, float]] = []
    refused: Counter[int] = Counter()
    for _ in range(ROUNDS):
        alone += normal_uploads(service)
        with attacked_by(attack()) as answers:
            attacked += normal_uploads(service)
        refused += check_statuses(answers)
    service.check()
    assert {status for status, _ in alone + attacked} == {201}
    rows = []
    for name, of in (("median", statistics.median), ("p95", p95)):
        seconds = [of([second for _, second in answers]) for answers in (alone, attacked)]
        rows.append((name, *(f"{value * 1000:.0f} ms" for value in seconds), f"{seconds[1] / seconds[0]:.2f} x"))
    return report.table(["of normal uploads", "alone", "attacked", "ratio"], rows), refused


# -- Parts ---------------------------------------------------------------------------------------------------------


def scans(service: Service) -> str:
    """Four progressive JPEGs of thousands of scans, and four that stay below the limit of scans."""
    bombs = [many_scans(9000, size=(4000 + number, 3000)) for number in range(4)]
    slow = [many_scans(95, size=(6000, 4000 + number)) for number in range(4)]
    table, refused = beside(service, lambda: [partial(service.upload, data) for data in bombs + slow])
    sizes = (
        f"{len(bombs[0]) // 1000} kB with 9,000 scans, and four of {len(slow[0]) // 1000} kB with 95 at 24 megapixels"
    )
    return (
        f"Four files of {sizes}, beside {NORMAL_UPLOADS} photos of 2 megapixels from {NORMAL_CLIENTS} clients, {ROUNDS}"
        f" times in turns. Statuses of the attack: {dict(refused)}.\n\n{table}"
    )


def poison(service: Service) -> str:
    """Twenty pictures that end the process that decodes them."""
    table, refused = beside(service, lambda: [lambda: service.upload(CRASH)] * 20)
    assert all(400 <= status < 500 for status in refused), refused
    return (
        f"Twenty times the file that ends its decoder with a segmentation fault. Statuses: {dict(refused)}.\n\n{table}"
    )


def webp(service: Service) -> str:
    """Eight pictures of 40 megapixels in 1.6 kB, at once."""
    files_ = [lossless_webp((6300, 6300 - number)) for number in range(8)]
    idle = memory(service.process.pid)
    with sampled(lambda: memory(service.process.pid)) as samples, ThreadPoolExecutor(8) as clients:
        answers = check_statuses(list(clients.map(service.upload, files_)))
    service.check()
    bound = "IMAGE_MEMORY_MB (900) and some 85 MB for each idle image process"
    return (
        f"gunicorn with all its descendants (PSS): {idle:.0f} MB before, {max(samples):.0f} MB at most; the documented"
        f" bound is the first and {bound}. Statuses: {dict(answers)}."
    )


def uploads(service: Service) -> str:
    """Two hundred photos from a hundred threads: more than may wait."""
    photos = [photo(next(_numbers), size=(2048, 1536)) for _ in range(200)]
    used, began = service.processor_seconds(), time.monotonic()
    shares = [photos[start::UPLOAD_PROCESSES] for start in range(UPLOAD_PROCESSES)]
    waits = [started(partial(sent_by, UPLOAD_THREADS, service.upload, share)) for share in shares]
    answers = [answer for wait in waits for answer in wait()]
    used, took = service.processor_seconds() - used, time.monotonic() - began
    service.check()
    found = check_statuses(answers)
    assert set(found) <= {201, 503}, found
    rows = [(status, number, *_times([s for code, s in answers if code == status])) for status, number in found.items()]
    return (
        f"{len(photos)} photos from {UPLOAD_PROCESSES * UPLOAD_THREADS} threads took {took:.1f} s, of which the serving"
        f" process used {used:.1f} s of processor time. {_refusals(answers, Share.UPLOAD)}\n\n"
        + report.table(["status", "answers", "median", "p95", "slowest"], rows)
    )


def _refusals(answers: Answers, share: Share) -> str:
    """Say how many 503s came within a second, later, and only when there was no turn in all the time one may wait."""
    busy = [seconds for status, seconds in answers if status == 503]
    waited = sum(seconds >= share.wait_seconds for seconds in busy)
    late = sum(seconds > 1 for seconds in busy) - waited
    return (
        f"Of {len(busy)} answers 503, {len(busy) - late - waited} came within a second of sending, {late} later, and"
        f" {waited} after the {share.wait_seconds:.0f} s that one may wait for a turn."
    )


def previews(service: Service) -> str:
    """Two hundred requests for previews, while others load pages and the health check is asked."""
    pages: dict[str, list[float]] = {"alone": [], "attacked": []}
    live: dict[str, list[float]] = {"alone": [], "attacked": []}
    answers: Answers = []
    for _ in range(ROUNDS):
        for name, count in (("alone", 0), ("attacked", PREVIEWS)):
            photos = [photo(next(_numbers)) for _ in range(count)]
            attack = partial(sent_by, PREVIEW_THREADS, service.preview, photos) if photos else None
            more_pages, more_live, more = _beside_pages(service, attack)
            pages[name] += more_pages
            live[name] += more_live
            answers += more
    found = check_statuses(answers)
    busy = [seconds for status, seconds in answers if status == 503]
    ratio = p95(pages["attacked"]) / p95(pages["alone"])
    text = f"{ROUNDS} times in turns. Statuses of the attack: {dict(found)}. {_refusals(answers, Share.PREVIEW)} p95 of"
    text += f" pages: {ratio:.2f} x.\n\n"
    measured = [("pages", pages), ("/healthz/live", live)]
    rows = [(f"{what} {name}", len(ms), *_times(ms)) for what, both in measured for name, ms in both.items()]
    if busy:
        rows.append(("503s of the attack", len(busy), *_times(busy)))
    return text + report.table(["", "answers", "median", "p95", "slowest"], rows)


def _beside_pages(service: Service, attack: Callable[[], Answers] | None) -> tuple[list[float], list[float], Answers]:
    """Return the seconds of pages and of health checks, and what an attack was answered, while it lasts."""
    member = signed_in(next(service.members))
    paths = itertools.cycle(["/", "/runs/"])
    over = FORK.Event()
    beside_it = [
        started(partial(_repeat, over, lambda: service.timed("GET", next(paths), **member), 0.03)),
        started(partial(_repeat, over, lambda: service.timed("GET", "/healthz/live"), 0.05)),
    ]
    answers: Answers = []
    if attack:
        answers = started(attack)()
    else:
        time.sleep(ALONE_SECONDS)
    over.set()
    service.check()
    pages, live = (wait() for wait in beside_it)
    return pages, live, answers


def _compared(service: Service, attack: Callable[[], Answers]) -> tuple[Counter[int], str]:
    """Measure pages and health checks alone and beside an attack, in turns; return its statuses and a table."""
    seconds: dict[str, tuple[list[float], list[float]]] = {"pages": ([], []), "/healthz/live": ([], [])}
    answers: Answers = []
    for _ in range(PAGE_ROUNDS):
        for at, what in enumerate((None, attack)):
            pages, live, more = _beside_pages(service, what)
            seconds["pages"][at].extend(pages)
            seconds["/healthz/live"][at].extend(live)
            answers += more
    rows = []
    for name, both in seconds.items():
        for word, of in (("median", statistics.median), ("p95", p95), ("slowest", max)):
            alone, attacked = (of(values) for values in both)
            ratio = f"{attacked / alone:.2f} x"
            rows.append((f"{name}, {word}", f"{alone * 1000:.0f} ms", f"{attacked * 1000:.0f} ms", ratio))
    return check_statuses(answers), report.table(["", "alone", "beside", "ratio"], rows)


def polls(service: Service) -> str:
    """Seventy requests that wait for runs, while others load pages and the health check is asked."""
    members = [service.server.call("member") for _ in range(12)]
    runs = [service.server.call("run", email=member["email"], state="running") for member in members]
    waiting = {"Prefer": "wait=25"}
    calls = [
        partial(service.timed, "GET", f"/api/v1{path}".rstrip("/"), **signed_in(member) | waiting)
        for member, path in zip(members, runs, strict=True)
    ]
    asked = [calls[number % len(calls)] for number in range(POLLS)]
    statuses, table = _compared(service, partial(_at_once, asked, POLLS))
    return (
        f"{POLLS} requests with `Prefer: wait=25`, {PAGE_ROUNDS} times in turns. Statuses: {dict(statuses)}.\n\n{table}"
    )


def slugs(service: Service) -> str:
    """Batches of 20,000 presets, while others load pages and the health check is asked."""
    body = json.dumps({"photo_id": str(uuid.uuid4()), "presets": [f"preset_{number}" for number in range(SLUGS)]})
    headers = signed_in(next(service.members)) | {"Content-Type": "application/json", "Idempotency-Key": "slugs"}
    call = partial(service.timed, "POST", "/api/v1/batches", body.encode(), **headers)

    def attack() -> Answers:
        return _at_once([call] * SLUG_REQUESTS, 4)

    statuses, table = _compared(service, attack)
    slowest = [seconds for _, seconds in attack()]
    return (
        f"{SLUG_REQUESTS} batches of {SLUGS} presets from 4 clients, {PAGE_ROUNDS} times in turns. Statuses:"
        f" {dict(statuses)}; the slowest of them took {max(slowest) * 1000:.0f} ms.\n\n{table}"
    )


def locked(service: Service) -> str:
    """A table that is locked for 45 s, which sixteen requests need, while others load pages that do not."""
    if not DATABASE.startswith("postgres"):
        return "Not measured: it needs PostgreSQL."
    members = [signed_in(next(service.members)) for _ in range(LOCKED_REQUESTS)]
    calls = [partial(service.timed, "GET", "/runs/", **member) for member in members]
    seconds: dict[str, list[Answers]] = {"/": [[], []], "/healthz/live": [[], []]}
    blocked: Answers = []
    for at in range(2):
        over = FORK.Event()
        beside_it = {path: started(partial(_answers, over, partial(service.timed, "GET", path))) for path in seconds}
        if at:
            with psycopg.connect(DATABASE) as holder:
                holder.execute("LOCK TABLE generation_run IN ACCESS EXCLUSIVE MODE")
                asked = started(partial(_at_once, calls, LOCKED_REQUESTS))
                time.sleep(LOCKED_SECONDS)
            blocked = asked()
        else:
            time.sleep(ALONE_SECONDS)
        over.set()
        for path, wait in beside_it.items():
            seconds[path][at] = wait()
    rows = []
    for path, both in seconds.items():
        alone, beside_lock = (p95([second for _, second in answers]) for answers in both)
        statuses = dict(Counter(status for status, _ in both[1]))
        times = f"{alone * 1000:.0f} ms", f"{beside_lock * 1000:.0f} ms", f"{beside_lock / alone:.2f} x"
        rows.append((f"{path}, p95", *times, str(statuses)))
    slowest = max(second for _, second in blocked)
    found = report.table(["", "alone", "beside", "ratio", "statuses beside"], rows)
    return (
        f"`generation_run` locked for {LOCKED_SECONDS} s, which {LOCKED_REQUESTS} requests need. Their statuses:"
        f" {dict(check_statuses(blocked))}; the slowest took {slowest:.1f} s.\n\n{found}"
    )


def _at_once(calls: Sequence[Callable[[], tuple[int, float]]], threads: int) -> Answers:
    with ThreadPoolExecutor(threads) as clients:
        return [answer.result() for answer in [clients.submit(call) for call in calls]]


def _answers(over: Any, call: Callable[[], tuple[int, float]]) -> Answers:
    answers = []
    while not over.is_set():
        answers.append(call())
        over.wait(0.05)
    return answers


def _repeat(over: Any, call: Callable[[], tuple[int, float]], pause: float) -> list[float]:
    seconds = []
    while not over.is_set():
        status, second = call()
        assert status == 200
        seconds.append(second)
        over.wait(pause)
    return seconds


def _times(seconds: list[float]) -> list[str]:
    values = (statistics.median(seconds), p95(seconds) if len(seconds) > 1 else seconds[0], max(seconds))
    return [f"{value * 1000:.0f} ms" for value in values]


def memory(pid: int) -> float:
    """Return the proportional memory of a process and all its descendants, in megabytes."""
    total = 0.0
    for one in descendants(pid):
        try:
            line = next(
                row for row in Path(f"/proc/{one}/smaps_rollup").read_text().splitlines() if row.startswith("Pss:")
            )
        except (OSError, StopIteration):
            continue
        total += int(line.split()[1]) / 1000
    return total


def descendants(pid: int) -> Iterator[int]:
    yield pid
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return
    for child in children:
        yield from descendants(child)


@contextmanager
def sampled(measure: Callable[[], float]) -> Iterator[list[float]]:
    samples, over = [measure()], threading.Event()

    def sample() -> None:
        while not over.wait(0.05):
            samples.append(measure())

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        over.set()
        thread.join()


PARTS = {part.__name__: part for part in (scans, poison, webp, uploads, previews, polls, slugs, locked)}


def main(names: list[str]) -> None:
    for name in names or PARTS:
        service = Service(**({"DATABASE_URL": DATABASE} if name == "locked" else {}))
        try:
            report.write(f"Hostile: {name}", PARTS[name](service))
        finally:
            service.end()


if __name__ == "__main__":
    main(sys.argv[1:])
