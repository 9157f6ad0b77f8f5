"""What others may keep of our answers: nothing that is somebody's own; and what a request leaves behind: nothing."""

import pytest
from django.contrib.sessions.models import Session
from django.test import Client

from generation import sweep
from stefna.tests.faults.test_odd_requests import OPERATIONS, PLACES, address_of, fill, name_of

pytestmark = pytest.mark.django_db
# Of these each asks for a challenge, which has to be kept until it is answered.
CHALLENGES = ("/_allauth/app/v1/auth/webauthn/login", "/account/2fa/webauthn/login/")
# What whoever it belongs to may keep for a while.
KEPT = ("/picture", "/thumbnail", "/download", "/avatar", "/manifest.webmanifest")
PROBES = ("/healthz/live", "/healthz/ready", "/metrics")


class Chance:
    def choice(self, values):
        return values[0]


def is_private(answer):
    said = {word.strip().partition("=")[0] for word in answer["Cache-Control"].split(",")}
    vary = {word.strip().lower() for word in answer["Vary"].split(",")}
    return {"private", "no-store"} <= said and "cookie" in vary


@pytest.mark.parametrize("place", [place for place in PLACES if place not in PROBES])
def test_page_is_its_visitors_own(owner, client, alice, place):
    client.force_login(alice)
    for visitor in (owner, client, Client()):
        visitor.raise_request_exception = False
        answer = visitor.get(fill(place, Chance()))
        if "public" in answer.get("Cache-Control", ""):
            assert place.startswith("/presets/"), place
        else:
            assert is_private(answer) or place.endswith(KEPT), answer.headers


@pytest.mark.parametrize("operation", OPERATIONS, ids=name_of)
def test_answer_of_the_api_is_its_askers_own(alices, sent, operation):
    method, path, _ = operation
    for token in (alices.token, None):
        alices.token = token
        address = address_of(path, Chance()).replace("00000000-0000-0000-0000-000000000000", sent["id"])
        answer = alices(method, address, None if method == "get" else {})
        assert "private" in answer["Cache-Control"]
        assert {"authorization", "x-session-token", "cookie"} <= {
            one.strip().lower() for one in answer["Vary"].split(",")
        }


def test_pictures_may_be_kept_by_whose_they_are(alices, sent):
    for address in (sent["url"], sent["thumbnail_url"]):
        answer = alices.client.get(address)
        assert answer["Cache-Control"] == "private, max-age=86400"
        assert "Cookie" in answer["Vary"]


def test_previews_may_be_kept_by_everybody(client, catalogue):
    answer = client.get("/presets/duotone/preview")
    assert answer["Cache-Control"] == "public, max-age=86400"


def test_run_keeps_its_etag(alices, sent):
    run = alices.run(photo_id=sent["id"], preset="duotone").json()
    assert alices("get", f"runs/{run['id']}")["Cache-Control"] == "private, no-cache"


def test_static_file_is_as_before(client):
    answer = client.get("/static/css/stefna.css")
    assert answer.status_code == 200
    assert "no-store" not in answer.get("Cache-Control", "")
    assert "Cookie" not in answer.get("Vary", "")


def test_looking_writes_no_session(client, catalogue):
    client.raise_request_exception = False
    places = [fill(place, Chance()) for place in PLACES]
    places += [address_of(path, Chance()) for method, path, _ in OPERATIONS if method == "get"]
    for place in places:
        client.cookies.clear()
        client.get(place, headers={"X-App-Key": "dev"})
        assert place in CHALLENGES or not Session.objects.exists(), place
        Session.objects.all().delete()


def test_challenge_of_a_visitor_is_kept_for_an_hour_and_a_sign_in_as_always(app, alice, settings):
    begun = app("get", "/_allauth/app/v1/auth/webauthn/login")
    session = Session.objects.get()
    assert session.get_decoded()["_session_expiry"] == 3600
    app.token = begun.json().get("meta", {}).get("session_token") or session.session_key
    assert app.sign("login", "alice@example.com", "a-password-of-alice").status_code == 200
    assert "_session_expiry" not in Session.objects.get(session_key=app.token).get_decoded()


def test_expired_sessions_are_deleted(app):
    app("get", "/_allauth/app/v1/auth/webauthn/login")
    assert sweep.clean_up()["expired_sessions"] == 0
    Session.objects.update(expire_date="2020-01-01T00:00:00Z")
    assert sweep.clean_up()["expired_sessions"] == 1
    assert not Session.objects.exists()
