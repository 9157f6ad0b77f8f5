"""What machines ask: live, ready and the numbers, and who is told which part is not."""

import os
import shutil
import subprocess
import sys
import threading
from collections import namedtuple
from pathlib import Path

import pytest
from django.conf import settings as configured
from django.db import connection
from django.test import Client
from prometheus_client.parser import text_string_to_metric_families

from stefna import readiness

ROOT = Path(__file__).parents[2]
LIVE, READY, METRICS = "/healthz/live", "/healthz/ready", "/metrics"
BEARER = {"authorization": "Bearer a-long-token-for-metrics"}


@pytest.fixture(autouse=True)
def token(settings):
    settings.METRICS_TOKEN = "a-long-token-for-metrics"


def numbers(answer):
    """Every sample of a scrape by its name and labels."""
    assert answer.status_code == 200
    families = text_string_to_metric_families(answer.content.decode())
    return {(one.name, *sorted(one.labels.items())): one.value for family in families for one in family.samples}


def test_live_asks_no_database_whoever_comes(client):
    # Without the db fixture a query fails the test; so does looking for the session.
    client.cookies[configured.SESSION_COOKIE_NAME] = "somebody"
    answer = client.get(LIVE)
    assert (answer.status_code, answer.json()) == (200, {"ok": True})
    assert "no-store" in answer["Cache-Control"]


@pytest.mark.parametrize("address", [LIVE, READY, METRICS])
def test_probe_comes_by_number_and_without_tls(db, settings, address):
    settings.ALLOWED_HOSTS, settings.SECURE_SSL_REDIRECT = ["stefna.example"], True
    client = Client(headers={"host": "10.0.0.7:8000"} | BEARER)
    assert client.get(address).status_code == 200
    assert client.head(address).status_code == 200
    assert client.post(address).status_code == 405
    assert client.get("/").status_code in (301, 400)


def test_everybody_hears_whether_and_nobody_else_hears_what(client, db):
    assert client.get(READY).json() == {"ok": True}
    assert client.get(READY, headers={"authorization": "Bearer wrong"}).json() == {"ok": True}


def test_ready_tells_who_may_know_what_was_asked(client, db, staff, settings):
    settings.AIML_ENDPOINTS = [("https://one.example", "secret-1", 1.0)]
    for told in (client.get(READY, headers=BEARER), staff("view_run").get(READY)):
        body = told.json()
        assert {name: check["ok"] for name, check in body["checks"].items()} == dict.fromkeys(readiness.CHECKS, True)
        assert list(body["circuits"].values()) == ["closed"]
        assert "secret" not in told.content.decode()


def test_user_who_is_no_staff_hears_no_more(client, alice):
    client.force_login(alice)
    assert client.get(READY).json() == {"ok": True}
    assert client.get(METRICS).status_code == 401


@pytest.mark.parametrize(
    ("given", "status"),
    [({}, 401), ({"authorization": "Bearer "}, 401), ({"authorization": "Basic a-long-token-for-metrics"}, 401),
     ({"authorization": "Bearer a-long-token"}, 401), ({"authorization": "bearer a-long-token-for-metrics"}, 200),
     ({"authorization": "Bearer a-löng-token-for-metrics"}, 401)],
)  # fmt: skip
def test_numbers_are_for_the_token(client, db, given, status):
    answer = client.get(METRICS, headers=given)
    assert answer.status_code == status
    assert ("WWW-Authenticate" in answer) == (status == 401)


def test_without_a_token_nobody_has_it(client, db, settings, staff):
    settings.METRICS_TOKEN = ""
    assert client.get(METRICS, headers={"authorization": "Bearer "}).status_code == 401
    assert staff("view_run").get(METRICS).status_code == 200


def troubles(client):
    answer = client.get(READY, headers=BEARER)
    found = {name: check["trouble"] for name, check in answer.json()["checks"].items() if not check["ok"]}
    assert (answer.status_code, answer.json()["ok"]) == ((503, False) if found else (200, True))
    assert client.get(READY).json() == {"ok": not found}
    return found


