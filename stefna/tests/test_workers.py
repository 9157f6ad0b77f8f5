"""Runs made by real workers of the queue engine, which are processes of their own: killed, stopped, told to end."""

import contextlib
import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis
from django.db import connection, connections
from django.test import Client

from generation import services, sweep
from generation.models import Run
from generation.tests.conftest import standin, upstreams  # noqa: F401  (fixtures)
from notifications.models import Notification
from stefna.celery import app
from stefna.tests.environment import TEST_BROKER_URL
from stefna.tests.waiting import WAIT_SECONDS, wait_until

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.django_db(transaction=True)


def wait_for(condition):
    """Wait until something is true and return it; a worker in a process of its own takes the time it takes."""
    return wait_until(condition, lambda error: list(Run.objects.values_list("status", "phase")[:9]))


class Gate:
    """A way to the database that can be shut: connections end at once, and new ones find nobody."""

    def __init__(self, port):
        self._target = ("127.0.0.1", int(port))
        self._open = []
        self.port = 0
        self.open()

    def open(self):
        self._server = socket.create_server(("127.0.0.1", self.port), reuse_port=True)
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._server,), daemon=True).start()

    def shut(self):
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for one in self._open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def _accept(self, server):
        with contextlib.suppress(OSError):
            while True:
                near, _ = server.accept()
                far = socket.create_connection(self._target)
                self._open += [near, far]
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    @staticmethod
    def _pass_on(one, other):
        with contextlib.suppress(OSError):
            while data := one.recv(65_536):
                other.sendall(data)
        with contextlib.suppress(OSError):
            other.shutdown(socket.SHUT_RDWR)


class Engine:
    """Workers on this test's database and broker, with a lease that a test can wait for."""

    def __init__(self, folder, environment, broker):
        user, port = connection.settings_dict["USER"], connection.settings_dict["PORT"] or 5432
        self.gate = Gate(port)
        database = f"postgres://{user}@127.0.0.1:{self.gate.port}/{connection.settings_dict['NAME']}"
        self.folder = folder
        self.environment = os.environ | environment | {
            "DATABASE_URL": database,
            "CELERY_BROKER_URL": broker,
            "STATE_DIR": str(folder),
            "RUN_LEASE_SECONDS": "10",
            "RUN_HEARTBEAT_SECONDS": "1",
            "AIML_RETRY_BASE_MS": "10",
            "AIML_RETRY_CAP_MS": "40",
            "CIRCUIT_OPEN_SECONDS": "2",
        }  # fmt: skip
        self.processes = []

    def worker(self, threads=8):
        return self._start("worker", "--pool", "threads", "--concurrency", str(threads))

    def _start(self, *arguments):
        log = (self.folder / f"{arguments[0]}.log").open("ab")
        command = [sys.executable, "-m", "celery", "-A", "stefna", *arguments, "--loglevel", "WARNING"]
        process = subprocess.Popen(command, cwd=ROOT, env=self.environment, stdout=log, stderr=log)
        self.processes.append(process)
        return process

    def log(self):
        return "".join(path.read_text() for path in self.folder.glob("*.log"))

    def stop(self):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()


@pytest.fixture
def engine(transactional_db, upstreams, settings, tmp_path, worker_id):  # noqa: F811
    """A broker of this test process's own, so that tests side by side do not take each other's messages."""
    number = int(worker_id.removeprefix("gw") or 0) if worker_id != "master" else 0
    broker = TEST_BROKER_URL
    if broker.startswith("redis"):
        broker = f"{broker.rpartition('/')[0]}/{2 + number}"
        redis.Redis.from_url(broker).flushdb()
    settings.CELERY_BROKER_URL = broker
    use_broker(broker)
    settings.MAX_ACTIVE_RUNS = settings.DAILY_RUN_LIMIT = 0
    environment = upstreams.environment() | {"AIML_API_KEY": settings.AIML_API_KEY}
    if "REDIS_URL" in os.environ:
        environment["REDIS_URL"] = f"{os.environ['REDIS_URL'].rpartition('/')[0]}/{8 + number}"
    folder = tmp_path / "engine"
    folder.mkdir()
    made = Engine(folder, environment, broker)
    made.broker = broker
    yield made
    made.stop()


def use_broker(url):
    """Send this process's messages to another broker; connections are pooled by their address."""
    app.conf.broker_url = app.conf.broker_write_url = url
    app._pool = app.amqp._producer_pool = None


def ended_well(run):
    run.refresh_from_db()
    assert (run.status, run.error_code) == ("succeeded", ""), vars(run)
    assert Notification.objects.filter(subject=run.pk).count() == 1


