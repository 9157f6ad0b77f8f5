"""The API as a mobile client has it: over HTTP, with a session token and an app key, from signing up to the end."""

import contextlib
import io
import runpy
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import structlog
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import call_command
from django.db import connections
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from PIL import Image
from rest_framework.throttling import SimpleRateThrottle

from accounts.models import Profile, User
from conftest import small
from generation.long_polls import MAX_WAITING, MAX_WAITING_PER_USER, places
from generation.models import Photo, Preset, Run
from notifications.models import Notification
from stefna.tests.app import App, code
from stefna.tests.conftest import ROOT

pytestmark = pytest.mark.django_db
NOBODYS = "5f0c7d52-2a0f-4a4e-9a0a-6a4f3f0f7c11"


# -- The journey ---------------------------------------------------------------------------------------------


def test_from_sign_up_to_download_and_delete(app, work):
    assert app.sign("signup", "carol@example.com", "a-password-of-carol").status_code == 200
    pong = app("get", "ping").json()
    assert (pong["ok"], pong["message"], set(pong)) == (True, "pong", {"ok", "message", "timestamp", "devMode"})
    presets = app("get", "presets").json()
    assert len(presets) == 34
    assert presets[0]["slug"] == "express_enhance"

    photo = app("post", "photos", files={"photo": SimpleUploadedFile("me.jpg", small("coffee"))})
    assert (photo.status_code, photo["Location"]) == (201, f"/api/v1/photos/{photo.json()['id']}")
    again = app("post", "photos", files={"photo": SimpleUploadedFile("me.jpg", small("coffee"))})
    assert (again.status_code, again.json()["id"]) == (200, photo.json()["id"])

    started = app.run(photo_id=photo.json()["id"], preset="express_enhance", seed=7)
    assert (started.status_code, started["Location"]) == (202, f"/api/v1/runs/{started.json()['id']}")
    run = started.json()
    assert (run["status"], run["phase"], run["preset"]["slug"], run["result"]) == (
        "queued", "queued", "express_enhance", None,
    )  # fmt: skip
    assert (run["queue_position"], run["poll_after_ms"], run["counted"]) == (1, 1000, True)

    assert work() == 1
    run = app("get", f"runs/{run['id']}").json()
    assert (run["status"], run["phase"], run["error"], run["poll_after_ms"]) == ("succeeded", "done", None, None)
    assert run["timings"]["total_ms"] >= 0
    # Its addresses work without signing in, for whoever was given them.
    picture = app.client.get(run["result"]["url"])
    size = Image.open(io.BytesIO(b"".join(picture.streaming_content))).size
    assert size == (run["result"]["width"], run["result"]["height"])
    download = app("get", f"runs/{run['id']}/download?format=webp")
    assert download["Content-Type"] == "image/webp"
    assert "attachment" in download["Content-Disposition"]

    news = app("get", "notifications?unread=true").json()
    assert (news["profile_ready"], news["unread_count"], news["results"][0]["run"]) == (True, 1, run["id"])
    assert app("post", "notifications/read", {"all": True}).json() == {"unread_count": 0}

    favourite = app("patch", f"runs/{run['id']}", {"favourite": True})
    assert favourite.json()["favourite"] is True
    assert app("delete", f"runs/{run['id']}").status_code == 204
    assert code(app("get", f"runs/{run['id']}")) == (404, "not_found")
    assert app("get", "profile").json()["quota"]["used"] == 1
    assert app("delete", "profile", {"password": "a-password-of-carol"}).status_code == 204
    assert not User.objects.filter(email="carol@example.com").exists()
    assert code(app("get", "ping")) == (401, "not_authenticated")


def test_token_that_ends_in_mid_run_leaves_the_run_as_it_is(alices, sent, work):
    run = alices.run(photo_id=sent["id"], preset="noir_classic").json()
    assert alices("delete", "/_allauth/app/v1/auth/session").status_code == 401
    answer = alices("get", f"runs/{run['id']}")
    assert code(answer) == (401, "not_authenticated")
    assert answer["WWW-Authenticate"] == 'Bearer realm="stefna"'
    work()
    alices.token = None
    alices.sign("login", "alice@example.com", "a-password-of-alice")
    assert alices("get", f"runs/{run['id']}").json()["status"] == "succeeded"


