"""What changes who may sign in, takes everything along or ends the account asks for a recent proof of who it is."""

import itertools
import json
import re
import time

import pytest
from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from django.core import mail
from django.test import Client
from django.urls import reverse

from accounts import password_limits
from accounts.models import AddressChange, User
from accounts.tests.test_accounts import PASSWORD, submit
from accounts.tests.test_sign_in import code_of
from generation.models import Export

pytestmark = pytest.mark.django_db
APP = "/_allauth/app/v1"
NEW = "new@example.com"
OLD_SECONDS = 301


@pytest.fixture(autouse=True)
def as_in_production(settings):
    settings.ACCOUNT_EMAIL_VERIFICATION = "mandatory"
    settings.ACCOUNT_RATE_LIMITS = settings.MFA_RATE_LIMITS = False


@pytest.fixture
def member(alice):
    EmailAddress.objects.create(user=alice, email=alice.email, verified=True, primary=True)
    return alice


def code_in_mail():
    return re.search(r"^([A-Z0-9]{4}-[A-Z0-9]{4})$", mail.outbox[-1].body, re.MULTILINE)[1]


def browser_of(member):
    """Sign in on the page, by password or, without one, by code."""
    browser = Client()
    if member.has_usable_password():
        browser.post(reverse("account_login"), {"login": member.email, "password": PASSWORD})
    else:
        answer = browser.post(reverse("account_request_login_code"), {"email": member.email})
        browser.post(answer.url, {"code": code_in_mail()})
    assert browser.get(reverse("profile")).status_code == 200
    return browser


class App:
    """A client of the API, signed in by password or, without one, by code."""

    def __init__(self, member):
        self.token = None
        if member.has_usable_password():
            answer = self("post", f"{APP}/auth/login", {"email": member.email, "password": PASSWORD})
        else:
            asked = self("post", f"{APP}/auth/code/request", {"email": member.email})
            self.token = asked.json()["meta"]["session_token"]
            answer = self("post", f"{APP}/auth/code/confirm", {"code": code_in_mail()})
        self.token = answer.json()["meta"]["session_token"]

    def __call__(self, method, path, data=None):
        headers = {"X-App-Key": "dev"} | ({"X-Session-Token": self.token} if self.token else {})
        sent = {} if data is None else {"data": json.dumps(data), "content_type": "application/json"}
        answer = getattr(Client(), method)(path, headers=headers, **sent)
        if answer.headers.get("Content-Type", "").startswith("application/json"):
            self.token = answer.json().get("meta", {}).get("session_token", self.token)
        return answer


PAGES = {
    "email": ("account_email", {"email": NEW, "action_add": ""}),
    "totp": ("mfa_activate_totp", {"code": "000000"}),
    "passkey": ("mfa_add_webauthn", {}),
    "recovery codes": ("mfa_generate_recovery_codes", {}),
    "export": ("export", {}),
    "deletion": ("delete_account", {}),
}
CALLS = {
    "email": ("post", f"{APP}/account/email", {"email": NEW}),
    "passkey": ("get", f"{APP}/account/authenticators/webauthn", None),
    "export": ("post", "/api/v1/profile/export", None),
    "deletion": ("delete", "/api/v1/profile", None),
}


def wait(time_machine):
    time_machine.move_to(time.time() + OLD_SECONDS, tick=True)


# The form of a change asks for the current password: only where there is none a proof is asked for.
@pytest.mark.parametrize(("what", "has_password"), [*itertools.product(PAGES, [True, False]), ("password", False)])
def test_page_asks_an_old_session_and_not_a_fresh_one(member, what, has_password, time_machine):
    if not has_password:
        member.set_unusable_password()
        member.save()
    pages = PAGES | {"password": ("account_set_password", {"password1": "quite-another-one", "password2": "x"})}
    name, fields = pages[what]
    fresh = browser_of(member)
    other = fields | ({"email": "other@example.com"} if what == "email" else {})
    first = fresh.post(reverse(name), other) if what != "deletion" else fresh.get(reverse(name))
    assert "reauthenticate" not in (first.get("Location") or "")
    assert first.get("Location", "").partition("?")[0] != reverse("account_login")
    old = browser_of(member)
    wait(time_machine)
    answer = old.post(reverse(name), fields)
    door = "account_reauthenticate" if has_password else "account_login"
    assert answer.url.partition("?")[0] == reverse(door)
    assert User.objects.filter(pk=member.pk).exists()
    assert not EmailAddress.objects.filter(email=NEW).exists()


