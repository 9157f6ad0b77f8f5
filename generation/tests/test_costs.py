"""Who pays: calls that are billed count, and nobody may ask for, or keep, more than their share."""

import json
import threading
import uuid

import pytest
from django.core.cache import cache
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import IntegrityError
from django.test import Client
from django.urls import reverse

from accounts.models import User
from conftest import in_parallel, small
from generation import photos, services, tryout
from generation.exceptions import BudgetExceeded, StorageFull
from generation.models import BilledDay, Photo, Run
from generation.providers import endpoints
from generation.providers.endpoints import Outcome, configured
from stefna.tests.faults import files
from stefna.tests.waiting import WAIT_SECONDS, wait_until

pytestmark = pytest.mark.django_db

API = "/api/v1"


def calls(upstreams):
    return upstreams.counts()["aiml"]["calls"]


def picture(name="coffee", side=200):
    return SimpleUploadedFile("photo.jpg", small(name, side), "image/jpeg")


@pytest.fixture
def alices(client, alice):
    client.force_login(alice)
    return client


def ask(client, photo, **changes):
    """Ask for a run of a stored photo, and return the answer of the API."""
    return client.post(
        f"{API}/runs",
        {"photo_id": str(photo.pk), "preset": "duotone"} | changes,
        content_type="application/json",
        headers={"Idempotency-Key": uuid.uuid4().hex},
    )


# -- Calls that were paid for --------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_33_cancelled_runs_are_three_paid_calls(upstreams, alices, photo, catalogue, work, settings):
    settings.DAILY_RUN_LIMIT = 3
    upstreams.defaults(aiml_delay=0.3)
    statuses = []
    for _ in range(33):
        answer = ask(alices, photo)
        statuses.append(answer.status_code)
        if answer.status_code == 429:
            assert (answer.json()["code"], "resets_at" in answer.json()) == ("quota_exceeded", True)
            continue
        asked, made = answer.json()["id"], calls(upstreams)

        def cancel(run=asked, before=made):
            wait_until(lambda: calls(upstreams) > before)
            return alices.post(f"{API}/runs/{run}/cancel").status_code

        assert in_parallel(2, lambda number, cancel=cancel: (work, cancel)[number]()) == [1, 200]
    assert (statuses.count(202), statuses.count(429), calls(upstreams)) == (3, 30, 3)
    for run in Run.objects.all():
        shown = alices.get(f"{API}/runs/{run.pk}").json()
        assert (shown["status"], shown["counted"]) == ("cancelled", True)
        page = alices.get(run.get_absolute_url()).content.decode()
        assert "This counted, because the service had already started." in page
        assert "You were not charged" not in page
    assert alices.get(f"{API}/profile").json()["quota"]["remaining"] == 0


def test_run_cancelled_before_its_call_is_free(upstreams, alices, photo, catalogue, settings):
    settings.DAILY_RUN_LIMIT = 1
    for _ in range(5):
        run = ask(alices, photo).json()
        assert alices.post(f"{API}/runs/{run['id']}/cancel").json()["counted"] is False
    page = alices.get(Run.objects.first().get_absolute_url()).content.decode()
    assert "You were not charged." in page
    assert calls(upstreams) == 0


@pytest.mark.parametrize("shape", ["nsfw", "black"])
def test_30_filtered_calls_count(upstreams, alices, photo, catalogue, work, settings, shape):
    settings.DAILY_RUN_LIMIT = 4
    upstreams.script("aiml", {"shape": shape}, repeat_last=True)
    for _ in range(30):
        ask(alices, photo)
        work()
    assert calls(upstreams) == 4
    run = Run.objects.first()
    assert (run.error_code, run.billed_calls, run.counted) == ("content_filtered", 1, True)
    notification = alices.get(f"{API}/notifications").json()["results"][0]
    assert notification["message"] == "Duotone did not work. This counted, because the service had already started."


def test_filtered_runs_have_a_limit_of_their_own(upstreams, alices, photo, catalogue, work, settings):
    settings.DAILY_RUN_LIMIT, settings.FILTERED_RUNS_DAILY = 0, 2
    upstreams.script("aiml", {"shape": "nsfw"}, repeat_last=True)
    for _ in range(5):
        answer = ask(alices, photo)
        work()
    assert (answer.status_code, answer.json()["code"]) == (429, "quota_exceeded")
    assert "safety filter" in answer.json()["detail"]
    assert calls(upstreams) == 2