# -- Who is calling ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Authorization": "", "X-App-Key": ""}, (401, "not_authenticated")),
        ({"Authorization": "Bearer wrong"}, (401, "not_authenticated")),
        ({"X-App-Key": "wrong"}, (401, "app_key_invalid")),
        ({"X-App-Key": "de"}, (401, "app_key_invalid")),
        ({"X-App-Key": ""}, (401, "app_key_invalid")),
    ],
)
def test_wrong_credentials_are_401_with_a_challenge(alices, headers, expected):
    answer = alices("get", "ping", **headers)
    assert code(answer) == expected
    assert answer["WWW-Authenticate"] == 'Bearer realm="stefna"'


def test_no_key_is_accepted_where_none_is_configured(alices, settings):
    settings.APP_KEYS = {}
    assert code(alices("get", "ping")) == (401, "app_key_invalid")


def test_header_names_do_not_depend_on_case_and_either_header_carries_the_token(alices):
    token, alices.token = alices.token, None
    assert alices("get", "ping", **{"x-session-token": token, "x-APP-key": "dev"}).status_code == 200
    assert alices("get", "ping", authorization=f"bearer {token}").status_code == 200


def test_staff_and_the_deactivated_are_refused(alices, alice):
    for change in ({"is_staff": True}, {"is_staff": False, "is_active": False}):
        User.objects.filter(pk=alice.pk).update(**change)
        assert code(alices("get", "ping")) == (401, "not_authenticated")


def test_page_needs_its_csrf_token(alice, catalogue):
    from django.test import Client

    strict = Client(enforce_csrf_checks=True)
    strict.force_login(alice)
    assert strict.get("/api/v1/ping").status_code == 200
    answer = strict.post("/api/v1/ping")
    assert (answer.status_code, answer.json()["code"]) == (403, "csrf_failed")


def test_developer_needs_no_sign_in_only_with_debug(client, settings, catalogue):
    from rest_framework.test import APIRequestFactory

    from accounts.authentication import DeveloperWithoutSignIn

    request = APIRequestFactory().get("/api/v1/ping")
    settings.DEV_ALLOW_NOAUTH, settings.DEBUG = True, False
    assert DeveloperWithoutSignIn().authenticate(request) is None
    settings.DEBUG = True
    assert DeveloperWithoutSignIn().authenticate(request)[0].email == "developer@stefna.invalid"


# -- Asking for runs -----------------------------------------------------------------------------------------


def test_same_key_and_request_is_answered_with_the_same_words(alices, sent, work):
    first = alices.run(photo_id=sent["id"], preset="duotone", key="one-key")
    work()
    again = alices.run(photo_id=sent["id"], preset="duotone", key="one-key")
    assert (again.status_code, again.json()) == (202, first.json())
    assert again["Idempotent-Replayed"] == "true"
    assert "Idempotent-Replayed" not in first
    assert code(alices.run(photo_id=sent["id"], preset="mono_drama", key="one-key")) == (422, "idempotency_key_reused")
    assert Run.objects.count() == 1


@pytest.mark.parametrize(
    ("key", "expected"),
    [(None, "idempotency_key_required"), ("x" * 256, "idempotency_key_invalid"), ("käse", "idempotency_key_invalid")],
)
def test_key_is_needed_and_checked(alices, sent, key, expected):
    headers = {} if key is None else {"Idempotency-Key": key}
    asked = {"photo_id": sent["id"], "preset": "duotone"}
    assert code(alices("post", "runs", asked, **headers)) == (400, expected)