@pytest.mark.parametrize(("what", "has_password"), [*itertools.product(CALLS, [True, False]), ("password", False)])
def test_app_is_asked_with_an_old_session_and_not_with_a_fresh_one(member, settings, what, has_password, time_machine):
    settings.APP_KEYS = {"dev": "dev"}
    if not has_password:
        member.set_unusable_password()
        member.save()
    calls = CALLS | {"password": ("post", f"{APP}/account/password/change", {"new_password": "quite-another-one"})}
    app = App(member)
    wait(time_machine)
    answer = app(*calls[what])
    assert answer.status_code == 401
    if what in ("export", "deletion"):
        assert answer.json()["code"] == "reauthentication_required"
    assert User.objects.filter(pk=member.pk).exists()
    if has_password:
        assert app("post", f"{APP}/auth/reauthenticate", {"password": PASSWORD}).status_code == 200
    else:
        app = App(member)
    assert app(*calls[what]).status_code not in (401, 403)


@pytest.mark.parametrize("has_second_step", [True, False])
def test_app_changes_second_steps_only_with_a_fresh_session(member, has_second_step, time_machine):
    app = App(member)
    path = f"{APP}/account/authenticators/totp"
    secret = app("get", path).json()["meta"]["secret"]
    if has_second_step:
        assert app("post", path, {"code": code_of(secret)}).status_code == 200
    wait(time_machine)
    if has_second_step:
        assert app("post", f"{APP}/account/authenticators/recovery-codes", {}).status_code == 401
        assert app("delete", path).status_code == 401
    else:
        assert app("post", path, {"code": code_of(secret)}).status_code == 401
    assert Authenticator.objects.filter(type="totp").exists() == has_second_step


def test_guest_exports_and_deletes_without_a_proof(client, catalogue, time_machine):
    submit(client)
    wait(time_machine)
    assert client.post(reverse("export")).url == reverse("export")
    assert Export.objects.exists()
    client.post(reverse("delete_account"))
    assert not User.objects.exists()


@pytest.mark.parametrize("door", ["delete", "reauthenticate", "change"])
def test_passwords_are_not_guessed_with_a_session(settings, member, door, time_machine):
    settings.APP_KEYS, settings.ACCOUNT_RATE_LIMITS = {"dev": "dev"}, {}
    app = App(member)
    calls = {
        "delete": ("delete", "/api/v1/profile", lambda word: {"password": word}),
        "reauthenticate": ("post", f"{APP}/auth/reauthenticate", lambda word: {"password": word}),
        "change": (
            "post",
            f"{APP}/account/password/change",
            lambda word: {"current_password": word, "new_password": "quite-another-one"},
        ),
    }
    method, path, body = calls[door]
    for number in range(60):
        assert app(method, path, body(f"guess {number}")).status_code in (400, 429)
    assert app(method, path, body(PASSWORD)).status_code in (400, 429)
    member.refresh_from_db()
    assert member.check_password(PASSWORD)


def test_right_password_deletes_with_an_old_session(settings, member, time_machine):
    settings.APP_KEYS = {"dev": "dev"}
    app = App(member)
    wait(time_machine)
    assert app("delete", "/api/v1/profile", {"password": "wrong"}).status_code == 400
    assert app("delete", "/api/v1/profile", {"password": PASSWORD}).status_code == 204


# -- The way back after a changed address ------------------------------------------------------------------------------


def change_address(browser, address):
    browser.post(reverse("account_email"), {"email": address, "action_add": ""})
    body = next(one.body for one in reversed(mail.outbox) if one.to == [address])
    browser.post(re.search(r"https?://testserver(/account/confirm-email/\S+)", body)[1])


def way_back(address):
    body = next(one.body for one in reversed(mail.outbox) if one.to == [address] and "changed" in one.subject)
    return re.search(r"https?://testserver(/account/email/undo/\S+)", body)[1]


