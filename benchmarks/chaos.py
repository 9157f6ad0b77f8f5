"""The production shape on one machine, while its parts are killed, stopped, ended and cut off: is anything lost?

Run it as `python -m benchmarks.chaos [SECONDS] [--faults 50] [--seed 1] [--rate 2]`. gunicorn with two processes and
two workers make pictures of what people send; each fault is drawn from KINDS in an order that the seed decides. What
comes of it must be right, however long it takes. It needs the services that `benchmarks.production` needs. Only a run
with at least 50 faults is written down; where something is wrong, logs and histories of runs are kept.
"""

import argparse
import io
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

# Numbers of their own on the server: it may be in use beside this.
os.environ.setdefault("CELERY_BROKER_URL", "redis://127.0.0.1:6379/9")
os.environ.setdefault("REDIS_URL", "redis://127.0.0.1:6379/10")

import psycopg
import redis
import requests
from PIL import Image

from benchmarks import report
from benchmarks.installation import (
    APP_KEY,
    Person,
    free_port,
    in_words,
    number_on,
    percentiles,
    photo,
    until_it_listens,
)
from benchmarks.production import BROKER, CACHE, DATABASE, FOLDER, ROOT, SERVER, Engine, check_services, standin

# isort: split
# Django is set up by then.
from django.core.management import call_command
from django.db import connection

from generation.models import IdempotencyKey, Photo, Run
from notifications.models import Notification

MODEL_SECONDS = 1.5
PHONES, THREADS = 6, 16
# Shorter than by default, so that a worker that is stopped for a while sometimes loses its runs and sometimes does not.
LEASE_SECONDS, HEARTBEAT_SECONDS = 10, 2
STOP_SECONDS = (2.0, 15.0)
RESTART_SECONDS = 1
# A phone sends the same again after this, and gives up after that. One accepted run in so many is sent once more.
AGAIN_SECONDS, GIVE_UP_SECONDS, ONCE_MORE = 0.5, 120, 10
END_SECONDS = 240
FETCHED = 100
WRITTEN_FROM = 50
ENDED = ("succeeded", "failed", "cancelled")

# Every change of a status, written by the database itself.
AUDIT = """
CREATE TABLE chaos_changes (
    run uuid, was text, became text, attempt int, code text, phase text, worker text,
    at timestamptz DEFAULT clock_timestamp()
);
CREATE FUNCTION chaos_note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO chaos_changes VALUES
        (NEW.id, OLD.status, NEW.status, NEW.attempts, NEW.error_code, OLD.phase,
         coalesce(nullif(NEW.worker, ''), OLD.worker));
    RETURN NULL;
END $$;
CREATE TRIGGER chaos AFTER UPDATE ON generation_run
    FOR EACH ROW WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION chaos_note();
"""


# -- What runs -----------------------------------------------------------------------------------------------------