@pytest.mark.parametrize(
    ("fields", "status", "expected", "field"),
    [
        ({"preset": "duotone"}, 400, "photo_required", None),
        ({"preset": "melt", "photo_id": 1}, 400, "invalid", "preset"),
        ({"photo_id": 1}, 400, "invalid", "preset"),
        ({"preset": "duotone", "photo_id": "x"}, 400, "invalid", "photo_id"),
        ({"preset": "duotone", "photo_id": NOBODYS}, 400, "invalid", "photo_id"),
        ({"preset": "duotone", "photo_id": 1, "strength": 2}, 400, "invalid", "strength"),
        ({"preset": "duotone", "photo_id": 1, "seed": 0}, 400, "invalid", "seed"),
        ({"preset": "duotone", "photo_id": 1, "prompt": "x"}, 400, "invalid", "preset"),
        ({"prompt": "a castle", "photo_id": 1}, 400, "invalid", None),
        ({"prompt": "x" * 2001, "photo_id": 1}, 400, "invalid", "prompt"),
    ],
)
def test_wrong_request_is_told_field_by_field(alices, sent, fields, status, expected, field):
    fields = fields | ({"photo_id": sent["id"]} if fields.get("photo_id") == 1 else {})
    answer = alices.run(**fields)
    assert code(answer) == (status, expected)
    if field:
        assert list(answer.json()["errors"]) == [field]
    assert not Run.objects.exists()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", (422, "photo_empty")),
        (b"<html>", (415, "photo_type_unsupported")),
        (b"\xff\xd8\xff\xe0 broken", (422, "photo_invalid")),
        (small("portrait", 40), (422, "photo_dimensions")),
    ],
)
def test_bad_photo_is_refused_with_its_code(alices, data, expected):
    answer = alices("post", "photos", files={"photo": SimpleUploadedFile("x.jpg", data)})
    assert code(answer) == expected
    answer = alices(
        "post", "runs", {"preset": "duotone"}, files={"photo": SimpleUploadedFile("x.jpg", data)},
        **{"Idempotency-Key": "k"},
    )  # fmt: skip
    assert code(answer) == expected


def test_limits_and_states_have_their_codes(alices, sent, work, settings):
    settings.MAX_ACTIVE_RUNS = 1
    run = alices.run(photo_id=sent["id"], preset="duotone").json()
    assert code(alices.run(photo_id=sent["id"], preset="mono_drama")) == (429, "too_many_active_runs")
    assert code(alices("post", f"runs/{run['id']}/retry")) == (409, "not_retryable")
    assert alices("post", f"runs/{run['id']}/cancel").json()["status"] == "cancelled"
    assert code(alices("post", f"runs/{run['id']}/cancel")) == (409, "not_cancellable")
    retried = alices("post", f"runs/{run['id']}/retry")
    assert (retried.status_code, retried.json()["status"]) == (202, "queued")
    work()
    settings.DAILY_RUN_LIMIT = 1
    answer = alices.run(photo_id=sent["id"], preset="noir_classic")
    assert code(answer) == (429, "quota_exceeded")
    assert answer.json()["resets_at"]
    Preset.objects.filter(slug="noir_classic").update(is_active=False)
    assert code(alices.run(photo_id=sent["id"], preset="noir_classic")) == (409, "preset_unavailable")


def test_too_large_and_chunked_bodies_are_problems_too(alices):
    assert code(alices("post", "photos", files={}, **{"Content-Length": "99999999"})) == (413, "photo_too_large")
    assert code(alices("post", "photos", files={}, **{"Transfer-Encoding": "chunked"})) == (411, "length_required")


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("get", "nothing/here", (404, "not_found")),
        ("get", f"runs/{NOBODYS}", (404, "not_found")),
        ("get", "runs/not-an-id", (404, "not_found")),
        ("put", "profile", (405, "method_not_allowed")),
        ("delete", "presets/duotone", (405, "method_not_allowed")),
    ],
)
def test_wrong_addresses_and_methods_are_problems_too(alices, method, path, expected):
    assert code(alices(method, path)) == expected


# -- Following -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/api/v1/runs?preset=%00", "/api/v1/presets?q=%00", "/api/v1/presets/%00", "/runs/?q=%00&look=%00", "/%00"]
)
def test_nul_in_an_address_is_no_error(alices, alice, path):
    page = Client()
    page.force_login(alice)
    assert page.get(path).status_code in (200, 400, 404)