@pytest.mark.parametrize("step", [{"status": 401}, {"status": 500}, {"shape": "html"}, {"json": {}}])
def test_failures_of_the_service_never_count(upstreams, alices, photo, catalogue, work, settings, step):
    settings.DAILY_RUN_LIMIT = 1
    upstreams.script("aiml", step, repeat_last=True)
    run = ask(alices, photo).json()
    work()
    assert alices.get(f"{API}/runs/{run['id']}").json()["counted"] is False
    assert alices.get(f"{API}/profile").json()["quota"]["used"] == 0


# -- The installation's ceiling ------------------------------------------------------------------------------


def test_installation_pays_for_no_more_calls_than_its_limit(upstreams, photo, catalogue, work, settings, alices, bob):
    settings.DAILY_BILLED_CALLS_LIMIT = 3
    ask(alices, photo)
    work()
    others, theirs = Client(), Photo.objects.create(**files_of(photo) | {"user": bob})
    others.force_login(bob)
    assert ask(others, theirs).status_code == 202  # it waits, and will be paid
    # Nobody makes room by taking away what was paid for.
    alices.delete(f"{API}/runs/{Run.objects.get(user=photo.user).pk}")
    services.delete_account(photo.user)
    assert BilledDay.objects.get().other_calls == 1
    assert ask(others, theirs, seed=7).status_code == 202
    answer = ask(others, theirs, seed=8)
    assert (answer.status_code, answer.json()["code"]) == (429, "budget_exceeded")
    assert "resets_at" in answer.json()
    page = others.post(reverse("create"), {"photo_id": str(theirs.pk), "look": "duotone", "key": "page"})
    assert (page.status_code, "come back tomorrow" in page.content.decode()) == (429, True)


@pytest.mark.django_db(transaction=True)
def test_ceiling_holds_when_many_ask_at_once(upstreams, catalogue, settings):
    settings.DAILY_BILLED_CALLS_LIMIT = 3
    users = [User.objects.create_user(f"user{number}@example.com") for number in range(8)]
    clients = [Client() for _ in users]
    photos = [Photo.objects.create(**files_of(None) | {"user": user}) for user in users]
    for client, user in zip(clients, users, strict=True):
        client.force_login(user)
    statuses = in_parallel(8, lambda number: ask(clients[number], photos[number]).status_code)
    assert sorted(statuses) == [202] * 3 + [429] * 5


def files_of(photo):
    """Return what a photo's row needs; the files are those of another."""
    file, thumbnail = (photo.file.name, photo.thumbnail.name) if photo else ("photos/a.jpg", "photos/b.jpg")
    facts = {"width": 320, "height": 240, "bytes": 1000, "content_type": "image/jpeg"}
    return {"sha256": uuid.uuid4().hex, "file": file, "thumbnail": thumbnail} | facts


def test_built_in_engine_is_no_cost(alices, photo, catalogue, settings):
    settings.DAILY_BILLED_CALLS_LIMIT = 1
    assert [ask(alices, photo).status_code for _ in range(3)] == [202] * 3


# -- Limits of an address ------------------------------------------------------------------------------------


def from_address(number, **more):
    return {"HTTP_X_FORWARDED_FOR": f"192.0.2.250, 203.0.113.{number}"} | more


@pytest.fixture
def behind_proxy(settings):
    settings.TRUSTED_PROXIES = 1
    settings.ALLOW_GUESTS = True
    return settings


def come_as_guest(number, data=None, **form):
    """Open the studio in a new browser and send a photo."""
    browser = Client(**from_address(number))
    browser.get(reverse("studio"))
    data = {"look": "duotone", "key": uuid.uuid4().hex, "photo": data or picture()} | form
    return browser.post(reverse("create"), data)


def test_80_guests_from_one_address_are_20(behind_proxy, catalogue):
    statuses = [come_as_guest(9).status_code for _ in range(80)]
    assert (statuses.count(302), statuses.count(429)) == (20, 60)
    assert User.objects.count() == 20
    refused = come_as_guest(9)
    assert int(refused["Retry-After"]) > 0
    assert "Too many requests come from your network." in refused.content.decode()
    # What the client itself writes into the header makes no other address of it, and others are let in.
    assert come_as_guest(10).status_code == 302


