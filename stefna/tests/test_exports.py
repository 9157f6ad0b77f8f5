"""Exports: asked for on page and API, made by a worker, kept for a week."""

import io
import json
import os
import subprocess
import sys
import zipfile
from datetime import timedelta

import pytest
from django.core.files.storage import default_storage
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from accounts.models import User
from conftest import in_parallel
from generation import exports, services, sweep
from generation.models import Export, database_time
from notifications.models import Notification
from stefna.tests.app import code
from stefna.tests.stage import just_signed_in

pytestmark = pytest.mark.django_db


@pytest.fixture
def signed_in(alice):
    return just_signed_in(alice)


@pytest.fixture
def export(alice):
    return services.request_export(alice)


def files(settings):
    return [path for path in (settings.MEDIA_ROOT / "exports").rglob("*") if path.is_file()]


def content(answer):
    assert answer["Content-Disposition"] == 'attachment; filename="stefna-export.zip"'
    return zipfile.ZipFile(io.BytesIO(b"".join(answer.streaming_content)))


def failing(settings):
    """Put a file where the folder of exports has to be."""
    (settings.MEDIA_ROOT / "exports").write_bytes(b"in the way")


def try_now():
    Export.objects.update(run_after=None)
    return exports.make_next()


def test_app_asks_waits_and_downloads(alices, bobs, sent, work):
    assert alices("get", "profile/export").json() == {
        "state": "none", "url": None, "bytes": None, "error": None, "created_at": None, "expires_at": None,
    }  # fmt: skip
    run = alices.run(photo_id=sent["id"], preset="duotone").json()
    work()
    asked = alices("post", "profile/export")
    assert (asked.status_code, asked.json()["state"], asked.json()["url"]) == (202, "queued", None)
    # One at a time: it is the same one.
    assert alices("post", "profile/export").json() == asked.json()
    assert exports.make_next()
    assert not exports.make_next()
    ready = alices("get", "profile/export").json()
    assert (ready["state"], ready["error"], ready["created_at"]) == ("ready", None, asked.json()["created_at"])
    # The address is signed: it works without a session, and for its own export alone.
    answer = Client().get(ready["url"])
    assert answer["Cache-Control"] == "private, no-store"
    with content(answer) as archive:
        manifest = json.loads(archive.read("manifest.json"))
        assert manifest["profile"]["email"] == "alice@example.com"
        assert [one["id"] for one in manifest["runs"]] == [run["id"]]
        assert [one["kind"] for one in manifest["notifications"]] == ["run_succeeded"]
        assert manifest["missing"] == []
        for entry in manifest["runs"] + manifest["photos"]:
            assert archive.read(entry["file"])
        # Signatures are for a while and the file is for keeps.
        assert "signature=" not in archive.read("manifest.json").decode()
    unsigned = ready["url"].partition("?")[0]
    assert Client().get(unsigned).status_code == bobs("get", unsigned).status_code == 404
    assert bobs("get", "profile/export").json()["state"] == "none"


def test_user_is_notified_once_and_the_notification_leads_to_the_page(alices, export):
    assert exports.make_next()
    (told,) = alices("get", "notifications").json()["results"]
    assert (told["kind"], told["run"], told["url"]) == ("export_ready", None, "/account/profile/export")
    page = Client()
    page.force_login(export.user)
    assert "Your export is ready" in page.get(told["url"]).content.decode()
    assert Notification.objects.get().read_at


def test_page_shows_each_state_without_javascript(signed_in, alice, settings):
    def page():
        return signed_in.get(reverse("export")).content.decode()

    assert 'href="/account/profile/export"' in signed_in.get(reverse("profile")).content.decode()
    assert "Make an export" in page()
    assert not Export.objects.exists()
    assert signed_in.post(reverse("export"))["Location"] == reverse("export")
    assert "is being prepared" in page()
    assert "Reload the page" in page()
    assert exports.make_next()
    ready = page()
    assert "You can download it until" in ready
    address = reverse("export_download", args=[Export.objects.get().pk])
    assert address in ready
    with content(signed_in.get(address)) as archive:
        assert json.loads(archive.read("manifest.json"))["profile"]["email"] == alice.email
    part = signed_in.get(reverse("export"), headers={"HX-Request": "true"}).content.decode()
    assert address in part
    assert "<html" not in part


def test_third_export_of_a_day_is_the_last(alices, signed_in):
    for _ in range(services.MAX_DAILY_EXPORTS):
        assert alices("post", "profile/export").status_code == 202
        assert exports.make_next()
    refused = alices("post", "profile/export")
    assert code(refused) == (429, "throttled")
    assert 0 < int(refused["Retry-After"]) <= 86_400
    assert "asked for several exports today" in signed_in.post(reverse("export"), follow=True).content.decode()
    Export.objects.update(created_at=timezone.now() - timedelta(days=1, seconds=1))
    assert alices("post", "profile/export").status_code == 202


def test_new_export_replaces_the_earlier_one(alice, settings, django_capture_on_commit_callbacks):
    for _ in range(2):
        services.request_export(alice)
        with django_capture_on_commit_callbacks(execute=True):
            assert exports.make_next()
    assert len(files(settings)) == 1
    assert sorted(Export.objects.values_list("state", flat=True)) == ["expired", "ready"]


@pytest.mark.django_db(transaction=True)
def test_many_requests_at_once_are_one_export(alice):
    made = in_parallel(10, lambda number: services.request_export(alice))
    assert {getattr(one, "pk", one) for one in made} == {Export.objects.get().pk}