def test_storage_that_takes_no_file_is_not_ready(client, db, settings, tmp_path):
    settings.MEDIA_ROOT = tmp_path / "gone"
    assert troubles(client) == {"storage": "FileNotFoundError"}
    assert client.get(METRICS, headers=BEARER).status_code == 200
    settings.CLOUDINARY_URL = "cloudinary://key:secret@cloud"
    assert troubles(client) == {}


def test_disk_that_is_almost_full_is_not_ready(client, db, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(10**10, 10**10 - 1000, 1000))
    assert troubles(client) == {"storage": "the disk is almost full"}
    assert list(Path(configured.MEDIA_ROOT).iterdir()) == []


def test_cache_and_queue_that_are_away_are_not_ready(db):
    found = subprocess_ready(CELERY_BROKER_URL="redis://:secret@127.0.0.1:1/1", REDIS_URL="redis://127.0.0.1:1/0")
    assert set(found) == {"cache", "queue"}
    assert "secret" not in str(found)


def test_database_without_its_tables_is_not_ready(tmp_path):
    found = subprocess_ready(DATABASE_URL=f"sqlite:///{tmp_path}/empty.sqlite3")
    assert set(found) == {"migrations"}
    assert found["migrations"].endswith("migrations are not applied")


def test_database_that_is_away_is_not_ready_and_live_lives():
    found = subprocess_ready(DATABASE_URL="postgres://stefna:secret@127.0.0.1:1/stefna")
    assert set(found) == {"database", "migrations"}
    assert "secret" not in str(found)


ASK = """
from django.test import Client
bearer = {"authorization": "Bearer a-long-token-for-metrics"}
assert Client().get("/healthz/live").status_code == 200
answer = Client().get("/healthz/ready", headers=bearer)
assert (answer.status_code == 200) == answer.json()["ok"]
scrape = Client().get("/metrics", headers=bearer).content.decode()
assert f"stefna_ready {float(answer.json()['ok'])}" in scrape, scrape
print({name: one["trouble"] for name, one in answer.json()["checks"].items() if not one["ok"]})
"""


def subprocess_ready(**environment):
    """Ask a process that has other services than this one; it has this one's database unless it is told of another."""
    given = {"METRICS_TOKEN": "a-long-token-for-metrics", "DATABASE_URL": database_url()} | environment
    done = subprocess.run(
        [sys.executable, "manage.py", "shell", "--no-imports", "-c", ASK],
        cwd=ROOT, env=os.environ | given, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return eval(done.stdout)


def database_url():
    name = connection.settings_dict["NAME"]
    server = "sqlite://" if connection.vendor == "sqlite" else os.environ["DATABASE_URL"].rpartition("/")[0]
    return f"{server}/{name}"


def test_check_that_hangs_is_given_up(client, db, monkeypatch):
    release = threading.Event()
    monkeypatch.setattr(readiness, "LIMIT_SECONDS", 0.05)
    monkeypatch.setitem(readiness.CHECKS, "cache", release.wait)
    found = troubles(client)
    release.set()
    assert found["cache"] == "TimeoutError"


def test_gauges_say_what_the_rows_say(client, db, start, settings):
    settings.AIML_ENDPOINTS = [("https://one.example", "secret-1", 1.0)]
    found = numbers(client.get(METRICS, headers=BEARER))
    assert found["stefna_ready",] == 1
    assert {name for name, *_ in found} >= {
        "stefna_check", "stefna_disk_free_ratio", "stefna_circuit_open", "stefna_worker_seen_timestamp_seconds",
        "stefna_runs_queued", "stefna_runs_running", "stefna_oldest_waiting_seconds", "stefna_runs_ended_recently",
        "stefna_orphans_held_back",
    }  # fmt: skip
    assert found["stefna_runs_ended_recently", ("outcome", "auth")] == 0
    assert "secret" not in str(found)