def test_worker_makes_a_picture_as_soon_as_it_is_asked_for(engine, upstreams, start):  # noqa: F811
    engine.worker()
    first = start()
    wait_for(lambda: Run.objects.get(pk=first.pk).status == "succeeded")
    second = start(seed=9)
    wait_for(lambda: Run.objects.get(pk=second.pk).status == "succeeded")
    ended_well(first)
    ended_well(second)
    assert upstreams.counts()["aiml"]["calls"] == 2


@pytest.mark.parametrize(
    ("slow", "calls", "extra"),
    [
        ("aiml_delay", lambda u: u.counts()["aiml"]["in_flight"], 1),
        ("result_delay", lambda u: u.counts()["result"]["in_flight"], 0),
        ("upload_delay", lambda u: u.counts()["upload"]["in_flight"], 0),
    ],
    ids=["while it is made", "while it is fetched", "while it is stored"],
)
def test_killed_worker_delays_a_run_and_loses_nothing(engine, upstreams, start, slow, calls, extra):  # noqa: F811
    worker = engine.worker()
    run = start()
    upstreams.defaults(**{slow: 30})
    wait_for(lambda: calls(upstreams))
    worker.kill()
    worker.wait()
    upstreams.defaults(**{slow: 0})
    engine.worker()
    wait_for(lambda: Run.objects.get(pk=run.pk).status == "succeeded")
    ended_well(run)
    assert (run.attempts, run.crashes, run.possible_cost) == (2, 1, extra)
    assert upstreams.counts()["aiml"]["calls"] == 1 + extra


def test_all_runs_of_a_killed_worker_are_taken_over(engine, upstreams, start):  # noqa: F811
    upstreams.defaults(aiml_delay=60)
    worker = engine.worker(threads=64)
    runs = [start(seed=seed) for seed in range(1, 65)]
    wait_for(lambda: upstreams.counts()["aiml"]["in_flight"] == len(runs))
    worker.kill()
    worker.wait()
    upstreams.defaults(aiml_delay=0)
    engine.worker(threads=64)
    wait_for(lambda: Run.objects.filter(status="succeeded").count() == len(runs))
    assert set(Run.objects.values_list("attempts", "crashes", "possible_cost")) == {(2, 1, 1)}
    assert Notification.objects.count() == len(runs)


def test_runs_that_two_workers_died_over_are_made_one_at_a_time(engine, upstreams, start):  # noqa: F811
    upstreams.defaults(aiml_delay=60)
    runs = [start(seed=seed) for seed in range(1, 5)]
    for crashes in (1, 2):
        worker = engine.worker()
        wait_for(lambda: upstreams.counts()["aiml"]["in_flight"] == len(runs))
        worker.kill()
        worker.wait()
        wait_for(lambda: upstreams.counts()["aiml"]["in_flight"] == 0)
        assert sweep.take_over_lost_runs() == len(runs)
        assert set(Run.objects.values_list("crashes", flat=True)) == {crashes}
    seconds = 0.3
    upstreams.defaults(aiml_delay=seconds)
    innocent = start(seed=9)
    engine.worker()
    wait_for(lambda: Run.objects.filter(status="succeeded").count() == len(runs) + 1)
    last = sorted(upstreams.calls("aiml"), key=lambda call: call["at"])[-len(runs) - 1 :]
    # The answer to one comes so many seconds after its call, and the next call after that.
    assert all(later["at"] - earlier["at"] >= seconds for earlier, later in itertools.pairwise(last))
    assert Notification.objects.count() == len(runs) + 1
    ended_well(innocent)


def test_dead_workers_run_goes_back_though_everybody_is_busy(engine, upstreams, start):  # noqa: F811
    upstreams.defaults(aiml_delay=30)
    first = engine.worker(threads=1)
    run = start()
    wait_for(lambda: upstreams.counts()["aiml"]["in_flight"] == 1)
    engine.worker(threads=1)
    # One for the second worker's only thread, and a queue of messages that nobody reads for half a minute.
    for seed in range(1, 6):
        start(seed=seed)
    wait_for(lambda: upstreams.counts()["aiml"]["in_flight"] == 2)
    first.kill()
    first.wait()
    wait_for(lambda: Run.objects.get(pk=run.pk).status == "queued")
    assert upstreams.counts()["aiml"]["calls"] == 2


def test_beat_asks_for_tasks_that_there_are():
    assert {entry["task"] for entry in app.conf.beat_schedule.values()} <= set(app.tasks)