def test_first_half_of_an_ipv6_address_counts(behind_proxy, catalogue):
    behind_proxy.GUESTS_PER_ADDRESS_DAILY = 2
    addresses = [f"2001:db8:1:2::{number:x}" for number in range(1, 5)] + ["2001:db8:1:3::1", "::ffff:203.0.113.7"]
    statuses = []
    for address in addresses:
        browser = Client(HTTP_X_FORWARDED_FOR=address)
        browser.get(reverse("studio"))
        form = {"look": "duotone", "key": uuid.uuid4().hex, "sample": "coffee"}
        statuses.append(browser.post(reverse("create"), form).status_code)
    assert statuses == [302, 302, 429, 429, 302, 302]


def test_nobody_becomes_a_guest_for_a_photo_that_cannot_be_used(behind_proxy, catalogue):
    answer = come_as_guest(9, SimpleUploadedFile("photo.jpg", b"no photo"))
    assert (answer.status_code, User.objects.count()) == (415, 0)


@pytest.mark.parametrize(
    ("setting", "path", "fields"),
    [
        ("UPLOADS_PER_ADDRESS_HOURLY", "/photos", {}),
        ("UPLOADS_PER_ADDRESS_HOURLY", "/runs", {"preset": "duotone"}),
        ("UPLOADS_PER_ADDRESS_HOURLY", "/batches", {"preset": "duotone", "variations": 2}),
        ("RUNS_PER_ADDRESS_DAILY", "/runs", {"preset": "duotone"}),
    ],
)
def test_api_limits_an_address_whoever_asks(behind_proxy, catalogue, setting, path, fields):
    setattr(behind_proxy, setting, 3)
    statuses = []
    for number in range(5):
        client = Client(**from_address(9))
        client.force_login(User.objects.create_user(f"user{number}@example.com"))
        answer = client.post(API + path, fields | {"photo": picture()}, headers={"Idempotency-Key": uuid.uuid4().hex})
        statuses.append(answer.status_code)
    assert statuses == [201 if path == "/photos" else 202] * 3 + [429] * 2
    assert (answer.json()["code"], answer.json()["retryable"]) == ("throttled", True)
    assert int(answer["Retry-After"]) == answer.json()["retry_after"] > 0


def test_pages_limit_an_address_whoever_asks(behind_proxy, catalogue):
    behind_proxy.UPLOADS_PER_ADDRESS_HOURLY = 3
    statuses = []
    for number in range(5):
        client = Client(**from_address(9))
        client.force_login(User.objects.create_user(f"user{number}@example.com"))
        form = {"look": "duotone", "key": uuid.uuid4().hex, "photo": picture()}
        statuses.append(client.post(reverse("create"), form).status_code)
    assert statuses == [302] * 3 + [429] * 2
    # Pictures of users are uploads as well, on the page and in the API.
    assert client.post(reverse("change_picture"), {"picture": picture()}).status_code == 429
    body, kind = files.form(files.part("avatar", small("coffee"), "me.jpg")), files.FORM
    assert client.generic("PATCH", f"{API}/profile", body, kind).status_code == 429


def test_batch_counts_as_many_runs_as_it_has(behind_proxy, alices, photo, catalogue):
    behind_proxy.RUNS_PER_ADDRESS_DAILY = 5
    body = {"photo_id": str(photo.pk), "preset": "duotone", "variations": 4}

    def ask_for_batch():
        key = {"Idempotency-Key": uuid.uuid4().hex}
        return alices.post(f"{API}/batches", json.dumps(body), "application/json", headers=key).status_code

    assert (ask_for_batch(), ask_for_batch()) == (202, 429)
    # What was refused was not counted.
    assert [ask(alices, photo).status_code for _ in range(2)] == [202, 429]
    run = Run.objects.first()
    services.cancel_run(run)
    assert alices.post(f"{API}/runs/{run.pk}/retry").status_code == 429
    alices.post(reverse("retry", args=[run.pk]))
    alices.post(reverse("vary", args=[run.pk]), {"change": "seed", "key": "k"})
    assert Run.objects.count() == 5


def test_previews_are_limited_before_they_are_read(behind_proxy, client, catalogue):
    behind_proxy.PREVIEWS_PER_ADDRESS_MINUTE = 3
    body = files.form(files.part("photo", b"no photo", "photo.jpg"))
    statuses = [client.generic("POST", "/sketches", body, files.FORM, **from_address(9)).status_code for _ in range(5)]
    assert statuses == [415] * 3 + [429] * 2


