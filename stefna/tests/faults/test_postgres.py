"""PostgreSQL that breaks off what it was doing, or is away: rows D2 and D3 of docs/faults.md."""

import contextlib
import json
import threading

import psycopg
import pytest
from django.db import connection

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
