"""SQLite that somebody else holds: rows D1 and D2 of docs/faults.md."""

import contextlib
import json
import sqlite3
import threading
import time

from conftest import small
from stefna.tests.faults.web import signed_in
from stefna.tests.waiting import WAIT_SECONDS


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
        answers.append(web.post_photo(member, small("coffee"), key=str(number)).status)
        answers.append(web.status("/", **signed_in(member)))

    with write_lock(web.server):
        asking = [threading.Thread(target=ask, args=(number,)) for number in range(5)]
        for thread in asking:
            thread.start()
        time.sleep(3)
        assert 202 not in answers
    for thread in asking:
        thread.join(WAIT_SECONDS)
    assert sorted(answers) == [200] * 5 + [202] * 5


def test_lock_that_lasts_is_503_and_leaves_nothing(web):
    member = web.server.call("member")
    with write_lock(web.server):
        # Longer than a connection waits.
        refused = web.post_photo(member, small("coffee"))
        assert refused.status == 503
        assert (refused.headers["Retry-After"], json.loads(refused.text)["code"]) == ("5", "service_unavailable")
    assert web.server.call("rows", email=member["email"]) == [0, 0, 0]
    assert web.post_photo(member, small("coffee")).status == 202
