"""PostgreSQL that breaks off what it was doing, or is away: rows D2 and D3 of docs/faults.md."""

import contextlib
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from django.db import connection

from accounts import database
from conftest import small
from generation import attempts
from generation.models import IdempotencyKey, Run
from notifications.models import Notification
from stefna.tests.app import code
from stefna.tests.faults.web import Web, signed_in
from stefna.tests.test_workers import Gate
from stefna.tests.waiting import WAIT_SECONDS, wait_until

pytestmark = pytest.mark.django_db(transaction=True)


@contextlib.contextmanager
def deadlock_with(first, second):
    """Hold a row, and ask for another as soon as somebody who has that one waits for the first: one of us must fail."""
    facts = connection.settings_dict
    options = {"host": facts["HOST"], "port": facts["PORT"], "user": facts["USER"], "dbname": facts["NAME"]}
    other = psycopg.connect(**{name: value for name, value in options.items() if value})
    other.execute("SET deadlock_timeout = '1min'")
    other.execute(*first)

    # In this database: another process of the suite may wait in its own.
    waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"

    def ask():
        wait_until(lambda: watching.execute(waits).fetchone()[0])
        other.execute(*second)
        other.rollback()

    watching = psycopg.connect(**{name: value for name, value in options.items() if value}, autocommit=True)
    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield
    finally:
        asking.join(WAIT_SECONDS)
        other.close()
        watching.close()


def row(table, column, value):
    return f"SELECT 1 FROM {table} WHERE {column} = %s FOR UPDATE", [value]


def test_request_in_a_deadlock_is_503_and_leaves_nothing(alices, alice, sent):
    with deadlock_with(row("generation_photo", "id", sent["id"]), row("accounts_profile", "user_id", alice.pk)):
        answer = alices.run(photo_id=sent["id"], preset="duotone", key="k")
    assert code(answer) == (503, "service_unavailable")
    assert answer["Retry-After"] == "5"
    assert (Run.objects.count(), IdempotencyKey.objects.count()) == (0, 0)
    assert alices.run(photo_id=sent["id"], preset="duotone", key="k").status_code == 202


def test_worker_in_a_deadlock_ends_its_run_all_the_same(start, alice, monkeypatch):
    run = Run.objects.claim(start().pk, "w:1:x")
    whole = attempts.end

    def end(run, change):
        monkeypatch.undo()
        with deadlock_with(row("generation_run", "id", run.pk), row("accounts_profile", "user_id", alice.pk)):
            return whole(run, change)

    monkeypatch.setattr(attempts, "end", end)
    attempts.process_run(run)
    run.refresh_from_db()
    assert (run.status, Notification.objects.filter(subject=run.pk).count()) == ("succeeded", 1)


def test_database_that_is_away_is_said_and_nobody_has_to_be_restarted(install, tmp_path, client, alice, preset):
    client.force_login(alice)
    member = {"cookie": "sessionid", "session": client.cookies["sessionid"].value}
    facts = connection.settings_dict
    gate = Gate(facts["PORT"] or 5432)
    address = f"postgres://{facts['USER']}@127.0.0.1:{gate.port}/{facts['NAME']}"
    web = Web(install, tmp_path, DATABASE_URL=address)
    try:
        assert web.status("/healthz/ready") == 200
        gate.shut()
        page = web.ask("GET", "/", **signed_in(member))
        assert (page.status, page.headers["Retry-After"]) == (503, "5")
        assert "<html" in page.text
        answer = web.post_photo(member, small("coffee"))
        assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
        assert json.loads(answer.text)["code"] == "service_unavailable"
        assert web.status("/healthz/live") == 200
        assert web.status("/healthz/ready") == 503
        gate.open()
        wait_until(lambda: web.status("/", **signed_in(member)) == 200)
        assert web.post_photo(member, small("coffee")).status == 202
        # The threads that work on runs have waited too.
        wait_until(lambda: Run.objects.get().status == "succeeded")
        assert Notification.objects.count() == 1
    finally:
        web.end()


def address():
    facts = connection.settings_dict
    return f"postgres://{facts['USER']}@{facts['HOST'] or '127.0.0.1'}:{facts['PORT'] or 5432}/{facts['NAME']}"


@pytest.fixture
def served(install, tmp_path, catalogue):
    """The pages of this database, without anybody who works on runs."""
    web = Web(install, tmp_path, DATABASE_URL=address(), RUN_WORKER_THREADS="0", PAGE_LOCK_SECONDS="1")
    yield web
    web.end()
    # A test that cuts connections has cut those of this process too, and its pool would look for them.
    connection.close()
    connection.close_pool()


@contextlib.contextmanager
def locked(table):
    with psycopg.connect(address()) as other:
        other.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        yield
        other.rollback()


def test_locked_table_is_503_for_who_needs_it_and_nothing_for_others(served, client, alice, photo):
    client.force_login(alice)
    member = signed_in({"cookie": "sessionid", "session": client.cookies["sessionid"].value})
    assert served.status("/runs/", **member) == 200

    def timed(path, **headers):
        started = time.monotonic()
        answer = served.ask("GET", path, **headers)
        return answer.status, answer.headers["Retry-After"], time.monotonic() - started

    # More of them than there are connections.
    with locked("generation_run"), ThreadPoolExecutor(40) as threads:
        waiting = [threads.submit(timed, "/runs/", **member) for _ in range(24)]
        others = [threads.submit(timed, "/") for _ in range(8)]
        assert [other.result()[0] for other in others] == [200] * 8
        for one in waiting:
            status, again, seconds = one.result()
            assert (status, again) == (503, "5")
            # Not a limit of the machine: the lock would be held for as long as this block.
            assert seconds < WAIT_SECONDS
        answer = served.ask("GET", "/api/v1/runs", **member)
        assert (answer.status, json.loads(answer.text)["code"]) == (503, "service_unavailable")
    wait_until(lambda: served.status("/runs/", **member) == 200)


def test_connections_that_the_database_cuts_are_replaced_before_anybody_notices(served, client, alice):
    client.force_login(alice)
    member = signed_in({"cookie": "sessionid", "session": client.cookies["sessionid"].value})
    with ThreadPoolExecutor(12) as threads:
        assert set(threads.map(lambda _: served.status("/runs/", **member), range(24))) == {200}
        with psycopg.connect(address(), autocommit=True) as other:
            ours = "datname = current_database() AND application_name = '' AND pid <> pg_backend_pid()"
            kept = connection.connection.info.backend_pid if connection.connection else 0
            cut = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {ours} AND pid <> {kept}"
            assert other.execute(cut).fetchall()
        assert set(threads.map(lambda _: served.status("/runs/", **member), range(24))) == {200}


def limits():
    with connection.cursor() as cursor:
        found = []
        for name in database.PARAMETERS:
            cursor.execute(f"SHOW {name}")
            found.append(cursor.fetchone()[0])
    return found


def test_commands_have_no_limits_and_each_thread_its_own(db, settings):
    settings.PAGE_LOCK_SECONDS, settings.WORKER_LOCK_SECONDS = 3, 60
    before = limits()
    assert before == ["0", "0", "0"]
    with database.limited(database.for_pages()):
        assert limits() == ["10s", "3s", "1min"]
        with database.limited(database.for_workers()):
            assert limits() == ["2min", "1min", "1min"]
            with database.limited(database.UNLIMITED):
                assert limits() == before
        assert limits() == ["10s", "3s", "1min"]
    assert limits() == before