class Site(Engine):
    """gunicorn and two workers; as a supervisor does, each worker that ends is started again."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        super().__init__(
            PORT=str(self.port),
            WEB_CONCURRENCY="2",
            TRUSTED_PROXIES="1",
            APP_KEYS=f"bench={APP_KEY}",
            RUN_LEASE_SECONDS=str(LEASE_SECONDS),
            RUN_HEARTBEAT_SECONDS=str(HEARTBEAT_SECONDS),
        )
        self.certificate = self.folder / "none"
        self.workers: dict[int, subprocess.Popen[bytes]] = {}
        self._over = threading.Event()
        self._keepers = [threading.Thread(target=self._keep, args=(slot,)) for slot in range(2)]

    def __enter__(self) -> Self:
        super().__enter__()
        subprocess.run([sys.executable, "manage.py", "prepare"], cwd=ROOT, env=self.environment, check=True)
        self.web = self.start([sys.executable, "-m", "gunicorn", "stefna.wsgi"], "web", self.environment)
        for keeper in self._keepers:
            keeper.start()
        until_it_listens(self.port)
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self.web.terminate()
        while any(keeper.is_alive() for keeper in self._keepers):
            for worker in self.workers.values():
                worker.kill()
            time.sleep(0.1)
        # Its children would be left behind by a kill.
        with suppress(subprocess.TimeoutExpired):
            self.web.wait(35)
        super().__exit__(*error)

    def _keep(self, slot: int) -> None:
        while not self._over.is_set():
            self.workers[slot] = self.worker(THREADS)
            self.workers[slot].wait()
            self._over.wait(RESTART_SECONDS)

    def web_workers(self) -> list[int]:
        return children(self.web.pid)

    def queue_workers(self) -> list[int]:
        return [worker.pid for worker in self.workers.values() if worker.poll() is None]

    def image_processes(self, *, of_a_service: bool = False) -> list[int]:
        """Return all image processes, or those that a service has started by itself and not by another of them."""
        services = [*self.web_workers(), *self.queue_workers()]
        below = [pid for service in services for pid in (children if of_a_service else descendants)(service)]
        return [pid for pid in below if "generation.images.child" in command(pid)]

    def log_lines(self) -> Iterator[dict[str, Any]]:
        """Yield the lines of all logs that are events."""
        for path in self.folder.glob("*.log"):
            for line in path.read_text(errors="replace").splitlines():
                with suppress(ValueError):
                    if isinstance(event := json.loads(line), dict):
                        yield event


def children(pid: int) -> list[int]:
    """Return the processes that any thread of a process has started."""
    with suppress(OSError):
        tasks = Path(f"/proc/{pid}/task").iterdir()
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]
    return []


def descendants(pid: int) -> list[int]:
    return [found for child in children(pid) for found in (child, *descendants(child))]


def command(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return ""


def is_busy(pid: int) -> bool:
    with suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "R"
    return False


# -- What is done to it --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fault:
    at: datetime
    kind: str
    what: str


class Faults:
    """Disturbs a site, in an order that a seed decides: each kind as often as the others, give or take one."""

    def __init__(self, site: Site, seed: int) -> None:
        self._site, self._random = site, random.Random(seed)
        self._timers: list[threading.Timer] = []
        self.done: list[Fault] = []

    def strike(self, count: int, seconds: float) -> None:
        kinds = [kind for kind, _ in zip(itertools.cycle(KINDS), range(count), strict=False)]
        self._random.shuffle(kinds)
        started = time.monotonic()
        for number, kind in enumerate(kinds):
            due = started + seconds / count * (number + self._random.random())
            time.sleep(max(0, due - time.monotonic()))
            self._strike(kind)
        time.sleep(max(0, started + seconds - time.monotonic()))

    def _strike(self, kind: str) -> None:
        """Do it to whatever there is now; a process that has just ended is no target, and another one is found."""
        until = time.monotonic() + 15
        while True:
            try:
                at = datetime.now(UTC)
                what = KINDS[kind](self)
            except (LookupError, ProcessLookupError):
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)
            else:
                self.done.append(Fault(at, kind, what))
                return

    def end(self) -> None:
        """Wait until whatever was stopped goes on."""
        for timer in self._timers:
            timer.join()

    def _signal(self, pids: list[int], number: signal.Signals) -> str:
        pid = self._random.choice(pids)
        os.kill(pid, number)
        return f"{number.name} {pid}"

    def kill_web(self) -> str:
        return self._signal(self._site.web_workers(), signal.SIGKILL)

    def end_web(self) -> str:
        return self._signal(self._site.web_workers(), signal.SIGTERM)

    def reload_web(self) -> str:
        return self._signal([self._site.web.pid], signal.SIGHUP)

    def kill_worker(self) -> str:
        return self._signal(self._site.queue_workers(), signal.SIGKILL)

    def end_worker(self) -> str:
        return self._signal(self._site.queue_workers(), signal.SIGTERM)

    def stop_worker(self) -> str:
        pid, seconds = self._random.choice(self._site.queue_workers()), self._random.uniform(*STOP_SECONDS)
        os.kill(pid, signal.SIGSTOP)
        self._timers.append(threading.Timer(seconds, go_on, [pid]))
        self._timers[-1].start()
        return f"{pid} for {seconds:.1f} s"

    def kill_image_process(self) -> str:
        """Kill one that is at work, if one is seen at work within a moment; at times the one that they come from."""
        if self._random.random() < 1 / 3:
            return (
                f"first of its service, {self._signal(self._site.image_processes(of_a_service=True), signal.SIGKILL)}"
            )
        until = time.monotonic() + 3
        while time.monotonic() < until:
            if busy := [pid for pid in self._site.image_processes() if is_busy(pid)]:
                return f"busy, {self._signal(busy, signal.SIGKILL)}"
            time.sleep(0.002)
        return f"idle, {self._signal(self._site.image_processes(), signal.SIGKILL)}"

    def cut_redis(self) -> str:
        """End the connections to the cache and to the broker, and those of nobody else on this server."""
        client = redis.Redis.from_url(BROKER)
        ours = {str(redis.Redis.from_url(url).get_connection_kwargs()["db"]) for url in (BROKER, CACHE)}
        mine = str(client.client_id())
        found = [one["id"] for one in client.client_list() if one["db"] in ours and one["id"] != mine]
        cut = sum(client.client_kill_filter(_id=number) for number in found)
        client.close()
        return f"{cut} connections"

    def cut_database(self) -> str:
        ours = "SELECT pid FROM pg_stat_activity WHERE datname = %s AND application_name = 'bench-worker'"
        with psycopg.connect(SERVER, autocommit=True) as server:
            cut = server.execute(f"SELECT pg_terminate_backend(pid) FROM ({ours}) AS theirs", [DATABASE]).rowcount
        return f"{cut} connections"


def go_on(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


KINDS: dict[str, Callable[[Faults], str]] = {
    "gunicorn worker killed": Faults.kill_web,
    "queue worker killed": Faults.kill_worker,
    "image process killed": Faults.kill_image_process,
    "queue worker told to end": Faults.end_worker,
    "gunicorn reloaded": Faults.reload_web,
    "gunicorn worker told to end": Faults.end_web,
    "Redis connections cut": Faults.cut_redis,
    "database connections cut": Faults.cut_database,
    "queue worker stopped for a while": Faults.stop_worker,
}
# What makes a run lose the worker that holds it.
DEADLY = ("queue worker killed", "queue worker stopped for a while")


# -- Who uses it ---------------------------------------------------------------------------------------------------


class Phone(Person):
    """Somebody's app, behind a proxy that adds what proxies add."""

    def call(self, method: str, path: str, **options: Any) -> requests.Response:
        proxy = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.9"}
        options["headers"] = proxy | options.get("headers", {})
        return super().call(method, path, **options)