def test_hits_of_limits_are_logged_with_their_name(behind_proxy, client, caplog):
    behind_proxy.PREVIEWS_PER_ADDRESS_MINUTE = 1
    for _ in range(2):
        client.post("/sketches", **from_address(9))
    (line,) = [record.getMessage() for record in caplog.records if "limit_hit" in record.getMessage()]
    assert "previews_per_address_minute" in line
    assert "203.0.113" not in line


def test_limit_of_zero_is_none(behind_proxy, catalogue):
    behind_proxy.GUESTS_PER_ADDRESS_DAILY = 0
    assert {come_as_guest(9).status_code for _ in range(25)} == {302}


@pytest.mark.parametrize(
    "forwarded", ["", "nonsense", "a, b, ,", "[2001:db8::1]:80", "203.0.113.9:4711", "1.2.3.4" * 99]
)
def test_odd_addresses_are_no_error(behind_proxy, catalogue, client, forwarded):
    assert client.post("/sketches", HTTP_X_FORWARDED_FOR=forwarded).status_code == 400


# -- What is kept --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_guest", [False, True])
def test_account_keeps_no_more_than_it_may(client, alice, catalogue, settings, is_guest):
    settings.MAX_STORED_MB, settings.MAX_STORED_MB_GUEST = (1000, 1) if is_guest else (1, 1000)
    user = User.objects.guest("a-guest") if is_guest else alice
    client.force_login(user)
    full = Photo.objects.create(**files_of(None) | {"user": user, "bytes": 999_000})
    storage = client.get(f"{API}/profile").json()["storage"]
    assert storage == {"used": 999_000, "limit": 1_000_000}
    assert "Stored: 975.6\xa0KB of 976.6\xa0KB." in client.get(reverse("profile")).content.decode()
    answer = client.post(f"{API}/photos", {"photo": picture(side=320)})
    assert (answer.status_code, answer.json()["code"]) == (409, "storage_full")
    page = client.post(reverse("create"), {"look": "duotone", "key": "k", "photo": picture(side=320)})
    assert (page.status_code, "Your storage is full." in page.content.decode()) == (409, True)
    assert list(Photo.objects.all()) == [full]
    services.delete_photo(full)
    assert client.post(f"{API}/photos", {"photo": picture(side=320)}).status_code == 201


def test_results_count_and_those_from_the_cache_do_not(alices, alice, photo, start, work, settings):
    run = start(seed=7)
    work()
    run.refresh_from_db()
    used = services.stored_bytes(alice)
    assert used == photo.bytes + run.bytes
    assert start(seed=7).cached
    assert services.stored_bytes(alice) == used


def test_full_storage_takes_no_runs(alices, alice, photo, catalogue, settings):
    settings.MAX_STORED_MB = 1
    Photo.objects.create(**files_of(None) | {"user": alice, "bytes": 2_000_000})
    assert ask(alices, photo).json()["code"] == "storage_full"


@pytest.mark.parametrize("how", ["page", "api", "batch"])
def test_refused_run_leaves_no_photo_behind(alices, alice, catalogue, settings, tmp_path, how):
    settings.DAILY_RUN_LIMIT = 1
    kept = services.accept_photo(alice, services.photos.Upload(small("portrait", 100)))
    services.start_run(user=alice, photo=kept, preset=catalogue.get(slug="duotone"))
    before = sorted(path for path in settings.MEDIA_ROOT.rglob("*") if path.is_file())
    key = {"Idempotency-Key": uuid.uuid4().hex}
    if how == "page":
        answer = alices.post(reverse("create"), {"look": "duotone", "key": "k", "photo": picture()})
    elif how == "api":
        answer = alices.post(f"{API}/runs", {"preset": "duotone", "photo": picture()}, headers=key)
    else:
        body = {"preset": "duotone", "variations": 2, "photo": picture()}
        answer = alices.post(f"{API}/batches", body, headers=key)
    assert answer.status_code == 429
    assert list(Photo.objects.all()) == [kept]
    assert sorted(path for path in settings.MEDIA_ROOT.rglob("*") if path.is_file()) == before


@pytest.mark.django_db(transaction=True)
def test_photo_that_was_stored_for_nothing_is_not_kept_when_its_run_is_refused(
    alices, alice, photo, catalogue, settings, monkeypatch
):
    """The exact check under the lock refuses what the first one let through."""
    settings.DAILY_RUN_LIMIT = 1

    def limits_that_another_request_reaches(user, **asked):
        if "profile" in asked:
            raise services.QuotaExceeded(resets_at=services.tomorrow())

    monkeypatch.setattr(services, "check_limits", limits_that_another_request_reaches)
    with pytest.raises(services.QuotaExceeded):
        services.start_run(user=alice, photo=services.photos.Upload(small("coffee", 150)), preset=catalogue[0])
    assert list(Photo.objects.for_user(alice)) == [photo]
    assert len([path for path in settings.MEDIA_ROOT.rglob("*") if path.is_file()]) == 2


