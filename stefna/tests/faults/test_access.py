"""Whose things are whose: every address of the site, asked with another's ids, says what it says of none."""

import itertools
import json
import re
import uuid
from collections import Counter
from datetime import timedelta

import pytest
from allauth.mfa.models import Authenticator
from django.contrib.sessions.models import Session
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import URLResolver, get_resolver
from django.utils import timezone
from django.utils.crypto import constant_time_compare
from rest_framework.throttling import SimpleRateThrottle

from accounts import authentication
from conftest import small
from generation import exports, services
from generation.models import Export, Photo, Run
from generation.modes import Mode
from notifications.models import Notification
from stefna.tests.app import code
from stefna.tests.stage import just_signed_in

pytestmark = pytest.mark.django_db
METHODS = ["get", "head", "options", "post", "put", "patch", "delete", "trace"]

# What has a parameter and is nobody's: presets, links that are the permission themselves, and what is no address.
NOBODYS = {
    "presets/<slug:slug>/preview", "api/v1/presets/<slug:slug>", "notifications/off/<str:token>", "api/<path:rest>",
    r"account/^confirm-email/(?P<key>[-:\w]+)/$",
    r"account/^password/reset/key/(?P<uidb36>[0-9A-Za-z]+)-(?P<key>.+)/$",
}  # fmt: skip


def routes(resolver, before=""):
    """Walk all that is registered."""
    for pattern in resolver.url_patterns:
        route = before + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from routes(pattern, route)
        else:
            yield route


# The staff's pages ask everybody else to sign in, whatever stands in their address.
OWNED = [route for route in routes(get_resolver()) if re.search(r"[<(]", route) and not route.startswith("admin/")]
OWNED = sorted(set(OWNED) - NOBODYS)
STAFFS = [route for route in routes(get_resolver()) if re.match(r"admin/.*<(path|int|uuid|id)", route)]


@pytest.fixture
def of_alice(alice, photo, catalogue, work):
    """One of everything, by the part of an address that is followed by its id."""
    runs = services.start_batch(user=alice, photo=photo, mode=Mode.MOODMORPH, key="b")
    work()
    waiting = services.start_run(user=alice, photo=photo, preset=catalogue.get(slug="duotone"), key="r")
    export = services.request_export(alice)
    assert exports.make_next()
    key = Authenticator.objects.create(user=alice, type="webauthn", data={"name": "Key"})
    return {
        "runs": [runs[0].pk, waiting.pk],
        "batches": [runs[0].batch],
        "photos": [photo.pk],
        "notifications": list(Notification.objects.values_list("pk", flat=True)),
        "account": [alice.pk],
        "export": [export.pk],
        "keys": [key.pk],
    }


@pytest.fixture
def bobs_browser(bob):
    return just_signed_in(bob)


def rows():
    return [
        list(model.objects.order_by("pk").values()) for model in (Run, Photo, Export, Notification, Authenticator)
    ]  # fmt: skip


def answer(client, method, path, *ids, **options):
    """Ask, and take out of the answer what is different each time: ids, tokens, and the request's number."""
    response = getattr(client, method)(path, **options)
    said = b"".join(response.streaming_content) if response.streaming else response.content
    text = re.sub(r'csrfmiddlewaretoken" value="\w+|name="key" value="[\w-]+|request_id": ?"\w+', "", said.decode())
    for one in ids:
        text = text.replace(str(one), "ID")
    headers = {name: response.get(name) for name in ("Location", "ETag", "Content-Type", "Allow", "HX-Redirect")}
    return response.status_code, headers, text


def test_anothers_is_answered_as_none_at_every_address_by_every_method(bobs_browser, of_alice):
    before = rows()
    for route in OWNED:
        seen = set()
        for theirs in of_alice[re.findall(r"(\w+)/<\w+:pk>", route)[-1]]:
            none = 987_654 if isinstance(theirs, int) else uuid.uuid4()
            for method, size in itertools.product(METHODS, ["picture", "thumbnail"] if "<size:" in route else [""]):
                filled = [re.sub(r"<\w+:pk>", str(one), route).replace("<size:size>", size) for one in (theirs, none)]
                one, other = (answer(bobs_browser, method, f"/{path}", theirs, none) for path in filled)
                assert one == other, (method, route)
                # What may be asked with is no secret.
                assert one[0] in (404, 405) or method == "options", (method, route)
                seen.add(one[0])
        assert 404 in seen, route
    assert rows() == before


