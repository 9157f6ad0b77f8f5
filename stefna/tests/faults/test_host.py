"""Cache, disk, memory and clock that misbehave: rows D5 to D10 of docs/faults.md.

The server is a process of its own, and what it lacks it really lacks: its limits are set from outside.
"""

import contextlib
import io
import json
import os
import re
import resource
import socket
import time
from datetime import timedelta
from pathlib import Path

import pytest
import time_machine
from django.conf import settings as django_settings
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from PIL import Image

from conftest import small
from generation import attempts, sweep
from generation.models import Run
from stefna.tests.faults.web import Web, signed_in
from stefna.tests.waiting import wait_until

# -- Redis -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("redis", ["away", "silent"])
def test_installation_goes_on_without_redis(install, tmp_path, redis):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        if redis == "away":
            silent.close()
        page = Web(install, tmp_path, REDIS_URL=f"redis://127.0.0.1:{port}/0")
        member = page.server.call("member")
        assert page.status("/", **signed_in(member)) == 200
        accepted = page.post_photo(member, small("coffee"))
        assert accepted.status == 202
        run = json.loads(accepted.text)["id"]

        def done():
            answer = page.ask("GET", f"/api/v1/runs/{run}", **signed_in(member))
            assert answer.status == 200
            return json.loads(answer.text)["status"] == "succeeded"

        wait_until(done)
        page.end()
    # A silent one is waited for once, and not at every step.
    assert page.log().count("cache_away") == 1


# -- Disk, memory, files ---------------------------------------------------------------------------------------


def pictures_of(server):
    return {path for path in (server.state / "media").rglob("*") if path.is_file()}


@pytest.mark.parametrize("size", [300, 4_000_000], ids=["in memory", "through a temporary file"])
def test_disk_that_takes_nothing_more_is_503_and_leaves_no_file(web, size):
    member = web.server.call("member")
    data = small("coffee") + bytes(size)
    before = pictures_of(web.server)
    # Every write of more than nothing fails: pictures, temporary files, the database, and the log.
    with web.limited(resource.RLIMIT_FSIZE, 0):
        refused = web.post_photo(member, data)
        assert refused.status == 503
        assert json.loads(refused.text)["code"] in ("service_unavailable", "storage_unavailable")
        assert web.status("/healthz/ready") == 503
        assert web.status("/healthz/live") == 200
        assert pictures_of(web.server) == before
    assert web.server.call("rows", email=member["email"]) == [0, 0, 0]
    assert web.post_photo(member, data).status == 202
    assert web.status("/healthz/ready") == 200


def test_photo_that_memory_does_not_suffice_for_is_refused_and_nobody_dies(web):
    member = web.server.call("member")
    assert web.post_photo(member, small("coffee"), key="1").status == 202
    wait_until(lambda: {status for status, *_ in web.server.call("ended")} == {"succeeded"})
    file = io.BytesIO()
    # A PNG has to be decoded in full, which takes 100 MB here.
    Image.new("RGB", (6000, 6000), "teal").save(file, "PNG", compress_level=1)
    worker = web.worker
    before = {}
    for child in web.image_processes:
        before[child] = resource.prlimit(child, resource.RLIMIT_AS)
        used = int(Path(f"/proc/{child}/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.prlimit(child, resource.RLIMIT_AS, (used + 16_000_000, before[child][1]))
    assert web.post_photo(member, file.getvalue(), key="2").status == 422
    for child, limit in before.items():
        resource.prlimit(child, resource.RLIMIT_AS, limit)
    assert web.post_photo(member, file.getvalue(), key="3").status == 202
    assert web.worker == worker


def test_process_without_file_descriptors_recovers(web):
    member = web.server.call("member")
    with web.limited(resource.RLIMIT_NOFILE, 64):
        idle = [socket.create_connection(("127.0.0.1", web.port)) for _ in range(80)]
        time.sleep(0.5)
        with contextlib.suppress(OSError):
            assert web.ask("GET", "/", timeout=3, **signed_in(member)).status in (200, 503)
        for one in idle:
            one.close()
        wait_until(lambda: web.status("/healthz/live") == 200)
        assert web.post_photo(member, small("coffee")).status == 202
    assert "Internal Server Error" not in web.log()


# -- Clock -----------------------------------------------------------------------------------------------------


@pytest.mark.django_db
@pytest.mark.parametrize("hours", [1, -1], ids=["ahead", "behind"])
def test_worker_with_a_wrong_clock_takes_no_run_from_another_and_leaves_none(start, work, hours):
    run, later = start(), start(seed=3)
    wrong = timezone.now() + timedelta(hours=hours)
    with time_machine.travel(wrong):
        held = Run.objects.claim(run.pk, "elsewhere:1:wrong")
    held.refresh_from_db()
    # By the database's clock: as long from now as a lease is, whatever the worker believes.
    lease = (held.leased_until - timezone.now()).total_seconds()
    assert 0 < lease <= django_settings.RUN_LEASE_SECONDS
    with time_machine.travel(wrong):
        assert Run.objects.claim(run.pk, "elsewhere:2:wrong") is None
        assert sweep.take_over_lost_runs() == 0
        # One that waits for its turn is not due any sooner or later.
        Run.objects.filter(pk=later.pk).update(run_after=timezone.now() - timedelta(hours=hours, seconds=-60))
        assert later.pk not in Run.objects.due().values_list("pk", flat=True)
        Run.objects.filter(pk=later.pk).update(run_after=None)
        attempts.process_run(held)
        work()
    assert set(Run.objects.values_list("status", flat=True)) == {"succeeded"}


@pytest.mark.django_db
def test_ages_on_pages_are_never_negative(start, work, alice):
    with time_machine.travel(timezone.now() + timedelta(hours=1)):
        run = start()
        work()
    run.refresh_from_db()
    browser = Client()
    browser.force_login(alice)
    for address in (run.get_absolute_url(), reverse("history"), reverse("notification_list"), reverse("profile")):
        said = browser.get(address).content.decode()
        assert "from now" not in said
        assert not re.search(r">\s*[-−]\d", said)