class Load:
    """People who send photos at a rate, each again and again until it is accepted."""

    def __init__(self, phones: list[Phone], rate: float, seed: int) -> None:
        self._phones, self._rate, self._seed = phones, rate, seed
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self.over = threading.Event()
        self.accepted: dict[str, str] = {}
        self.sent: dict[str, tuple[Phone, int]] = {}
        self.seconds: list[float] = []
        self.replayed = 0
        self.troubles: Counter[str] = Counter()
        self.wrong: list[str] = []

    def __enter__(self) -> Self:
        self._pool = ThreadPoolExecutor(len(self._phones))
        self._using = [self._pool.submit(self._use, place) for place in range(len(self._phones))]
        return self

    def __exit__(self, *error: object) -> None:
        self.over.set()
        for using in self._using:
            using.result()
        self._pool.shutdown()

    def _use(self, place: int) -> None:
        chance = random.Random(f"{self._seed}-{place}")
        while not self.over.wait(chance.expovariate(self._rate / len(self._phones))):
            number = next(self._numbers)
            key, picture = uuid.uuid4().hex, photo(number)
            made = self._accepted(self._phones[place], picture, key)
            if made is None:
                continue
            with self._lock:
                self.accepted[key] = made
                self.sent[made] = self._phones[place], number
            if number % ONCE_MORE == 0 and (again := self._accepted(self._phones[place], picture, key)) != made:
                self._complain(f"key {key} gave {made} and then {again}")

    def _accepted(self, phone: Phone, picture: bytes, key: str) -> str | None:
        """Send a photo until it is accepted, always with the same key; return the run's id."""
        started = time.monotonic()
        while time.monotonic() - started < GIVE_UP_SECONDS:
            try:
                answer = phone.send(picture, key)
            except requests.RequestException as error:
                trouble = type(error).__name__
            else:
                if answer.status_code == 202:
                    with self._lock:
                        self.seconds.append(time.monotonic() - started)
                        self.replayed += "Idempotent-Replayed" in answer.headers
                    return str(answer.json()["id"])
                trouble = f"{answer.status_code} {problem_code(answer)}".strip()
                if answer.status_code < 500:
                    self._complain(f"key {key} was answered {answer.status_code}: {answer.text[:200]}")
                    return None
            with self._lock:
                self.troubles[trouble] += 1
            time.sleep(AGAIN_SECONDS)
        self._complain(f"key {key} was not accepted within {GIVE_UP_SECONDS} s")
        return None

    def _complain(self, what: str) -> None:
        with self._lock:
            self.wrong.append(what)