def test_nul_in_what_is_sent_is_a_wrong_request(alices, sent):
    for fields in ({"presets": ["\0", "duotone"]}, {"preset": "a\0", "variations": 2}):
        asked = {"photo_id": sent["id"]} | fields
        answer = alices("post", "batches", asked, **{"Idempotency-Key": uuid.uuid4().hex})
        assert answer.status_code == 400
    assert alices.run(photo_id=sent["id"], preset="\0").status_code == 400


def test_unchanged_run_is_304(alices, sent, work):
    run = alices.run(photo_id=sent["id"], preset="duotone").json()
    seen = alices("get", f"runs/{run['id']}")
    same = alices("get", f"runs/{run['id']}", **{"If-None-Match": seen["ETag"]})
    assert (same.status_code, same.content) == (304, b"")
    work()
    assert alices("get", f"runs/{run['id']}", **{"If-None-Match": seen["ETag"]}).status_code == 200


@pytest.mark.django_db(transaction=True)
def test_prefer_wait_answers_as_soon_as_the_run_gets_further(alices, sent, work):
    import threading
    import time

    from django.db import connections

    run = alices.run(photo_id=sent["id"], preset="duotone").json()

    def later():
        time.sleep(0.5)
        work()
        connections.close_all()

    thread = threading.Thread(target=later)
    thread.start()
    started = time.monotonic()
    answer = alices("get", f"runs/{run['id']}", Prefer="wait=20")
    assert time.monotonic() - started < 20
    assert answer.json()["phase"] != "queued"
    assert answer["Preference-Applied"] == "wait=20"
    thread.join()


def test_long_poll_without_a_place_is_answered_at_once(alices, bobs, alice, bob, sent):
    path = f"runs/{alices.run(photo_id=sent['id'], preset='duotone').json()['id']}"
    with contextlib.ExitStack() as others:
        for _ in range(MAX_WAITING_PER_USER):
            assert others.enter_context(places.place(alice.pk))
        answer = alices("get", path, Prefer="wait=25")
        assert (answer.status_code, answer.json()["status"]) == (200, "queued")
        assert not answer.has_header("Preference-Applied")
        # Of others there may be more, up to what all may have together.
        held = [others.enter_context(places.place(bob.pk + number)) for number in range(MAX_WAITING)]
        assert held.count(True) == MAX_WAITING - MAX_WAITING_PER_USER
    assert alices("get", path, Prefer="wait=1")["Preference-Applied"] == "wait=1"


def test_at_most_a_quarter_of_the_threads_waits():
    assert runpy.run_path(str(ROOT / "gunicorn.conf.py"))["threads"] // 4 == MAX_WAITING


def test_list_is_filtered_and_goes_on_by_cursor(alices, sent, work, django_assert_num_queries):
    for seed in (1, 2, 3):
        alices.run(photo_id=sent["id"], preset="duotone", seed=seed)
    work()
    alices.run(photo_id=sent["id"], preset="mono_drama")
    assert len(alices("get", "runs?status=succeeded&preset=duotone").json()["results"]) == 3
    assert len(alices("get", "runs?status=queued").json()["results"]) == 1
    assert len(alices("get", "runs?favourite=true").json()["results"]) == 0
    assert code(alices("get", "runs?status=melting")) == (400, "invalid")
    first = alices("get", "runs?page_size=2").json()
    second = alices("get", first["next"]).json()
    ids = [run["id"] for run in first["results"] + second["results"]]
    assert len(set(ids)) == 4
    assert second["next"] is None


@pytest.mark.parametrize("path", ["runs", "photos", "notifications", "presets"])
def test_list_costs_the_same_queries_however_long_it_is(alices, alice, sent, work, path):
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    counts = []
    for seeds in ((1,), (2, 3, 4)):
        for seed in seeds:
            alices.run(photo_id=sent["id"], preset="duotone", seed=seed)
        work()
        alices("get", path)
        with CaptureQueriesContext(
            connection,
        ) as captured:
            assert alices("get", path).status_code == 200
        counts.append(len(captured))
    assert counts[0] == counts[1]


