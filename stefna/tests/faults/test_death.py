"""Processes that die: rows K1 to K10 of docs/faults.md. Each dies by SIGKILL, at the place that its row names."""

import os
import signal
import socket
import time
from contextlib import suppress

import pytest
from django.core.files.storage import default_storage
from django.db import connections

from conftest import small
from generation import attempts, services, sweep, tasks
from generation.models import Run
from generation.providers import aiml
from generation.tests.conftest import standin, upstreams  # noqa: F401  (fixtures)
from notifications.models import Notification
from stefna.tests.faults.files import FORM
from stefna.tests.faults.web import Web, form, signed_in
from stefna.tests.waiting import WAIT_SECONDS, wait_until

pytestmark = pytest.mark.django_db(transaction=True)


def die(*arguments, **options):
    os.kill(os.getpid(), signal.SIGKILL)


def die_after(call):
    def call_and_die(*arguments, **options):
        call(*arguments, **options)
        die()

    return call_and_die


def worked_on_by_a_process_that_dies(run, where=None, name="", what=die, *, when=None):
    """Work on a run in a process of its own, which dies where one of its functions is called, or when it is killed."""
    connections.close_all()
    pid = os.fork()
    if pid == 0:
        with suppress(BaseException):
            # The number of its parent would make it look alive when it is not.
            sweep.WORKER_NAME = f"{sweep._HOST}:{os.getpid()}:mortal"
            if where:
                setattr(where, name, what)
            tasks.process(run.pk)
        os._exit(1)
    if when:
        while not when():
            time.sleep(0.01)
        os.kill(pid, signal.SIGKILL)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL


PLACES = {
    "K1 claimed": ({"where": attempts, "name": "_attempt"}, ("submitting", ""), 0),
    "K2 before it is sent": ({"where": aiml, "name": "_called"}, ("generating", ""), 0),
    "K4 answered": ({"where": aiml, "name": "_picture"}, ("storing", "url"), 1),
    "K5 one file is stored": (
        {"where": default_storage, "name": "save", "what": die_after(default_storage.save)},
        ("storing", "url"),
        1,
    ),
    "K6 stored": ({"where": attempts, "name": "end"}, ("storing", "url"), 1),
}


@pytest.mark.parametrize("place", PLACES)
def test_killed_worker_costs_no_second_call(upstreams, start, work, place, monkeypatch):  # noqa: F811
    run = start()
    how, (phase, url), calls = PLACES[place]
    worked_on_by_a_process_that_dies(run, **how)
    run.refresh_from_db()
    assert (run.status, run.phase, bool(run.result_url)) == ("running", phase, bool(url))
    assert upstreams.counts()["aiml"]["calls"] == calls
    # Of a process that died before it sent nobody can know that it did not.
    ends_once(run, upstreams, work, calls=1, possible_cost=int(phase == "generating"))
    # What the dead one had stored is nobody's, and goes.
    monkeypatch.setattr(sweep, "ORPHAN_SECONDS", -60)
    sweep.clean_up()
    kept = {run.result.name, run.thumbnail.name, run.photo.file.name, run.photo.thumbnail.name}
    assert {one["public_id"] for one in upstreams.stored()} == {name.rpartition(".")[0] for name in kept}


def test_worker_killed_while_it_waits_costs_one_more_call(upstreams, start, work):  # noqa: F811
    run = start()
    upstreams.defaults(aiml_delay=30)
    worked_on_by_a_process_that_dies(run, when=lambda: upstreams.counts()["aiml"]["in_flight"])
    upstreams.defaults(aiml_delay=0)
    ends_once(run, upstreams, work, calls=2, possible_cost=1)


def ends_once(run, upstreams, work, *, calls, possible_cost):  # noqa: F811
    # Nobody waits for the lease of a process of the same host that is gone; of another host, for the lease.
    assert sweep.take_over_lost_runs() == 1
    work()
    run.refresh_from_db()
    assert (run.status, run.attempts, run.crashes, run.possible_cost) == ("succeeded", 2, 1, possible_cost)
    assert Notification.objects.filter(subject=run.pk).count() == 1
    assert upstreams.counts()["aiml"]["calls"] == calls


def test_third_death_fails_the_run_and_the_next_one_is_made(upstreams, start, work):  # noqa: F811
    run, other = start(), start(seed=7)
    for _ in range(sweep.MAX_CRASHES):
        worked_on_by_a_process_that_dies(run, attempts, "_attempt")
        sweep.take_over_lost_runs()
    run.refresh_from_db()
    assert (run.status, run.error_code, run.attempts) == ("failed", "worker_crashed", sweep.MAX_CRASHES)
    assert work() == 1
    other.refresh_from_db()
    assert other.status == "succeeded"
    assert sorted(Notification.objects.values_list("kind", flat=True)) == ["run_failed", "run_succeeded"]


# -- The process that serves pages -----------------------------------------------------------------------------


def test_server_told_to_stop_finishes_what_it_makes(install, tmp_path, standin):  # noqa: F811
    standin.reset()
    standin.defaults(aiml_delay=2)
    web = Web(install, tmp_path, **standin.environment())
    try:
        web.server.call("run", email=web.server.call("member")["email"], state="queued")
        wait_until(lambda: standin.counts()["aiml"]["in_flight"] == 1)
        web.process.terminate()
        assert web.process.wait(WAIT_SECONDS) == 0
        assert web.server.call("ended") == [["succeeded", 1, 1]]
    finally:
        web.end()


def test_server_killed_in_an_upload_leaves_nothing_that_stays(server):
    member = server.call("member")
    uploads = server.state / "tmp"
    # What follows a JPEG in its file is not looked at; this much of it goes through a temporary file.
    body = form(small("portrait") + bytes(4_000_000))
    server.start()
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(request(member, body) + body[:3_500_000])
        wait_until(lambda: any(uploads.iterdir()))
        server.kill()
    assert server.call("rows", email=member["email"]) == [0, 0, 0]
    (left,) = uploads.iterdir()
    os.utime(left, (0, 0))
    assert server.call("clean_up")["unfinished_uploads"] == 1
    assert list(uploads.iterdir()) == []
    server.start()
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(request(member, body) + body)
        assert connection.recv(100).split()[1] == b"202"
    assert server.call("rows", email=member["email"]) == [1, 1, 1]


def request(member, body):
    headers = {"Host": "127.0.0.1", "Idempotency-Key": "k", "Connection": "close"} | signed_in(member)
    headers |= {"Content-Type": FORM, "Content-Length": len(body)}
    lines = [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(["POST /api/v1/runs HTTP/1.1", *lines, "", ""]).encode()


def test_answer_that_was_never_sent_is_given_to_who_asks_again(alices, alice, sent, preset):
    # Killed between the commit and the answer: run and key are there, what was said about them is not.
    run = services.start_run(user=alice, photo=alice.photos.get(), preset=preset, key="k")
    answer = alices.run(photo_id=sent["id"], preset=preset.slug, key="k")
    assert (answer.status_code, answer["Idempotent-Replayed"]) == (202, "true")
    assert answer.json()["id"] == str(run.pk) == str(Run.objects.get().pk)