def problem_code(answer: requests.Response) -> str:
    with suppress(ValueError, AttributeError):
        return str(answer.json().get("code", ""))
    return ""


# -- What is checked -----------------------------------------------------------------------------------------------


class Findings:
    """All that is known of the runs when none is active any more; `problems` is what must not be."""

    def __init__(self, load: Load, faults: list[Fault], site: Site) -> None:
        self.load, self.faults, self.site = load, faults, site
        self.problems = list(load.wrong)
        self.runs = list(Run.objects.all())
        self.changes = changes()
        self.calls = calls_by_run()
        self.endings = Counter(run.status for run in self.runs)
        self.failures = Counter(run.error_code for run in self.runs if run.status == "failed")
        self.check_acceptance()
        for run in self.runs:
            self.check_ending(run)
            self.check_news(run)
            self.check_calls(run)
        self.check_files()
        self.fetched = self.check_fetched()

    def complain(self, run: Run | None, what: str) -> None:
        self.problems.append(f"run {run.pk}: {what}" if run else what)

    def check_acceptance(self) -> None:
        """Each key that was accepted has one run, that run is there, and there is no other."""
        known = dict(IdempotencyKey.objects.values_list("key", "runs"))
        there = {str(run.pk) for run in self.runs}
        for key, made in self.load.accepted.items():
            if known.get(key) != [made]:
                self.complain(None, f"key {key} was answered with {made} and has {known.get(key)}")
        self.lost = set(self.load.accepted.values()) - there
        self.surplus = there - set(self.load.accepted.values())
        for pk in self.lost:
            self.complain(None, f"run {pk} was accepted and is not there")
        for pk in self.surplus:
            self.complain(None, f"run {pk} is there and no phone was told of it")

    def check_ending(self, run: Run) -> None:
        """It has ended once, and what has failed has failed of a fault."""
        ended = [change for change in self.changes.get(run.pk, []) if change["became"] in ENDED]
        if run.status not in ENDED:
            self.complain(run, f"is {run.status} {run.phase} after all")
        elif len(ended) != 1:
            self.complain(run, f"ended {len(ended)} times")
        if run.status == "cancelled":
            self.complain(run, "is cancelled, and nobody cancelled it")
        if run.status == "failed" and not self.is_explained(run):
            self.complain(run, f"failed of {run.error_code} ({run.error_message}), which no fault explains")

    def is_explained(self, run: Run) -> bool:
        """Say whether faults can have made it fail: as many workers lost as it takes, or one stopped in a call."""
        assert run.finished_at
        deadly = [
            fault for fault in self.faults if fault.kind in DEADLY and run.created_at < fault.at < run.finished_at
        ]
        lost = sum(change["code"] == "worker_crashed" for change in self.changes.get(run.pk, []))
        if run.error_code == "worker_crashed":
            return lost >= 3 and len(deadly) >= 3
        return run.error_code == "upstream_timeout" and bool(deadly)

    def check_news(self, run: Run) -> None:
        news = list(Notification.objects.filter(subject=run.pk).values_list("kind", flat=True))
        if run.status in ENDED and news != [f"run_{run.status}"]:
            self.complain(run, f"is {run.status} and its user was told {news}")

    def check_calls(self, run: Run) -> None:
        """Each call beyond the first may have cost something, and the row says so."""
        calls = self.calls[str(run.pk)]
        if calls > 1 + run.possible_cost:
            self.complain(run, f"{calls} calls of the model, and a possible cost of {run.possible_cost}")
        if run.status == "succeeded" and not calls:
            self.complain(run, "has a picture and no call")

    def check_files(self) -> None:
        """What a row names is stored."""
        stored = {file["public_id"] for file in standin.stored()}
        known = set()
        rows: list[Run | Photo] = [*self.runs, *Photo.objects.all()]
        for row in rows:
            wanted = (row.result, row.thumbnail) if isinstance(row, Run) else (row.file, row.thumbnail)
            is_wanted = isinstance(row, Photo) or row.status == "succeeded"
            names = {str(name).rpartition(".")[0] for name in wanted} if is_wanted else set()
            known |= names
            if missing := names - stored:
                self.problems.append(f"{type(row).__name__.lower()} {row.pk}: {missing} is not stored")
        self.orphans = len(stored - known)

    def check_fetched(self) -> int:
        """Fetch some pictures as their people do; each is of the photo that was sent for it."""
        succeeded = [run for run in self.runs if run.status == "succeeded" and str(run.pk) in self.load.sent]
        chosen = random.Random(0).sample(succeeded, min(FETCHED, len(succeeded)))
        for run in chosen:
            phone, number = self.load.sent[str(run.pk)]
            answer = phone.call("GET", f"/api/v1/runs/{run.pk}/download")
            if answer.status_code != 200:
                self.complain(run, f"its picture is answered {answer.status_code}: {answer.text[:200]}")
                continue
            with Image.open(io.BytesIO(answer.content)) as picture:
                if (found := number_on(picture)) != number:
                    self.complain(run, f"its picture is of photo {found} and not of {number}")
        return len(chosen)

    def history(self, run: Run) -> str:
        """Tell what happened to a run, and around it."""
        until = run.finished_at or datetime.now(UTC)
        told = [
            (change["at"], f"{change['was']}/{change['phase']} -> {change['became']} {change['code']}"
             f" attempt {change['attempt']} {change['worker']}")
            for change in self.changes.get(run.pk, [])
        ]  # fmt: skip
        told += [
            (fault.at, f"  fault: {fault.kind}, {fault.what}")
            for fault in self.faults
            if run.created_at < fault.at < until
        ]
        lines = [f"{at:%H:%M:%S.%f} {what}" for at, what in sorted(told)]
        return "\n".join(
            [f"run {run.pk}, {run.status} {run.error_code}, accepted {run.created_at:%H:%M:%S.%f}", *lines]
        )

    def rows(self) -> list[list[object]]:
        calls, extra = sum(self.calls.values()), sum(max(0, self.calls[str(run.pk)] - 1) for run in self.runs)
        succeeded, news = self.endings["succeeded"], Notification.objects.count()
        half, most = percentiles(self.load.seconds)
        delays = sorted((run.total_ms or 0) / 1000 for run in self.runs)
        logged = Counter(
            str(event.get("event")).partition("[")[0]
            for event in self.site.log_lines()
            if event.get("level") in ("error", "critical")
        )
        accepted = f"{len(self.load.accepted)}; {len(self.lost)}; {len(self.surplus)}"
        waited = f"{half / 1000:.2f}; {most / 1000:.2f}; {max(self.load.seconds):.1f}"
        answers = f"{in_words(self.load.troubles) or 'none'}; {self.load.replayed} accepted requests came again"
        return [
            ["runs accepted; lost; beyond one a key", accepted, "0; 0"],
            ["how they ended", in_words(self.endings), "all ended, each once"],
            ["failed of", in_words(self.failures) or "nothing", "only what faults explain"],
            ["news", news, f"{len(self.runs)}: one a run"],
            ["succeeded, with both files stored", succeeded, "all"],
            ["fetched, and of the photo that was sent", self.fetched, "all of a sample"],
            ["runs that lost a worker; two; more", "; ".join(str(number) for number in self.losses()), ""],
            ["calls of the model; beyond one a run", f"{calls}; {extra}", "≤ the next, run by run"],
            ["possible cost on the rows", sum(run.possible_cost for run in self.runs), ""],
            ["stored pictures that no row knows", self.orphans, "few; the clean-up takes them an hour later"],
            ["answers that made phones send again", answers, "connections and 5xx"],
            ["logged as errors", in_words(logged) or "nothing", ""],
            ["seconds until accepted: p50; p95; worst", waited, ""],
            [
                "seconds from accepted to ended: p50; p95; worst",
                f"{delays[len(delays) // 2]:.1f}; {delays[int(len(delays) * 0.95)]:.1f}; {delays[-1]:.1f}",
                "",
            ],
        ]  # fmt: skip

    def losses(self) -> tuple[int, int, int]:
        crashes = Counter(min(3, run.crashes) for run in self.runs)
        return crashes[1], crashes[2], crashes[3]