# -- Batches -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "count"),
    [
        ({"mode": "moodmorph"}, 3),
        ({"presets": ["duotone", "noir_classic"]}, 2),
        ({"preset": "duotone", "variations": 4}, 4),
    ],
)
def test_batch_is_several_runs_of_one_photo(alices, sent, work, asked, count):
    answer = alices("post", "batches", asked | {"photo_id": sent["id"]}, **{"Idempotency-Key": "b"})
    assert answer.status_code == 202
    batch = answer.json()
    assert (batch["status"], len(batch["runs"])) == ("running", count)
    assert answer["Location"] == f"/api/v1/batches/{batch['id']}"
    again = alices("post", "batches", asked | {"photo_id": sent["id"]}, **{"Idempotency-Key": "b"})
    assert (again.json(), again["Idempotent-Replayed"]) == (batch, "true")
    assert work() == count
    done = alices("get", f"batches/{batch['id']}").json()
    assert done["status"] == "succeeded"
    assert len({run["seed"] for run in done["runs"]} | {run["preset"]["slug"] for run in done["runs"]}) > count
    assert Notification.objects.filter(kind="batch_done").count() == 1


@pytest.mark.parametrize(
    "asked",
    [
        {}, {"mode": "melt"}, {"presets": ["duotone"]}, {"presets": ["duotone", "duotone"]}, {"preset": "duotone"},
        {"preset": "duotone", "variations": 5}, {"mode": "moodmorph", "preset": "duotone", "variations": 2},
    ],
)  # fmt: skip
def test_wrong_batch_makes_nothing(alices, sent, asked):
    answer = alices("post", "batches", asked | {"photo_id": sent["id"]}, **{"Idempotency-Key": "b"})
    assert code(answer) == (400, "invalid")
    assert not Run.objects.exists()


# -- Whose it is ---------------------------------------------------------------------------------------------


def test_anothers_things_are_as_missing_as_none(alices, bobs, sent, work):
    run = alices.run(photo_id=sent["id"], preset="duotone").json()
    batch = alices("post", "batches", {"mode": "moodmorph", "photo_id": sent["id"]}, **{"Idempotency-Key": "b"}).json()
    work()
    none = NOBODYS
    for path, theirs in (("runs", run["id"]), ("photos", sent["id"]), ("batches", batch["id"])):
        for method, rest, data in [
            ("get", "", None), ("delete", "", None), ("patch", "", {"favourite": True}), ("post", "/cancel", None),
            ("post", "/retry", None), ("get", "/download", None),
        ]:  # fmt: skip
            one = bobs(method, f"{path}/{theirs}{rest}", data)
            other = bobs(method, f"{path}/{none}{rest}", data)
            assert one.status_code == other.status_code
            assert {**one.json(), "request_id": 0} == {**other.json(), "request_id": 0}
    assert code(bobs.run(photo_id=sent["id"], preset="duotone")) == (400, "invalid")
    notification = Notification.objects.first()
    bobs("post", "notifications/read", {"ids": [str(notification.pk)]})
    notification.refresh_from_db()
    assert notification.read_at is None
    assert Run.objects.filter(status="succeeded").count() == 4


def test_fields_that_are_not_asked_for_change_nothing(alices, bobs, bob, alice, sent, work):
    extra = {"user": bob.pk, "status": "succeeded", "counted": False, "provider": "aiml", "is_staff": True}
    run = alices.run(photo_id=sent["id"], preset="duotone", **extra).json()
    assert (run["status"], run["counted"], run["provider"]) == ("queued", True, "embedded")
    assert alices("patch", f"runs/{run['id']}", extra).json()["status"] == "queued"
    changed = alices("patch", "profile", extra | {"email": "x@example.com", "daily_run_limit": 0, "display_name": "Al"})
    assert (changed.json()["display_name"], changed.json()["email"]) == ("Al", "alice@example.com")
    alice.refresh_from_db()
    assert (alice.is_staff, alice.profile.daily_run_limit) == (False, None)