@pytest.mark.django_db(transaction=True)
def test_many_workers_make_it_once(export, settings):
    assert sorted(in_parallel(6, lambda number: exports.make_next())) == [False] * 5 + [True]
    assert len(files(settings)) == 1
    assert Notification.objects.count() == 1


def test_storage_that_is_away_is_tried_again_and_then_said(alices, signed_in, export, settings):
    failing(settings)
    assert exports.make_next()
    export.refresh_from_db()
    assert (export.state, export.error_code, export.failures) == ("queued", "storage_unavailable", 1)
    # Later, and not at once.
    assert not exports.make_next()
    while try_now():
        pass
    answer = alices("get", "profile/export").json()
    assert answer["state"] == "failed"
    sentence = "Your export could not be made. Please try again later."
    assert answer["error"] == {"code": "storage_unavailable", "message": sentence, "retryable": True}
    assert sentence in signed_in.get(reverse("export")).content.decode()
    assert not Notification.objects.exists()
    (settings.MEDIA_ROOT / "exports").unlink()
    assert alices("post", "profile/export").json()["state"] == "queued"
    assert exports.make_next()
    assert alices("get", "profile/export").json()["state"] == "ready"


def test_storage_that_is_back_in_between_costs_nothing(export, settings):
    failing(settings)
    assert exports.make_next()
    (settings.MEDIA_ROOT / "exports").unlink()
    assert try_now()
    export.refresh_from_db()
    assert (export.state, export.error_code) == ("ready", "")


def test_file_that_is_gone_is_named_and_the_rest_is_there(signed_in, photo, alice, start, work):
    run = start()
    work()
    default_storage.delete(photo.file.name)
    export = services.request_export(alice)
    assert exports.make_next()
    run.refresh_from_db()
    with content(signed_in.get(reverse("export_download", args=[export.pk]))) as archive:
        assert json.loads(archive.read("manifest.json"))["missing"] == [photo.file.name]
        assert set(archive.namelist()) == {run.result.name, "manifest.json"}


def test_export_of_a_killed_worker_is_taken_over(export):
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    assert Export.objects.claim(f"{sweep._HOST}:{process.pid}:other")
    assert not exports.make_next()
    process.kill()
    process.wait()
    assert exports.make_next()
    export.refresh_from_db()
    assert (export.state, export.failures) == ("ready", 1)


def test_export_whose_lease_ended_is_taken_over_and_the_late_worker_changes_nothing(export, settings):
    late = Export.objects.claim("elsewhere:1:slow")
    Export.objects.update(leased_until=database_time(-timedelta(seconds=1)))
    assert exports.make_next()
    assert not late.renew_lease()
    assert not late.requeue(code="storage_unavailable")
    assert not late.fail("storage_unavailable")
    assert not late.finish(file="exports/x", size=1)
    exports._finish(late, "exports/ab/late.zip", 1)
    export.refresh_from_db()
    assert (export.state, Notification.objects.count(), len(files(settings))) == ("ready", 1, 1)


def test_export_that_kills_its_workers_is_given_up(export):
    Export.objects.update(failures=exports.MAX_FAILURES - 1)
    assert Export.objects.claim("elsewhere:1:dead")
    Export.objects.update(leased_until=database_time(-timedelta(seconds=1)))
    assert exports.make_next()
    export.refresh_from_db()
    assert (export.state, export.error_code) == ("failed", "worker_crashed")


def test_worker_that_stops_hands_the_export_back(export, photo, settings):
    assert exports.make_next(lambda: True)
    export.refresh_from_db()
    assert (export.state, export.failures, files(settings)) == ("queued", 0, [])
    assert exports.make_next()


def test_file_is_deleted_after_a_week(signed_in, export, settings, django_capture_on_commit_callbacks):
    assert exports.make_next()
    address = reverse("export_download", args=[export.pk])
    with django_capture_on_commit_callbacks(execute=True):
        assert sweep.clean_up()["expired_exports"] == 0
    assert signed_in.get(address).status_code == 200
    Export.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert signed_in.get(address).status_code == 404
    with django_capture_on_commit_callbacks(execute=True):
        assert sweep.clean_up()["expired_exports"] == 1
    assert files(settings) == []
    assert "Make an export" in signed_in.get(reverse("export")).content.decode()
    Export.objects.update(created_at=timezone.now() - timedelta(days=8))
    sweep.clean_up()
    assert not Export.objects.exists()


@pytest.mark.parametrize("end", ["delete", "adopt"])
def test_file_goes_with_the_account(alice, settings, end, django_capture_on_commit_callbacks):
    user = User.objects.guest("key")
    services.request_export(user)
    assert exports.make_next()
    assert len(files(settings)) == 1
    with django_capture_on_commit_callbacks(execute=True):
        if end == "delete":
            services.delete_account(user)
        else:
            services.adopt_guest(guest=user, user=alice)
    assert files(settings) == []
    assert not Export.objects.exists()


def test_file_without_a_row_is_an_orphan(export, settings):
    assert exports.make_next()
    for path in files(settings):
        os.utime(path, (0, 0))
    assert sweep.clean_up()["orphaned_files"] == 0
    Export.objects.all().delete()
    assert sweep.clean_up()["orphaned_files"] == 1
    assert files(settings) == []


def test_account_that_is_deleted_meanwhile_leaves_no_file(alice, settings, django_capture_on_commit_callbacks):
    services.request_export(alice)
    claimed = Export.objects.claim(sweep.WORKER_NAME)
    with django_capture_on_commit_callbacks(execute=True):
        exports._store(claimed, "exports/ab/late.zip", lambda: False)
        services.delete_account(User.objects.get(pk=alice.pk))
        exports._finish(claimed, "exports/ab/late.zip", 1)
    assert files(settings) == []