def changes() -> dict[uuid.UUID, list[dict[str, Any]]]:
    """Return every change of a status by run, in their order."""
    found: dict[uuid.UUID, list[dict[str, Any]]] = {}
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM chaos_changes ORDER BY at")
        names = [column.name for column in cursor.description or ()]
        for row in cursor.fetchall():
            found.setdefault(row[0], []).append(dict(zip(names, row, strict=True)))
    return found


def calls_by_run() -> Counter[str]:
    """Count the calls of the model by the run that each names: its id, and the attempt."""
    return Counter(call["headers"].get("x-client-request-id", "").partition(".")[0] for call in standin.calls("aiml"))


# -- All of it -----------------------------------------------------------------------------------------------------


def chaos(options: argparse.Namespace) -> tuple[str, list[str]]:
    """Disturb a site that is in use; return what came of it, and what is wrong with that."""
    with connection.cursor() as cursor:
        cursor.execute(AUDIT)
    with Site() as site:
        standin.defaults(aiml_delay=MODEL_SECONDS)
        phones = [Phone(site, f"phone{number}") for number in range(PHONES)]  # type: ignore[arg-type]
        faults = Faults(site, options.seed)
        with Load(phones, options.rate, options.seed) as load:
            faults.strike(options.faults, options.seconds)
        faults.end()
        rest = until_all_ended()
        # Whoever slept believes that the work is still theirs, and ends it now if nothing keeps them from it.
        time.sleep(5)
        findings = Findings(load, faults.done, site)
        rows = findings.rows()
        if findings.problems:
            keep(site, findings)
    counted = Counter(fault.kind for fault in faults.done)
    told = (
        f"gunicorn with 2 processes, 2 workers of {THREADS} threads, PostgreSQL, Redis as cache and broker, and a model"
        f" that takes {MODEL_SECONDS} s; lease {LEASE_SECONDS} s, heartbeat {HEARTBEAT_SECONDS} s. {PHONES} people sent"
        f" {options.rate:g} photos a second for {options.seconds:g} s, each with a key, and again until it was"
        f" accepted. Meanwhile {len(faults.done)} faults (seed {options.seed}): {in_words(counted)}. The last run ended"
        f" {rest:.0f} s after the last fault's end.\n\n"
    )
    return told + report.table(["counted", "value", "should be"], rows), findings.problems


