"""Sessions of sign-ins that were begun and not ended: they hold an address, and go after an hour."""

import json
import re
import time

import pytest
from allauth.account.models import EmailAddress
from django.conf import settings as configured
from django.contrib.sessions.models import Session
from django.core import mail
from django.test import Client
from django.urls import reverse

from accounts.tests.test_accounts import PASSWORD, submit
from generation import services, sweep

pytestmark = pytest.mark.django_db
APP = "/_allauth/app/v1"
HOUR = 3600
# A session that is signed in lasts as long as Django keeps it.
LONG = configured.SESSION_COOKIE_AGE


@pytest.fixture(autouse=True)
def as_in_production(settings):
    settings.ACCOUNT_EMAIL_VERIFICATION = "mandatory"
    settings.ACCOUNT_RATE_LIMITS = settings.MFA_RATE_LIMITS = False


@pytest.fixture
def member(alice):
    EmailAddress.objects.create(user=alice, email=alice.email, verified=True, primary=True)
    return alice


def app(path, data, token=None):
    headers = {"X-Session-Token": token} if token else {}
    return Client().post(f"{APP}/{path}", json.dumps(data), content_type="application/json", headers=headers).json()


def code_in_mail():
    return re.search(r"^([A-Z0-9]{4}-[A-Z0-9]{4})$", mail.outbox[-1].body, re.MULTILINE)[1]


def code_on_the_page(email):
    Client().post(reverse("account_request_login_code"), {"email": email})


def code_in_the_app(email):
    app("auth/code/request", {"email": email})


def password_without_a_proof_on_the_page(email):
    EmailAddress.objects.filter(email=email).update(verified=False)
    Client().post(reverse("account_login"), {"login": email, "password": PASSWORD})


def password_without_a_proof_in_the_app(email):
    EmailAddress.objects.filter(email=email).update(verified=False)
    app("auth/login", {"email": email, "password": PASSWORD})


def held():
    return [session for session in Session.objects.all() if "alice@example.com" in str(session.get_decoded())]


BEGINNINGS = [
    code_on_the_page,
    code_in_the_app,
    password_without_a_proof_on_the_page,
    password_without_a_proof_in_the_app,
]


@pytest.mark.parametrize("begin", BEGINNINGS)
def test_address_of_a_deleted_account_is_in_no_session_after_an_hour(member, begin, time_machine):
    begin(member.email)
    assert len(Session.objects.all()) == 1
    services.delete_account(member)
    time_machine.move_to(time.time() + HOUR + 1)
    sweep.clean_up()
    assert not Session.objects.exists()
    assert held() == []


@pytest.mark.parametrize("door", ["page", "app"])
def test_begun_sign_in_that_is_ended_lasts_as_any_other(member, door):
    if door == "page":
        browser = Client()
        answer = browser.post(reverse("account_request_login_code"), {"email": member.email})
        assert browser.session.get_expiry_age() == HOUR
        browser.post(answer.url, {"code": code_in_mail()})
        assert browser.get(reverse("profile")).status_code == 200
    else:
        token = app("auth/code/request", {"email": member.email})["meta"]["session_token"]
        assert app("auth/code/confirm", {"code": code_in_mail()}, token)["meta"]["is_authenticated"]
    session = Session.objects.get()
    assert (session.expire_date.timestamp() - time.time()) > LONG - HOUR


def test_guest_who_has_begun_a_sign_in_keeps_the_pictures(client, catalogue, member):
    client.get(reverse("studio"))
    client.post(reverse("account_request_login_code"), {"email": member.email})
    submit(client)
    assert client.session.get_expiry_age() == LONG


def test_who_signs_up_has_a_day_to_confirm_in_the_same_browser(client, time_machine):
    client.post(reverse("account_signup"), {"email": "new@example.com", "password1": PASSWORD})
    time_machine.move_to(time.time() + 23 * HOUR)
    client.post(re.search(r"http://testserver(/account/confirm-email/\S+)", mail.outbox[-1].body)[1])
    client.post(reverse("account_login"), {"login": "new@example.com", "password": PASSWORD})
    assert client.get(reverse("profile")).status_code == 200