# -- Endpoints that are out of credits -----------------------------------------------------------------------


@pytest.fixture
def two(upstreams, settings):
    """Two endpoints at one service, told apart by their keys."""
    keys = [uuid.uuid4().hex for _ in range(2)]
    settings.AIML_API_KEY = ""
    settings.AIML_ENDPOINTS = [(upstreams.url, key, 1.0) for key in keys]
    return configured()


def open_circuit(endpoint, until_half_open):
    with endpoints.call([endpoint]) as made:
        made.outcome = Outcome.REFUSED
    if until_half_open:
        cache.delete(f"circuit:{endpoint.name}:until")


def used_keys(upstreams):
    return [call["headers"]["authorization"].removeprefix("Bearer ") for call in upstreams.calls("aiml")]


@pytest.mark.parametrize("status", [401, 403])
def test_run_goes_on_to_an_endpoint_with_credits(upstreams, two, start, work, status):
    upstreams.script("aiml", {"status": status}, {})
    run = start()
    work()
    run.refresh_from_db()
    assert (run.status, run.billed_calls, run.possible_cost) == ("succeeded", 1, 0)
    assert sorted(used_keys(upstreams)) == sorted(endpoint.key for endpoint in two)


def test_run_fails_when_every_endpoint_refuses_its_key(upstreams, two, start, work):
    upstreams.script("aiml", {"status": 403}, repeat_last=True)
    run = start()
    work()
    run.refresh_from_db()
    assert (run.status, run.error_code, run.error_retryable, calls(upstreams)) == (
        "failed",
        "upstream_credits",
        True,
        2,
    )


def test_run_waits_while_the_other_endpoint_is_skipped(upstreams, two, start, work):
    open_circuit(two[0], until_half_open=False)
    upstreams.script("aiml", {"status": 403}, {})
    run = start()
    work()
    run.refresh_from_db()
    assert (run.status, calls(upstreams)) == ("queued", 1)
    endpoints.close(two[0])
    Run.objects.update(run_after=None)
    work()
    run.refresh_from_db()
    assert run.status == "succeeded"


@pytest.mark.parametrize("step", [{"status": 403}, {"status": 503}, {"shape": "html"}, {"reset": True}])
def test_probe_costs_no_run_that_another_endpoint_can_serve(upstreams, two, start, work, step):
    open_circuit(two[0], until_half_open=True)
    upstreams.script("aiml", step, {})
    run = start()
    work()
    run.refresh_from_db()
    assert (run.status, calls(upstreams)) == ("succeeded", 2)
    assert used_keys(upstreams) == [two[0].key, two[1].key]
    # A call that was sent and never answered may have to be paid: the owner reads of it.
    assert run.possible_cost == (step == {"reset": True})
    assert endpoints.circuit(two[0]).state == "open"


def test_only_endpoint_that_is_still_refused_costs_its_probe_nothing(upstreams, start, work, settings):
    (only,) = configured()
    open_circuit(only, until_half_open=True)
    upstreams.script("aiml", {"status": 403}, repeat_last=True)
    run = start()
    work()
    run.refresh_from_db()
    assert (run.status, run.error_code, calls(upstreams)) == ("queued", "upstream_credits", 1)
    # The circuit is open now, and the row goes on saying why.
    Run.objects.update(run_after=None)
    work()
    run.refresh_from_db()
    assert (run.status, run.error_code, calls(upstreams)) == ("queued", "upstream_credits", 1)
    settings.RUN_DEADLINE_SECONDS = 1
    wait_until(lambda: run.seconds_left < 0)
    Run.objects.update(run_after=None)
    work()
    run.refresh_from_db()
    assert (run.status, run.error_code) == ("failed", "upstream_credits")


# -- What an independent attack has found ------------------------------------------------------------------------


def test_photos_are_processed_beside_each_other(monkeypatch):
    """A lock around it would make every upload wait for the slowest, and hold its connection meanwhile."""
    together = threading.Barrier(2, timeout=WAIT_SECONDS)

    def normalise(*arguments, **options):
        together.wait()

    monkeypatch.setattr(photos.processing, "normalise", normalise)
    uploads = [photos.Upload(b"one"), photos.Upload(b"two")]
    assert in_parallel(2, lambda number: uploads[number].files) == [None, None]


