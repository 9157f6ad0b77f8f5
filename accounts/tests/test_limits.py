"""Limits that slow an attacker down and not the member."""

import json
import re
import time

import pytest
from allauth.account.models import EmailAddress
from django.conf import settings as ours
from django.core import mail
from django.test import Client
from django.urls import reverse

from accounts.models import User
from accounts.tests.test_accounts import PASSWORD

pytestmark = pytest.mark.django_db
APP = "/_allauth/app/v1"
ATTACKER, MEMBER = "203.0.113.66", "198.51.100.7"


@pytest.fixture(autouse=True)
def as_in_production(settings):
    settings.ACCOUNT_EMAIL_VERIFICATION = "mandatory"


@pytest.fixture
def member(alice):
    EmailAddress.objects.create(user=alice, email=alice.email, verified=True, primary=True)
    return alice


def browser(address):
    return Client(REMOTE_ADDR=address)


def by_page(client, email, password):
    answer = client.post(reverse("account_login"), {"login": email, "password": password})
    return answer.status_code == 302


def by_app(client, email, password):
    sent = json.dumps({"email": email, "password": password})
    return client.post(f"{APP}/auth/login", sent, content_type="application/json").status_code == 200


def by_code(client, email):
    answer = client.post(reverse("account_request_login_code"), {"email": email})
    code = re.search(r"^([A-Z0-9]{4}-[A-Z0-9]{4})$", mail.outbox[-1].body, re.MULTILINE)[1]
    client.post(answer.url, {"code": code})
    return client.get(reverse("profile")).status_code == 200


DOORS = pytest.mark.parametrize("door", [by_page, by_app])


@DOORS
def test_six_wrong_passwords_from_elsewhere_keep_nobody_out(member, door):
    attacker = browser(ATTACKER)
    assert not any(door(attacker, member.email, f"guess {number}") for number in range(6))
    assert not door(attacker, member.email, PASSWORD)
    assert door(browser(MEMBER), member.email, PASSWORD)
    assert by_code(browser("198.51.100.8"), member.email)


@DOORS
def test_many_addresses_that_guess_slow_the_password_only(member, settings, door):
    settings.ACCOUNT_RATE_LIMITS = ours.ACCOUNT_RATE_LIMITS | {"password_failed_account": "10/10m/key"}
    known = browser(MEMBER)
    assert door(known, member.email, PASSWORD)
    # A page notes where it is used, and so does signing in.
    for number in range(10):
        assert not door(browser(f"203.0.113.{number}"), member.email, "guess")
    assert not door(browser("203.0.113.200"), member.email, PASSWORD)
    assert by_code(browser("203.0.113.201"), member.email)
    assert door(browser(MEMBER), member.email, PASSWORD)


@DOORS
def test_one_client_is_one_client_whatever_it_writes_behind_its_network(member, door):
    for number in range(5):
        assert not door(browser(f"2001:db8:0:1::{number + 1}"), member.email, "guess")
    assert not door(browser("2001:db8:0:1:ffff::9"), member.email, PASSWORD)
    assert door(browser("2001:db8:0:2::1"), member.email, PASSWORD)


def test_new_password_by_link_is_not_kept_out_by_the_old_failures(member):
    client = browser(MEMBER)
    for number in range(6):
        by_page(client, member.email, f"guess {number}")
    client.post(reverse("account_reset_password"), {"email": member.email})
    form = client.get(re.search(r"http://testserver(\S+)", mail.outbox[-1].body)[1])
    client.post(form.url, {"password1": "quite-another-one", "password2": "quite-another-one"})
    assert by_page(client, member.email, "quite-another-one")


def app(path, **fields):
    def send(client, email):
        return client.post(f"{APP}/auth/{path}", json.dumps(fields | {"email": email}), content_type="application/json")

    return send


def page(name, **fields):
    return lambda client, email: client.post(reverse(name), fields | {"email": email})


MAILS = {
    "page code": page("account_request_login_code"),
    "page reset": page("account_reset_password"),
    "page sign up": page("account_signup", password1=PASSWORD),
    "app code": app("code/request"),
    "app reset": app("password/request"),
    "app sign up": app("signup", password=PASSWORD),
}


@pytest.mark.parametrize("way", MAILS)
def test_one_client_sends_no_forty_mails_to_strangers(way, time_machine):
    for number in range(40):
        # Slowly, so that only the limits of an hour count.
        time_machine.move_to(time.time() + 10)
        MAILS[way](browser(ATTACKER), f"stranger{number}@example.com")
    assert 5 <= len(mail.outbox) <= 20
    MAILS[way](browser(MEMBER), "another@example.com")
    assert mail.outbox[-1].to == ["another@example.com"]


