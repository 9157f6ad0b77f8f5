"""The list of devices: where an account is signed in, and signing it out there."""

import json
import time

import pytest
from allauth.account.models import EmailAddress
from allauth.usersessions.models import UserSession
from django.test import Client
from django.urls import reverse

from accounts.tests.test_accounts import PASSWORD, submit

pytestmark = pytest.mark.django_db
APP = "/_allauth/app/v1"
PAGE = "usersessions_list"


@pytest.fixture(autouse=True)
def as_in_production(settings):
    settings.ACCOUNT_EMAIL_VERIFICATION = "mandatory"
    settings.ACCOUNT_RATE_LIMITS = False
    settings.APP_KEYS = {"dev": "dev"}


@pytest.fixture
def member(alice):
    EmailAddress.objects.create(user=alice, email=alice.email, verified=True, primary=True)
    return alice


def browser(member, agent):
    client = Client(headers={"User-Agent": agent})
    client.post(reverse("account_login"), {"login": member.email, "password": PASSWORD})
    assert is_in(client)
    return client


def is_in(client):
    return client.get(reverse("profile")).status_code == 200


def app(member):
    sent = json.dumps({"email": member.email, "password": PASSWORD})
    answer = Client(headers={"User-Agent": "App"}).post(f"{APP}/auth/login", sent, content_type="application/json")
    return answer.json()["meta"]["session_token"]


def ping(token):
    headers = {"Authorization": f"Bearer {token}", "X-App-Key": "dev"}
    return Client().get("/api/v1/ping", headers=headers).status_code


def call(token, method, data=None):
    sent = {} if data is None else {"data": json.dumps(data), "content_type": "application/json"}
    return getattr(Client(), method)(f"{APP}/auth/sessions", headers={"X-Session-Token": token}, **sent)


def test_page_lists_browsers_and_apps_and_ends_one(member, bob):
    here, there, token = browser(member, "Firefox here"), browser(member, "Firefox there"), app(member)
    text = here.get(reverse(PAGE)).content.decode()
    assert ("Firefox here" in text, "Firefox there" in text, "App" in text) == (True, True, True)
    assert text.count("This device") == 1
    assert token not in text
    assert reverse(PAGE) in here.get(reverse("profile")).content.decode()
    other = UserSession.objects.get(user_agent="Firefox there")
    here.post(reverse(PAGE), {"session": other.pk})
    assert (is_in(here), is_in(there), ping(token)) == (True, False, 200)
    here.post(reverse(PAGE), {"session": UserSession.objects.get(user_agent="App").pk})
    assert (is_in(here), ping(token)) == (True, 401)


def test_page_ends_all_others(member):
    here, there, token = browser(member, "here"), browser(member, "there"), app(member)
    here.post(reverse(PAGE))
    assert (is_in(here), is_in(there), ping(token)) == (True, False, 401)


def test_own_session_is_ended_too(member):
    here, there = browser(member, "here"), browser(member, "there")
    answer = here.post(reverse(PAGE), {"session": UserSession.objects.get(user_agent="here").pk})
    assert answer.url == reverse("account_login")
    assert (is_in(here), is_in(there)) == (False, True)


@pytest.mark.parametrize("chosen", ["another's", "999999", "x", "99999999999999999999999", "9" * 5000])
def test_another_persons_session_is_as_none(member, bob, chosen):
    EmailAddress.objects.create(user=bob, email=bob.email, verified=True, primary=True)
    his = Client()
    his.post(reverse("account_login"), {"login": bob.email, "password": "a-password-of-bob"})
    pk = UserSession.objects.get(user=bob).pk if chosen == "another's" else chosen
    assert browser(member, "here").post(reverse(PAGE), {"session": pk}).status_code == 404
    assert is_in(his)


def test_app_lists_and_ends_sessions(member):
    there, token = browser(member, "there"), app(member)
    listed = call(token, "get").json()["data"]
    assert {one["user_agent"]: one["is_current"] for one in listed} == {"there": False, "App": True}
    assert all(one["last_seen_at"] for one in listed)
    chosen = [one["id"] for one in listed if not one["is_current"]]
    assert call(token, "delete", {"sessions": chosen}).status_code == 200
    assert (is_in(there), ping(token)) == (False, 200)


def test_session_of_before_is_listed_once_it_was_used_for_a_while(member, client, time_machine):
    client.force_login(member)
    assert is_in(client)
    assert not UserSession.objects.exists()
    time_machine.move_to(time.time() + 301)
    assert is_in(client)
    assert UserSession.objects.get().user == member


def test_page_lists_the_session_that_it_is_looked_at_in(member, client):
    client.force_login(member)
    assert "This device" in client.get(reverse(PAGE)).content.decode()
    assert UserSession.objects.get().user == member


def test_use_is_noted_every_few_minutes_and_not_with_each_request(member, time_machine):
    client = browser(member, "here")
    signed_in = UserSession.objects.get().last_seen_at
    time_machine.move_to(time.time() + 299)
    assert is_in(client)
    assert UserSession.objects.get().last_seen_at == signed_in
    time_machine.move_to(time.time() + 5)
    assert is_in(client)
    noted = UserSession.objects.get().last_seen_at
    assert noted > signed_in
    assert is_in(client)
    assert UserSession.objects.get().last_seen_at == noted


def test_changed_password_ends_other_sessions(member):
    here, there, token = browser(member, "here"), browser(member, "there"), app(member)
    new = "quite-another-password"
    here.post(reverse("account_change_password"), {"oldpassword": PASSWORD, "password1": new, "password2": new})
    assert (is_in(here), is_in(there), ping(token)) == (True, False, 401)


def test_guest_has_no_devices(client, catalogue):
    submit(client)
    assert client.get(reverse(PAGE)).url == reverse("account_signup")
