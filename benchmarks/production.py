"""The production path: PostgreSQL, a broker and real workers, beside stand-ins for Cloudinary and the AIML API.

Run it as `python -m benchmarks.production [NAME…]`: without names, every part. It makes a database of its own on the
server of DATABASE_URL, and empties the broker at CELERY_BROKER_URL, which nobody else may be using.
"""

import logging
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import django
import kombu.exceptions
import psycopg
import redis

from benchmarks import report
from benchmarks.limits import UNLIMITED_ADDRESSES
from stefna.tests.standin import Upstreams

ROOT = Path(__file__).parents[1]
SERVER = os.environ.get("DATABASE_URL", "postgres://postgres@127.0.0.1:5432/postgres")
BROKER = os.environ.get("CELERY_BROKER_URL", "redis://127.0.0.1:6379/6")
CACHE = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/7")
DATABASE = f"stefna_bench_{os.getpid()}"
FOLDER = Path(tempfile.mkdtemp(prefix="stefna-bench-"))

# Django reads its settings when it is set up: by then the stand-in has its port, and nobody's own settings are left.
standin = Upstreams().start()
for setting in re.findall(r"^#?([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE):
    os.environ.pop(setting, None)
os.environ |= standin.environment() | {
    "DJANGO_SETTINGS_MODULE": "stefna.settings",
    "ENV_FILE": os.devnull,
    "STATE_DIR": str(FOLDER),
    "SECRET_KEY": "only-for-benchmarks",
    "DATABASE_URL": urlsplit(SERVER)._replace(path=f"/{DATABASE}").geturl(),
    "REDIS_URL": CACHE,
    "CELERY_BROKER_URL": BROKER,
    "MAX_ACTIVE_RUNS": "0",
    "DAILY_RUN_LIMIT": "0",
    **UNLIMITED_ADDRESSES,
}
django.setup()
logging.getLogger("generation").setLevel(logging.ERROR)

from django.core.management import call_command  # noqa: E402
from django.db import connection, transaction  # noqa: E402
from django.db.models import Max, Min, Sum  # noqa: E402
from django.utils import timezone  # noqa: E402

from accounts.models import User  # noqa: E402
from generation import photos, services  # noqa: E402
from generation.models import Preset, Run  # noqa: E402
from notifications.models import Notification  # noqa: E402
from stefna.celery import app  # noqa: E402

MODEL_MS = 500
KILLS, IN_FLIGHT_AT_KILL = 20, 8
OUTAGE_SECONDS = 20


Parts = dict[str, Callable[[], str]]


def run(title: str, parts: Parts, names: list[str]) -> None:
    """Run the named parts, or all of them, on a database of their own, and write down what they found."""
    # Ending by a supervisor's signal, too, leaves no process behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        _run(title, parts, names)
    finally:
        standin.stop()
        shutil.rmtree(FOLDER)


def _run(title: str, parts: Parts, names: list[str]) -> None:
    if unknown := set(names) - parts.keys():
        sys.exit(f"No such part: {', '.join(unknown)}. There are {', '.join(parts)}.")
    check_services()
    with psycopg.connect(SERVER, autocommit=True) as server:
        server.execute(f'CREATE DATABASE "{DATABASE}"')
        try:
            call_command("migrate", verbosity=0)
            call_command("load_presets", verbosity=0)
            for name in names or parts:
                report.write(f"{title}: {name.replace('_', ' ')}", parts[name]())
        finally:
            connection.close_pool()  # type: ignore[attr-defined]
            server.execute(f'DROP DATABASE "{DATABASE}" WITH (FORCE)')


def check_services() -> None:
    """Exit with one line when a service is away, or when the broker is somebody's."""
    try:
        psycopg.connect(SERVER, connect_timeout=5).close()
        redis.Redis.from_url(CACHE).ping()
        if BROKER.startswith("redis"):
            client = redis.Redis.from_url(BROKER)
            number, mine = str(client.get_connection_kwargs().get("db", 0)), str(client.client_id())
            if any(one["db"] == number and one["id"] != mine for one in client.client_list()):
                sys.exit(f"The broker {BROKER} is in use, and this would empty it: name another in CELERY_BROKER_URL.")
        with app.connection_for_write() as broker:
            broker.ensure_connection(max_retries=1, timeout=5)
    except (psycopg.Error, redis.RedisError, kombu.exceptions.OperationalError) as error:
        sys.exit(f"PostgreSQL, Redis and a broker are needed: {' '.join(str(error).split())}")


# -- Workers, and somebody who wants pictures ----------------------------------------------------------------------


class Engine:
    """Workers as the Procfile starts them, with an empty broker; all are killed at the end."""

    def __init__(self, **environment: str) -> None:
        self.folder = Path(tempfile.mkdtemp(dir=FOLDER))
        # A key of its own for each: circuits are remembered by endpoint. The name is what PostgreSQL knows them by.
        ours = {"STATE_DIR": str(self.folder), "AIML_API_KEY": f"key-{uuid.uuid4().hex}", "PGAPPNAME": "bench-worker"}
        self.environment = os.environ | ours | environment
        self.processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        flush_broker()
        return self

    def __exit__(self, *error: object) -> None:
        for process in self.processes:
            process.kill()
            process.wait()

    def worker(self, threads: int) -> subprocess.Popen[bytes]:
        options = f"--pool threads --concurrency {threads} --without-gossip --without-mingle"
        return self.celery("worker", *options.split())

    def celery(self, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "celery", "-A", "stefna", *arguments, "--loglevel", "WARNING"]
        return self.start(command, arguments[0], self.environment)

    def start(self, command: list[str], name: str, environment: dict[str, str]) -> subprocess.Popen[bytes]:
        """Start a program whose words go to NAME.log."""
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        self.processes.append(process)
        return process


def flush_broker() -> None:
    if BROKER.startswith("redis"):
        redis.Redis.from_url(BROKER).flushdb()
    else:
        app.control.purge()


class Owner:
    """Somebody with a photo, alone in the database and at the stand-ins."""

    def __init__(self) -> None:
        User.objects.all().delete()
        standin.reset()
        self.user = User.objects.create_user("owner@example.com")
        self.photo = photos.accept(self.user, photos.Upload.sample("coffee"))
        self.preset = Preset.objects.get(slug="express_enhance")

    def start(self, count: int = 1) -> list[Run]:
        """Ask for pictures; workers hear of all of them at once."""
        with transaction.atomic():
            return [
                services.start_run(user=self.user, photo=self.photo, preset=self.preset, key=uuid.uuid4().hex)
                for _ in range(count)
            ]

    def warm_up(self) -> None:
        """Have one picture made and forgotten: then the worker is there and idle."""
        (run,) = self.start()
        wait_until_ended()
        run.refresh_from_db()
        assert run.status == "succeeded", f"the worker has not made a first picture: {run.status} {run.error_code}"
        run.delete()


def wait_until_ended(seconds: float = 60) -> int:
    """Wait for all runs, or no longer; return the most database connections that workers had at any look."""
    count = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND application_name = 'bench-worker'"
    most, until = 0, time.monotonic() + seconds
    with connection.cursor() as cursor:
        while Run.objects.active().exists() and time.monotonic() < until:
            cursor.execute(count, [DATABASE])
            most = max(most, *cursor.fetchone())
            time.sleep(0.05)
    return most


def last_ended() -> float:
    return Run.objects.aggregate(last=Max("finished_at"))["last"].timestamp()


def aiml_calls() -> int:
    return standin.counts()["aiml"]["calls"]


def endings(runs: Iterable[Run]) -> str:
    """Say how runs ended: each should have succeeded, and have one piece of news."""
    wanted = {run.pk for run in runs}
    statuses = Counter(Run.objects.filter(pk__in=wanted).values_list("status", flat=True))
    news = Counter(Notification.objects.filter(subject__in=wanted).values_list("subject", flat=True))
    ended = ", ".join(f"{number} {status}" for status, number in statuses.items())
    return f"{ended}; {sum(news[pk] == 1 for pk in wanted)} told once, {sum(news[pk] > 1 for pk in wanted)} twice"


# -- How much we add to what a picture takes -----------------------------------------------------------------------


def overhead() -> str:
    owner = Owner()
    standin.defaults(aiml_delay=MODEL_MS / 1000)
    with Engine() as engine:
        engine.worker(8)
        owner.warm_up()
        for _ in range(20):
            owner.start()
            wait_until_ended()
    seen: dict[str, list[int]] = {"all": [], "queue": [], "model and fetching": [], "storing": [], "the rest": []}
    for run in Run.objects.filter(status="succeeded"):
        parts = run.queue_ms or 0, (run.model_ms or 0) - MODEL_MS, run.store_ms or 0
        added = (run.total_ms or 0) - MODEL_MS
        for values, value in zip(seen.values(), (added, *parts, added - sum(parts)), strict=True):
            values.append(value)
    rows = [
        [name, f"{statistics.median(values):.0f}", max(values), "≤ 150" if name == "all" else ""]
        for name, values in seen.items()
    ]
    return (
        f"{len(seen['all'])} runs, one after another, of a photo of 600 × 400 and a model that takes {MODEL_MS} ms:"
        " what a run takes beyond that, from the click to the end.\n\n"
        + report.table(["ms", "median", "worst", "goal (median)"], rows)
    )


# -- Many at once, in one process ----------------------------------------------------------------------------------


def in_flight() -> str:
    rows = [flown(count) for count in (200, 500, 1000)]
    rows.insert(2, ["goal for 500", "≤ 8", "", "≤ 300", "< 20", "500", "500", "all succeeded and told once"])
    columns = ["runs = threads", "seconds", "CPU", "peak MB", "connections", "calls", "most at once", "endings"]
    return (
        "One worker process, runs asked for all at once, a model that takes 5 s. Seconds are from the first run's start"
        " to the last one's end, the best possible is 5; CPU is the worker's, in seconds.\n\n"
        + report.table(columns, rows)
    )


def flown(count: int) -> list[object]:
    owner = Owner()
    standin.defaults(instant=True)
    with Engine() as engine:
        worker = engine.worker(count)
        owner.warm_up()
        standin.defaults(aiml_delay=5)
        before, used = aiml_calls(), processor_seconds(worker.pid)
        runs = owner.start(count)
        connections = wait_until_ended(90)
        used = processor_seconds(worker.pid) - used
        peak = re.findall(r"VmHWM:\s*(\d+)", Path(f"/proc/{worker.pid}/status").read_text())
    times = Run.objects.aggregate(first=Min("started_at"), last=Max("finished_at"))
    seconds = (times["last"] - times["first"]).total_seconds()
    most = standin.counts()["aiml"]["most_in_flight"]
    figures = [f"{seconds:.1f}", f"{used:.1f}", f"{int(peak[0]) / 1024:.0f}", connections]
    return [count, *figures, aiml_calls() - before, most, endings(runs)]


def processor_seconds(pid: int) -> float:
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


# -- When things die -----------------------------------------------------------------------------------------------


def kills() -> str:
    owner, runs, waits, seconds = Owner(), [], [], 0.4
    with Engine(RUN_LEASE_SECONDS="4", RUN_HEARTBEAT_SECONDS="1") as engine:
        worker = engine.worker(IN_FLIGHT_AT_KILL)
        owner.warm_up()
        standin.defaults(aiml_delay=seconds, result_delay=seconds, upload_delay=seconds)
        before, begun = aiml_calls(), time.monotonic()
        for _ in range(KILLS):
            for _ in range(IN_FLIGHT_AT_KILL):
                runs += owner.start()
                time.sleep(random.uniform(0, 0.3))
            killed = time.monotonic()
            worker.kill()
            worker.wait()
            worker = engine.worker(IN_FLIGHT_AT_KILL)
            wait_until_ended()
            waits.append(time.monotonic() - killed)
        log = (engine.folder / "worker.log").read_text()
    logged = Counter(re.findall(r'(?m)^(?=.*"generation_(?:succeeded|failed)").*"run_id": "(.+?)"', log))
    # A call that ended before its time was left by a client that died.
    made, fetched, stored = (
        sum(call["at"] > begun and call["ended"] - call["at"] < seconds for call in standin.calls(target))
        for target in ("aiml", "result", "upload")
    )
    extra, possible = aiml_calls() - before - len(runs), Run.objects.aggregate(sum=Sum("possible_cost"))["sum"]
    rows: list[list[object]] = [
        [f"endings of {len(runs)} runs", endings(runs), "all succeeded and told once"],
        ["endings logged twice", f"{sum(times > 1 for times in logged.values())} of {len(logged)}", "0"],
        ["calls beyond one a run", extra, f"{made} cut off, and few more"],
        ["possible cost on the rows", possible, "≥ the calls beyond"],
        ["seconds from kill to the last end, median", f"{statistics.median(waits):.1f}", "≤ 5 + 2"],
        ["… worst", f"{max(waits):.1f}", "≤ 5 + 2"],
    ]
    return (
        f"A worker with {IN_FLIGHT_AT_KILL} runs was killed {KILLS} times, and another started (lease 4 s, heartbeat"
        f" 1 s, a run takes 2 s). That cut off {made} calls of the model, {fetched} of its results and {stored} of the"
        " storage. The model was also called again where its answer had come and was not on the row yet.\n\n"
        + report.table(["measured", "value", "should be"], rows)
    )


def flush() -> str:
    rows: list[list[object]] = [["kept", *after_flush(lambda: None)], ["lost", *after_flush(flush_broker)]]
    return (
        "100 runs wait for a worker; the broker forgets their messages, then a worker starts, with defaults: the"
        " first look at what waits comes after a heartbeat of 15 s. Seconds from its start to the last end.\n\n"
        + report.table(["messages", "seconds", "calls (100)", "endings"], rows)
    )


def after_flush(forget: Callable[[], None]) -> list[object]:
    owner = Owner()
    standin.defaults(instant=True, aiml_delay=MODEL_MS / 1000)
    with Engine() as engine:
        runs = owner.start(100)
        forget()
        started = time.time()
        engine.worker(64)
        wait_until_ended(90)
    return [f"{last_ended() - started:.1f}", aiml_calls(), endings(runs)]


def outage() -> str:
    rows: list[list[object]] = [
        ["none", *after_outage(0)],
        [f"{OUTAGE_SECONDS} s of 503", *after_outage(OUTAGE_SECONDS)],
    ]
    return (
        "200 runs, one worker of 64 threads, circuits that open for 2 s, then twice as long each time. The last end is"
        " counted from the end of the outage.\n\n"
        + report.table(["outage", "calls during it", "calls in all", "failed", "last end, s", "endings"], rows)
    )


def after_outage(seconds: float) -> list[object]:
    owner = Owner()
    standin.defaults(instant=True, aiml_delay=MODEL_MS / 1000)
    with Engine(CIRCUIT_OPEN_SECONDS="2") as engine:
        engine.worker(64)
        owner.warm_up()
        before = aiml_calls()
        standin.down("aiml", 503 if seconds else None)
        runs = owner.start(200)
        time.sleep(seconds)
        during = aiml_calls() - before if seconds else 0
        standin.down("aiml", None)
        over = timezone.now().timestamp()
        wait_until_ended(90)
    failed = Run.objects.filter(status="failed").count()
    return [during, aiml_calls() - before, failed, f"{last_ended() - over:.1f}", endings(runs)]


if __name__ == "__main__":
    parts = {"overhead": overhead, "in_flight": in_flight, "kills": kills, "flush": flush, "outage": outage}
    run("Production", parts, sys.argv[1:])