def test_pages_of_the_staff_ask_for_a_sign_in_whatever_stands_in_their_address(bobs_browser, of_alice, alice):
    before = rows()
    for route, method in itertools.product(STAFFS, ["get", "post"]):
        path = re.sub(r"<int:\w+>|<id>", str(alice.pk), re.sub(r"<(path|uuid):\w+>", str(of_alice["runs"][0]), route))
        shown = getattr(bobs_browser, method)("/" + path.replace("<slug:which>", "result"))
        assert (shown.status_code, shown.get("Location", "")[:13]) == (302, "/admin/login/"), (method, route)
    assert rows() == before


@pytest.mark.parametrize(
    ("method", "path", "kind", "fields"),
    [
        ("get", "/?photo_id=ID", "photos", {}),
        ("get", "/runs/?preset=ID", "runs", {}),
        ("post", "/runs/new", "photos", {"photo_id": "ID", "look": "duotone", "key": "k"}),
        ("post", "/runs/new", "photos", {"photo_id": "ID", "look": "moodmorph", "key": "k"}),
        ("post", "/sketches", "photos", {"photo_id": "ID"}),
        ("post", "/runs/selected", "runs", {"run": "ID", "delete": ""}),
        ("post", "/runs/selected", "runs", {"run": "ID", "favourite": ""}),
        ("get", "/api/v1/runs?batch=ID", "batches", {}),
        ("post", "/api/v1/runs", "photos", {"photo_id": "ID", "preset": "duotone"}),
        ("post", "/api/v1/batches", "photos", {"photo_id": "ID", "mode": "moodmorph"}),
        ("post", "/api/v1/notifications/read", "notifications", {"ids": ["ID"]}),
    ],
)
def test_anothers_id_in_what_is_sent_is_as_none(bobs_browser, of_alice, method, path, kind, fields):
    before = rows()
    answers = []
    for one in (theirs := of_alice[kind][0], none := uuid.uuid4()):
        options = {"data": json.loads(json.dumps(fields).replace("ID", str(one)))} if fields else {}
        if path.startswith("/api/") and fields:
            options |= {"content_type": "application/json", "headers": {"Idempotency-Key": uuid.uuid4().hex}}
        answers.append(answer(bobs_browser, method, path.replace("ID", str(one)), theirs, none, **options))
    assert answers[0] == answers[1]
    assert rows() == before


# -- S4: a session that is over ------------------------------------------------------------------------------


def test_expired_token_is_401_with_a_challenge(alices):
    assert alices("get", "ping").status_code == 200
    Session.objects.update(expire_date=timezone.now() - timedelta(seconds=1))
    refused = alices("get", "ping")
    assert code(refused) == (401, "not_authenticated")
    assert refused["WWW-Authenticate"] == 'Bearer realm="stefna"'


# -- S6: a key is compared with all of them, in constant time ------------------------------------------------


@pytest.mark.parametrize(("given", "status"), [("first", 200), ("second", 200), ("fir", 401), ("", 401), ("ä", 401)])
def test_app_key_is_compared_with_every_key_in_constant_time(alices, settings, monkeypatch, given, status):
    compared = []

    def compare(one, other):
        compared.append((one, other))
        return constant_time_compare(one, other)

    monkeypatch.setattr(authentication, "constant_time_compare", compare)
    settings.APP_KEYS = {"old": "first", "new": "second"}
    assert alices("get", "ping", **{"X-App-Key": given}).status_code == status
    # Neither the first that fits nor the first that does not ends it.
    assert compared == [(given, "first"), (given, "second")]


# -- S20: one user's thousand requests -----------------------------------------------------------------------


def test_user_over_the_limits_is_refused_exactly_and_others_are_served(alices, bobs, photo, settings, monkeypatch):
    """A small part of a minute's thousand; how long the others wait meanwhile is for the benchmark to measure."""
    monkeypatch.setattr(SimpleRateThrottle, "THROTTLE_RATES", {"upload": "40/min", "poll": "9999/min"})
    settings.DAILY_RUN_LIMIT, settings.MAX_ACTIVE_RUNS = 15, 10
    answers, others = Counter(), []
    for number in range(80):
        if number == 20:
            settings.MAX_ACTIVE_RUNS = 0
        answer = alices.run(photo_id=str(photo.pk), preset="duotone", seed=number + 1)
        answers[answer.json().get("code") or answer.status_code] += 1
        if number % 10 == 0:
            others.append(bobs("get", "runs").status_code)
    assert answers == {202: 15, "too_many_active_runs": 10, "quota_exceeded": 15, "throttled": 40}
    assert Run.objects.filter(user__email="alice@example.com").count() == 15
    sent = {"photo": SimpleUploadedFile("me.jpg", small("portrait"))}
    others.append(bobs("post", "runs", {"preset": "duotone"}, files=sent, **{"Idempotency-Key": "k"}).status_code)
    assert others == [200] * 8 + [202]