# -- The account ---------------------------------------------------------------------------------------------


def test_profile_is_made_on_first_use_and_changed_by_what_is_sent(alices, alice):
    Profile.objects.filter(user=alice).delete()
    assert alices("get", "notifications").json()["profile_ready"] is False
    before = alices("get", "profile").json()
    assert set(before) == {
        "id", "email", "display_name", "avatar", "email_notifications", "locale", "date_joined", "quota",
        "storage",
    }  # fmt: skip
    assert (before["display_name"], before["avatar"]) == ("alice", None)
    # The built-in engine costs nothing, and has no limit of its own.
    assert (before["quota"]["limit"], before["quota"]["remaining"]) == (None, None)
    after = alices("patch", "profile", {"locale": "de", "email_notifications": False}).json()
    assert (after["display_name"], after["locale"], after["email_notifications"]) == ("alice", "de", False)
    assert code(alices("patch", "profile", {"locale": "<script>"})) == (400, "invalid")
    picture = SimpleUploadedFile("me.jpg", small("portrait"))
    body, kind = _multipart({"avatar": picture})
    answer = alices.client.patch(
        "/api/v1/profile", body, content_type=kind,
        headers={"Authorization": f"Bearer {alices.token}", "X-App-Key": "dev"},
    )  # fmt: skip
    assert answer.status_code == 200
    shown = alices.client.get(answer.json()["avatar"])
    assert max(Image.open(io.BytesIO(b"".join(shown.streaming_content))).size) == 256
    assert alices("patch", "profile", {"avatar": None}).json()["avatar"] is None


def _multipart(fields):
    from django.test.client import BOUNDARY, MULTIPART_CONTENT, encode_multipart

    return encode_multipart(BOUNDARY, fields), MULTIPART_CONTENT


def test_deleting_takes_the_stored_bytes_along(alices, sent, work, settings, django_capture_on_commit_callbacks):
    def stored():
        return [path for path in settings.MEDIA_ROOT.rglob("*") if path.is_file()]

    run = alices.run(photo_id=sent["id"], preset="duotone").json()
    work()
    assert len(stored()) == 4
    with django_capture_on_commit_callbacks(execute=True):
        assert alices("delete", f"photos/{sent['id']}").status_code == 204
    assert stored() == []
    assert alices("get", f"runs/{run['id']}").status_code == 404
    assert alices("get", "profile").json()["quota"]["used"] == 1
    # The same picture may be sent again, and is a new photo.
    again = alices("post", "photos", files={"photo": SimpleUploadedFile("me.jpg", small("portrait"))})
    assert (again.status_code, again.json()["id"] != sent["id"]) == (201, True)
    assert code(alices("delete", "profile", {"password": "wrong"})) == (400, "invalid")
    with django_capture_on_commit_callbacks(execute=True):
        assert alices("delete", "profile", {"password": "a-password-of-alice"}).status_code == 204
    assert stored() == []
    assert (Photo.objects.count(), Run.objects.count()) == (0, 0)


# -- The description -----------------------------------------------------------------------------------------


def test_description_is_valid_and_committed():
    from pathlib import Path

    out = io.StringIO()
    call_command("spectacular", "--validate", "--fail-on-warn", stdout=out)
    committed = Path(__file__).parents[2] / "docs" / "openapi.yaml"
    assert out.getvalue() == committed.read_text(), "run `make schema`"


def test_docs_are_served_to_everybody(client):
    assert client.get(reverse("schema")).status_code == 200
    assert client.get(reverse("docs")).status_code == 200


def test_expired_key_is_forgotten(alices, sent):
    from generation import sweep
    from generation.models import IdempotencyKey

    first = alices.run(photo_id=sent["id"], preset="duotone", key="k").json()
    IdempotencyKey.objects.update(created_at=timezone.now() - timedelta(hours=25))
    sweep.clean_up()
    assert alices.run(photo_id=sent["id"], preset="duotone", key="k").json()["id"] != first["id"]