def test_old_address_takes_the_account_back(member):
    thief = browser_of(member)
    change_address(thief, "thief@example.com")
    Authenticator.objects.create(user=member, type="webauthn", data={})
    member.refresh_from_db()
    assert member.email == "thief@example.com"
    owner, link = Client(), way_back("alice@example.com")
    # Looking, as a mail scanner does, changes nothing.
    assert "alice@example.com" in owner.get(link).content.decode()
    assert AddressChange.objects.get().undone_at is None
    assert owner.post(link).url == reverse("account_request_login_code")
    member.refresh_from_db()
    assert (member.email, member.has_usable_password()) == ("alice@example.com", False)
    assert list(EmailAddress.objects.values_list("email", "verified", "primary")) == [("alice@example.com", True, True)]
    assert not Authenticator.objects.exists()
    assert thief.get(reverse("profile")).status_code == 302
    assert owner.post(link).status_code == 404
    browser_of(member)


def test_thief_who_changes_it_twice_does_not_come_back(member):
    thief = browser_of(member)
    change_address(thief, "thief@example.com")
    change_address(thief, "second@example.com")
    theirs, owners = way_back("thief@example.com"), way_back("alice@example.com")
    # The thief's own way back does not close that of the owner.
    assert Client().post(theirs).status_code == 302
    assert Client().post(owners).status_code == 302
    assert Client().post(theirs).status_code == 404
    member.refresh_from_db()
    assert member.email == "alice@example.com"


@pytest.mark.parametrize("proved", [False, True])
def test_old_address_that_was_taken_comes_back_unless_it_was_proved(member, proved):
    change_address(browser_of(member), "thief@example.com")
    Client().post(reverse("account_signup"), {"email": "alice@example.com", "password1": "a-password-of-the-thief"})
    EmailAddress.objects.filter(email="alice@example.com").update(verified=proved)
    assert Client().post(way_back("alice@example.com")).status_code == (404 if proved else 302)
    member.refresh_from_db()
    assert member.email == ("thief@example.com" if proved else "alice@example.com")


@pytest.mark.parametrize("door", ["page", "app"])
@pytest.mark.parametrize("count", [1, 3])
def test_accounts_that_want_the_old_address_do_not_block_the_way_back(member, settings, door, count):
    settings.APP_KEYS = {"dev": "dev"}
    change_address(browser_of(member), "thief@example.com")
    link = way_back("alice@example.com")
    for number in range(count):
        second = User.objects.create_user(f"second{number}@example.com", PASSWORD)
        EmailAddress.objects.create(user=second, email=second.email, verified=True, primary=True)
        if door == "page":
            browser_of(second).post(reverse("account_email"), {"email": "alice@example.com", "action_add": ""})
        else:
            assert App(second)("post", f"{APP}/account/email", {"email": "alice@example.com"}).status_code == 200
    assert EmailAddress.objects.filter(email="alice@example.com").count() == count
    assert Client().post(link).status_code == 302
    member.refresh_from_db()
    assert member.email == "alice@example.com"
    assert EmailAddress.objects.get(email="alice@example.com").user == member
    # Those accounts have an address of their own, and stay.
    assert User.objects.filter(email__startswith="second").count() == count


def test_way_back_deletes_no_account_of_staff(member):
    change_address(browser_of(member), "thief@example.com")
    User.objects.create_superuser("alice@example.com", PASSWORD)
    assert Client().post(way_back("alice@example.com")).status_code == 404
    assert User.objects.get(email="alice@example.com").is_superuser


@pytest.mark.parametrize("days", [6.9, 7.1])
def test_way_back_works_for_seven_days(member, days, time_machine):
    change_address(browser_of(member), "thief@example.com")
    link = way_back("alice@example.com")
    time_machine.move_to(time.time() + days * 24 * 3600, tick=True)
    assert Client().get(link).status_code == (200 if days < 7 else 404)
    assert Client().get(link[:-1] + ("x" if link[-1] != "x" else "y")).status_code == 404


def test_recent_is_what_the_setting_says(settings, member):
    settings.ACCOUNT_REAUTHENTICATION_TIMEOUT = 60
    assert password_limits.is_recent({password_limits.SIGNED_IN_AT: time.time() - 59}, member)
    assert not password_limits.is_recent({password_limits.SIGNED_IN_AT: time.time() - 61}, member)
