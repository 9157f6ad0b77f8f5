"""The numbers as gunicorn serves them: two processes, one of them killed, and no counter that goes back."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from stefna.tests.waiting import WAIT_SECONDS, wait_until

ROOT = Path(__file__).parents[2]
TOKEN = "a-long-token-for-metrics"


@pytest.fixture
def served(server):
    """The installation behind gunicorn with two processes."""
    environment = server.environment | {
        "METRICS_TOKEN": TOKEN, "WEB_CONCURRENCY": "2", "PORT": str(server.port), "RUN_WORKER_THREADS": "1"
    }  # fmt: skip
    with (server.state / "gunicorn.log").open("ab") as log:
        master = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "stefna.wsgi"], cwd=ROOT, env=environment, stdout=log, stderr=log
        )
    server.counters = server.state / "counters"
    wait_until(lambda: get(server, "/healthz/ready") == {"ok": True} and len(processes(server)) == 2)
    yield server
    master.terminate()
    master.wait()


def get(server, path, token=None):
    request = urllib.request.Request(server.url + path, headers={"Authorization": f"Bearer {token}"} if token else {})
    with urllib.request.urlopen(request, timeout=WAIT_SECONDS) as answer:
        body = answer.read().decode()
    return json.loads(body) if body.startswith("{") else body


def processes(server):
    return {int(path.stem.rpartition("-")[2]) for path in server.counters.glob("counter_*-*[0-9].db")}


def counters(server):
    families = text_string_to_metric_families(get(server, "/metrics", TOKEN))
    return {
        (one.name, *sorted(one.labels.items())): one.value
        for family in families
        if family.type in ("counter", "histogram")
        for one in family.samples
    }


LIVE = ("stefna_http_requests_total", ("method", "GET"), ("route", "healthz/live"), ("status", "200"))


def test_no_counter_goes_back_whichever_process_answers_and_dies(served):
    asked, last = 0, {}
    for round_ in range(30):
        if round_ == 15:
            killed = min(processes(served))
            os.kill(killed, signal.SIGKILL)
        for _ in range(3):
            try:
                get(served, "/healthz/live")
                asked += 1
            except OSError:
                assert round_ >= 15  # it was the one that died
        now = counters(served)
        assert {name for name, value in last.items() if now.get(name, 0) < value} == set()
        last = now
    assert last[LIVE] >= asked
    assert killed not in processes(served)
    assert (served.counters / "counter_all-before.db").exists()