@pytest.mark.parametrize("door", ["page", "app"])
def test_changes_of_address_send_no_forty_mails_to_strangers(member, door, time_machine):
    client = browser(ATTACKER)
    if door == "page":
        by_page(client, member.email, PASSWORD)
        headers = {}
    else:
        sent = json.dumps({"email": member.email, "password": PASSWORD})
        answer = client.post(f"{APP}/auth/login", sent, content_type="application/json")
        headers = {"X-Session-Token": answer.json()["meta"]["session_token"]}
    for number in range(40):
        time_machine.move_to(time.time() + 7)
        address = {"email": f"stranger{number}@example.com"}
        if door == "page":
            client.post(reverse("account_email"), address | {"action_add": ""})
        else:
            sent = json.dumps(address)
            client.post(f"{APP}/account/email", sent, content_type="application/json", headers=headers)
    assert 5 <= len(mail.outbox) <= 20


def test_one_client_has_one_limit_for_all_ways(time_machine):
    for number in range(40):
        time_machine.move_to(time.time() + 10)
        list(MAILS.values())[number % len(MAILS)](browser(ATTACKER), f"stranger{number}@example.com")
    assert len(mail.outbox) <= 20


@pytest.mark.parametrize("known", [True, False])
def test_many_clients_do_not_fill_one_mailbox(member, known, time_machine):
    target = member.email if known else "stranger@example.com"
    for number in range(120):
        time_machine.move_to(time.time() + 10)
        list(MAILS.values())[number % len(MAILS)](browser(f"203.0.113.{number}"), target)
    assert 0 < len(mail.outbox) <= 40


@pytest.mark.parametrize("way", ["page sign up", "app sign up"])
def test_21st_sign_up_of_an_address_on_a_day_is_refused(way, settings, time_machine, caplog):
    settings.TRUSTED_PROXIES = 1
    assert settings.SIGNUPS_PER_ADDRESS_DAILY == 20
    time_machine.move_to(time.time() // 86_400 * 86_400 + 60)
    statuses = []
    for number in range(25):
        time_machine.move_to(time.time() + 600)
        # What the client writes itself comes before what the proxy writes.
        client = Client(HTTP_X_FORWARDED_FOR=f"192.0.2.{number}, {ATTACKER}")
        statuses.append(MAILS[way](client, f"person{number}@example.com").status_code)
    assert statuses[:20].count(429) == 0
    assert statuses[20:] == [429] * 5
    assert User.objects.count() == 20
    assert "limit_hit" in caplog.text
    other = Client(HTTP_X_FORWARDED_FOR=MEMBER)
    assert MAILS[way](other, "another@example.com").status_code != 429


def changes_on_the_page(client, password):
    words = {"password1": "quite-another-one", "password2": "quite-another-one"}
    client.post(reverse("account_change_password"), words | {"oldpassword": password})


def confirms_on_the_page(client, password):
    client.post(reverse("account_reauthenticate"), {"password": password})


def in_the_app(path, **fields):
    def send(client, password):
        words = {name: password if word is None else word for name, word in fields.items()}
        headers = {"X-Session-Token": client.session.session_key}
        Client(REMOTE_ADDR=MEMBER).post(
            f"{APP}/{path}", json.dumps(words), content_type="application/json", headers=headers
        )

    return send


CHANGES = {
    "page": changes_on_the_page,
    "app": in_the_app("account/password/change", current_password=None, new_password="quite-another-one"),
}
CONFIRMS = {"page": confirms_on_the_page, "app": in_the_app("auth/reauthenticate", password=None)}


@pytest.mark.parametrize("door", CHANGES)
def test_current_password_is_counted_with_all_others(member, door, time_machine):
    client = browser(MEMBER)
    assert by_page(client, member.email, PASSWORD)
    # Slowly enough for the limit of a minute, which each of the two has besides.
    for number in range(5):
        time_machine.move_to(time.time() + 20)
        CONFIRMS[door](client, f"guess {number}")
    time_machine.move_to(time.time() + 20)
    CHANGES[door](client, PASSWORD)
    member.refresh_from_db()
    assert member.check_password(PASSWORD)
    time_machine.move_to(time.time() + 301)
    CHANGES[door](client, PASSWORD)
    member.refresh_from_db()
    assert member.check_password("quite-another-one")