def until_all_ended() -> float:
    """Wait for all runs, or for as long as is bearable; return the seconds."""
    started = time.monotonic()
    while Run.objects.active().exists() and time.monotonic() < started + END_SECONDS:
        time.sleep(0.2)
    return time.monotonic() - started


def keep(site: Site, findings: Findings) -> None:
    """Keep logs, faults and the histories of runs that something is wrong with, and say where."""
    kept = FOLDER.with_name(f"{FOLDER.name}-kept")
    kept.mkdir()
    for log in site.folder.glob("*.log"):
        shutil.copy(log, kept)
    histories = [findings.history(run) for run in findings.runs if any(str(run.pk) in one for one in findings.problems)]
    faults = [f"{fault.at:%H:%M:%S.%f} {fault.kind}, {fault.what}" for fault in findings.faults]
    (kept / "problems.txt").write_text("\n\n".join(["\n".join(findings.problems), *histories, "\n".join(faults)]))
    print(f"Kept in {kept}.")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("seconds", nargs="?", type=float, default=480)
    parser.add_argument("--faults", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=float, default=2, help="photos a second")
    options = parser.parse_args()
    # Ending by a supervisor's signal, too, leaves no process behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        check_services()
        with psycopg.connect(SERVER, autocommit=True) as server:
            server.execute(f'CREATE DATABASE "{DATABASE}"')
            try:
                call_command("migrate", verbosity=0)
                call_command("load_presets", verbosity=0)
                told, problems = chaos(options)
            finally:
                connection.close_pool()  # type: ignore[attr-defined]
                server.execute(f'DROP DATABASE "{DATABASE}" WITH (FORCE)')
    finally:
        standin.stop()
        shutil.rmtree(FOLDER)
    if options.faults >= WRITTEN_FROM:
        report.write(f"Chaos: {options.faults} faults", told)
    else:
        print(told)
    assert not problems, "\n".join(problems)


if __name__ == "__main__":
    main()