@pytest.mark.parametrize("path", ["/api/v1/ping", "/runs/"])
def test_database_that_is_away_is_503_and_asked_for_nothing_more(rf, path):
    from django.db import OperationalError

    from stefna.problems import server_error

    try:
        raise OperationalError("connection refused")
    except OperationalError:
        answer = server_error(rf.get(path))
    assert (answer.status_code, answer["Retry-After"]) == (503, "5")
    assert (b"service_unavailable" in answer.content) is path.startswith("/api/")


def test_throttle_says_when_to_come_back(alices, monkeypatch):
    monkeypatch.setattr(SimpleRateThrottle, "THROTTLE_RATES", {"upload": "2/min", "poll": "9999/min"})
    monkeypatch.setattr(SimpleRateThrottle, "cache_format", f"{uuid.uuid4()}_%(scope)s_%(ident)s")
    answers = [alices("post", "photos", files={}, **{"X-Forwarded-For": f"10.0.0.{n}"}) for n in range(3)]
    assert [answer.status_code for answer in answers] == [400, 400, 429]
    assert code(answers[2]) == (429, "throttled")
    assert int(answers[2]["Retry-After"]) == answers[2].json()["retry_after"] > 0


def test_photo_of_too_many_pixels_and_a_storage_that_is_away_have_their_codes(alices, settings):
    settings.MAX_PHOTO_PIXELS = 1000
    picture = {"photo": SimpleUploadedFile("x.jpg", small("coffee"))}
    assert code(alices("post", "photos", files=picture)) == (422, "photo_too_many_pixels")
    settings.MAX_PHOTO_PIXELS = 40_000_000
    settings.MEDIA_ROOT = settings.MEDIA_ROOT / "portrait.jpg"
    settings.MEDIA_ROOT.write_bytes(b"a file where a folder should be")
    answer = alices("post", "photos", files={"photo": SimpleUploadedFile("x.jpg", small("coffee"))})
    assert code(answer) == (503, "storage_unavailable")
    assert (answer.json()["retryable"], answer["Retry-After"]) == (True, "5")


def test_wrong_host_and_a_bug_of_ours_are_problems_too(alices, monkeypatch):
    assert code(alices("get", "ping", Host="evil.example")) == (400, "invalid")
    monkeypatch.setattr("accounts.api.timezone.now", lambda: 1 / 0)
    alices.client.raise_request_exception = False
    answer = alices("get", "ping")
    assert code(answer) == (500, "internal_error")
    assert "ZeroDivision" not in answer.content.decode()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("posts", "keys", "limit", "accepted"), [(50, 1, 50, 50), (20, 20, 1, 1)], ids=["one key", "one left"]
)
def test_parallel_posts_are_counted_exactly(alices, sent, settings, posts, keys, limit, accepted):
    settings.DAILY_RUN_LIMIT = limit
    token = alices.token

    def post(number):
        try:
            answer = App(Client(), token)("post", "runs", {"photo_id": sent["id"], "preset": "duotone"},
                                          **{"Idempotency-Key": f"key-{number % keys}"})  # fmt: skip
            return answer.status_code, answer.json().get("id")
        finally:
            connections.close_all()

    with ThreadPoolExecutor(posts) as pool:
        answers = list(pool.map(post, range(posts)))
    assert [status for status, _ in answers].count(202) == accepted
    assert {status for status, _ in answers} <= {202, 429}
    assert Run.objects.count() == len({run for status, run in answers if status == 202}) == 1


def test_log_names_the_app_whose_key_was_sent(alices, sent, settings, caplog):
    settings.APP_KEYS = {"phone": "first", "watch": "dev"}
    asked = {"preset": "duotone", "photo_id": sent["id"]}
    assert alices("post", "runs", asked, **{"Idempotency-Key": "k"}).status_code == 202
    (event,) = [record.msg for record in caplog.records if "run_accepted" in str(record.msg)]
    assert event["app"] == "watch"
    # The next request of the same thread is nobody's app.
    caplog.clear()
    assert Client().get("/").status_code == 200
    assert "app" not in structlog.contextvars.get_contextvars()