def test_worker_that_slept_through_its_lease_ends_nothing_twice(engine, upstreams, start):  # noqa: F811
    sleeper = engine.worker()
    run = start()
    upstreams.defaults(aiml_delay=3)
    wait_for(lambda: upstreams.counts()["aiml"]["in_flight"])
    os.kill(sleeper.pid, signal.SIGSTOP)
    upstreams.defaults(aiml_delay=0)
    engine.worker()
    wait_for(lambda: Run.objects.get(pk=run.pk).status == "succeeded")
    os.kill(sleeper.pid, signal.SIGCONT)
    # Awake again it takes its late answer, and finds that the run is not its own any more.
    wait_for(lambda: upstreams.counts()["aiml"]["in_flight"] == 0)
    another = start(seed=3)
    wait_for(lambda: Run.objects.get(pk=another.pk).status == "succeeded")
    ended_well(run)
    assert run.attempts == 2


@pytest.mark.parametrize("seconds", [1, 60], ids=["finishes", "hands back"])
def test_worker_told_to_end_finishes_or_hands_back(engine, upstreams, start, seconds):  # noqa: F811
    worker = engine.worker()
    run = start()
    upstreams.defaults(aiml_delay=seconds)
    wait_for(lambda: upstreams.counts()["aiml"]["in_flight"])
    worker.terminate()
    assert worker.wait(WAIT_SECONDS) == 0
    run.refresh_from_db()
    if seconds == 1:
        ended_well(run)
    else:
        assert (run.status, run.error_code, run.possible_cost) == ("queued", "worker_stopped", 1)


def test_database_that_goes_away_costs_no_second_call(engine, upstreams, start):  # noqa: F811
    engine.worker()
    run = start()
    upstreams.defaults(aiml_delay=1.5)
    wait_for(lambda: upstreams.counts()["aiml"]["in_flight"])
    engine.gate.shut()
    wait_for(lambda: upstreams.counts()["aiml"]["in_flight"] == 0)
    time.sleep(1.5)
    run.refresh_from_db()
    assert (run.status, run.phase, run.result_url) == ("running", "generating", "")
    engine.gate.open()
    wait_for(lambda: Run.objects.get(pk=run.pk).status == "succeeded")
    ended_well(run)
    assert (run.attempts, upstreams.counts()["aiml"]["calls"]) == (1, 1)
    # The worker needed no restart.
    another = start(seed=4)
    wait_for(lambda: Run.objects.get(pk=another.pk).status == "succeeded")


def test_lost_messages_lose_no_run(engine, upstreams, start):  # noqa: F811
    upstreams.defaults(instant=True)
    runs = [start() for _ in range(30)]
    if engine.broker.startswith("redis"):
        redis.Redis.from_url(engine.broker).flushdb()
    else:
        app.control.purge()
    engine.worker()
    wait_for(lambda: Run.objects.filter(status="succeeded").count() == len(runs))
    assert upstreams.counts()["aiml"]["calls"] == len(runs)
    assert Notification.objects.count() == len(runs)


def test_outage_is_waited_out_with_few_calls(engine, upstreams, start):  # noqa: F811
    upstreams.defaults(instant=True)
    upstreams.down("aiml", 503)
    runs = [start() for _ in range(60)]
    engine.worker()
    wait_for(lambda: upstreams.counts()["aiml"]["calls"] >= 10)
    time.sleep(3)
    spent = upstreams.counts()["aiml"]["calls"]
    # Eight threads may each be in a call when the tenth opens the circuit, and each opening is probed once.
    assert spent <= 10 + 8 + 3
    upstreams.down("aiml", None)
    wait_for(lambda: not Run.objects.active().exists())
    failed = Run.objects.filter(status="failed").count()
    assert failed <= 5
    assert Run.objects.filter(status="succeeded").count() == len(runs) - failed
    assert Notification.objects.count() == len(runs)


def test_fifty_posts_with_one_key_are_one_call(engine, upstreams, alice, photo, preset):  # noqa: F811
    engine.worker()
    key = uuid.uuid4().hex

    def post(_):
        try:
            return services.start_run(user=alice, photo=photo, preset=preset, key=key).pk
        finally:
            connections.close_all()

    with ThreadPoolExecutor(50) as pool:
        made = set(pool.map(post, range(50)))
    assert len(made) == 1
    wait_for(lambda: Run.objects.filter(status="succeeded").exists())
    assert (Run.objects.count(), upstreams.counts()["aiml"]["calls"]) == (1, 1)


def test_pages_work_while_the_broker_is_away(engine, alice, photo, preset):
    use_broker("redis://127.0.0.1:1/0")
    client = Client()
    client.force_login(alice)
    run = services.start_run(user=alice, photo=photo, preset=preset, key=uuid.uuid4().hex)
    assert client.get(run.get_absolute_url()).status_code == 200
    assert Run.objects.get().status == "queued"
