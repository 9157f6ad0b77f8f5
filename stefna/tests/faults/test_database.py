"""A database that is locked, or refuses: rows D1 and D2 of docs/faults.md."""

import contextlib
import json
import sqlite3
import threading
import time

import psycopg
import pytest
from django.db import connection

from conftest import small
from generation import attempts
from generation.models import IdempotencyKey, Run
from notifications.models import Notification
from stefna.tests.app import code
from stefna.tests.faults.web import Web, signed_in, until


@contextlib.contextmanager
def write_lock(server):
    """Hold SQLite's only write lock, as a backup or a program of the owner may."""
    other = sqlite3.connect(server.state / "db.sqlite3", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


def test_lock_of_three_seconds_fails_no_request(web):
    member = web.server.call("member")
    answers = []

    def ask(number):
        mine = Web.__new__(Web)
        mine.port = web.port
        answers.append(mine.post_photo(member, small("coffee"), key=str(number)))
        answers.append(mine.get("/", **signed_in(member)))

    with write_lock(web.server):
        asking = [threading.Thread(target=ask, args=(number,)) for number in range(5)]
        for thread in asking:
            thread.start()
        time.sleep(3)
        assert 202 not in answers
    for thread in asking:
        thread.join(60)
    assert sorted(answers) == [200] * 5 + [202] * 5


def test_lock_that_lasts_is_503_and_leaves_nothing(web):
    member = web.server.call("member")
    with write_lock(web.server):
        # Longer than a connection waits.
        assert web.post_photo(member, small("coffee")) == 503
        assert (web.headers["Retry-After"], json.loads(web.body)["code"]) == ("5", "service_unavailable")
    assert web.server.call("rows", email=member["email"]) == [0, 0, 0]
    assert web.post_photo(member, small("coffee")) == 202


needs_postgres = pytest.mark.skipif(
    connection.vendor != "postgresql", reason="SQLite has one lock, so nobody waits for each other"
)


@contextlib.contextmanager
def deadlock_with(first, second):
    """Hold a row, and ask for another as soon as somebody who has that one waits for the first: one of us must fail."""
    facts = connection.settings_dict
    options = {"host": facts["HOST"], "port": facts["PORT"], "user": facts["USER"], "dbname": facts["NAME"]}
    other = psycopg.connect(**{name: value for name, value in options.items() if value})
    other.execute("SET deadlock_timeout = '1min'")
    other.execute(*first)

    def ask():
        until(lambda: watching.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone()[0])
        other.execute(*second)
        other.rollback()

    watching = psycopg.connect(**{name: value for name, value in options.items() if value}, autocommit=True)
    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield
    finally:
        asking.join(30)
        other.close()
        watching.close()


def row(table, column, value):
    return f"SELECT 1 FROM {table} WHERE {column} = %s FOR UPDATE", [value]


@needs_postgres
@pytest.mark.django_db(transaction=True)
def test_request_in_a_deadlock_is_503_and_leaves_nothing(alices, alice, sent):
    with deadlock_with(row("generation_photo", "id", sent["id"]), row("accounts_profile", "user_id", alice.pk)):
        answer = alices.run(photo_id=sent["id"], preset="duotone", key="k")
    assert code(answer) == (503, "service_unavailable")
    assert answer["Retry-After"] == "5"
    assert (Run.objects.count(), IdempotencyKey.objects.count()) == (0, 0)
    assert alices.run(photo_id=sent["id"], preset="duotone", key="k").status_code == 202


@needs_postgres
@pytest.mark.django_db(transaction=True)
def test_worker_in_a_deadlock_ends_its_run_all_the_same(start, alice):
    run = Run.objects.claim(start().pk, "w:1:x")
    whole = attempts.end

    def end(run, change):
        with deadlock_with(row("generation_run", "id", run.pk), row("accounts_profile", "user_id", alice.pk)):
            attempts.end = whole
            return whole(run, change)

    attempts.end = end
    try:
        attempts.process_run(run)
    finally:
        attempts.end = whole
    run.refresh_from_db()
    assert (run.status, Notification.objects.filter(subject=run.pk).count()) == ("succeeded", 1)