def test_account_that_is_deleted_before_any_call_uses_up_nothing(upstreams, alices, photo, catalogue, settings):
    settings.DAILY_BILLED_CALLS_LIMIT = 2
    assert [ask(alices, photo).status_code for _ in range(3)] == [202, 202, 429]
    services.delete_account(photo.user)
    assert not BilledDay.objects.filter(other_calls__gt=0).exists()


@pytest.mark.django_db(transaction=True)
def test_call_that_is_never_answered_is_recorded_though_its_run_was_cancelled(
    upstreams, alices, photo, catalogue, work, settings
):
    settings.AIML_READ_TIMEOUT_SECONDS = 1
    upstreams.script("aiml", {"hang": True})
    asked = ask(alices, photo).json()["id"]

    def cancel():
        wait_until(lambda: calls(upstreams) == 1)
        return alices.post(f"{API}/runs/{asked}/cancel").status_code

    assert in_parallel(2, lambda number: (work, cancel)[number]()) == [1, 200]
    run = Run.objects.get()
    assert (run.status, run.possible_cost, run.counted) == ("cancelled", 1, True)
    assert Run.objects.billed_calls_today() == 1


@pytest.mark.django_db(transaction=True)
def test_filtered_runs_count_as_filtered_though_cancelled(upstreams, alices, photo, catalogue, work, settings):
    settings.DAILY_RUN_LIMIT, settings.FILTERED_RUNS_DAILY = 0, 1
    upstreams.script("aiml", {"shape": "nsfw", "delay": 0.3})
    asked = ask(alices, photo).json()["id"]

    def cancel():
        wait_until(lambda: calls(upstreams) == 1)
        return alices.post(f"{API}/runs/{asked}/cancel").status_code

    assert in_parallel(2, lambda number: (work, cancel)[number]()) == [1, 200]
    assert Run.objects.get().status == "cancelled"
    assert ask(alices, photo).json()["code"] == "quota_exceeded"


def test_trials_of_presets_count_against_the_ceiling(upstreams, catalogue, settings):
    settings.DAILY_BILLED_CALLS_LIMIT = 1
    preset = catalogue.get(slug="duotone")
    assert tryout.try_out(preset, "coffee")
    with pytest.raises(BudgetExceeded):
        tryout.try_out(preset, "coffee")
    assert calls(upstreams) == 1


@pytest.mark.django_db(transaction=True)
def test_storage_holds_when_many_photos_come_at_once(alice, settings):
    uploads = [photos.Upload(small("coffee", 200 + number)) for number in range(8)]
    settings.MAX_STORED_MB = 1
    Photo.objects.create(**files_of(None) | {"user": alice, "bytes": 1_000_000 - 3 * len(uploads[0].data)})
    answers = in_parallel(8, lambda number: services.accept_photo(alice, uploads[number]))
    assert {type(answer) for answer in answers} == {Photo, StorageFull}
    assert services.stored_bytes(alice) <= 1_000_000
    kept = [path for path in settings.MEDIA_ROOT.rglob("*") if path.is_file()]
    assert len(kept) == 2 * sum(isinstance(answer, Photo) for answer in answers)


def test_other_formats_of_a_result_are_limited_as_uploads(behind_proxy, alices, start, work):
    run = start()
    work()
    behind_proxy.UPLOADS_PER_ADDRESS_HOURLY = 2
    address = alices.get(f"{API}/runs/{run.pk}").json()["result"]["download_url"]
    stranger = Client(**from_address(9))
    assert [stranger.get(f"{address}&format=webp").status_code for _ in range(3)] == [200, 200, 429]
    assert stranger.get(address).status_code == 200


def test_switched_off_preset_makes_no_variations(alices, start, work, preset):
    run = start()
    work()
    preset.is_active = False
    preset.save()
    alices.post(reverse("vary", args=[run.pk]), {"change": "seed", "key": "k"})
    assert Run.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_account_that_is_deleted_during_an_upload_keeps_no_file(alice, settings):
    upload = photos.Upload(small("coffee"))
    assert upload.files
    stale = User.objects.get(pk=alice.pk)
    services.delete_account(alice)
    with pytest.raises(IntegrityError):
        services.accept_photo(stale, upload)
    assert not [path for path in settings.MEDIA_ROOT.rglob("*") if path.is_file()]
