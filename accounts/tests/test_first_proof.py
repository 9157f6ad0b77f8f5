"""Pre-account hijacking: who proves an address is rid of everything that another person set before."""

import json
import re
from datetime import timedelta

import pytest
from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal.auth import TOTP, generate_totp_secret
from allauth.socialaccount.models import SocialAccount
from django.core import mail
from django.core.files.storage import default_storage
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from accounts.models import User
from generation import photos, sweep
from stefna import settings as as_set

pytestmark = pytest.mark.django_db
APP = "/_allauth/app/v1"
VICTIM = "victim@example.com"
ATTACKERS = "a-password-of-the-attacker"
OWNERS = "a-password-of-the-owner"


@pytest.fixture(autouse=True)
def no_limits_of_other_tests(settings):
    settings.ACCOUNT_RATE_LIMITS = False
    settings.MFA_RATE_LIMITS = False


def post(path, data, token=None):
    headers = {"X-Session-Token": token} if token else {}
    return Client().post(f"{APP}/{path}", json.dumps(data), content_type="application/json", headers=headers)


# -- How the attacker signs up: each returns the session that they have then, as a browser or as a token -------------


def sign_up_on_the_page():
    browser = Client()
    assert browser.post(reverse("account_signup"), {"email": VICTIM, "password1": ATTACKERS}).status_code == 302
    return browser, None


def sign_up_in_the_app():
    answer = post("auth/signup", {"email": VICTIM, "password": ATTACKERS})
    assert answer.status_code in (200, 401)
    return None, answer.json()["meta"]["session_token"]


def is_signed_in(browser, token):
    if browser:
        return browser.get(reverse("profile")).status_code == 200
    headers = {"Authorization": f"Bearer {token}", "X-App-Key": "dev"}
    return Client().get("/api/v1/ping", headers=headers).status_code == 200


# -- How the owner of the address proves it: each returns whether they are signed in -------------------------------


def last_mail():
    assert mail.outbox[-1].to == [VICTIM]
    return mail.outbox[-1].body


def code_in_mail():
    return re.search(r"^([A-Z0-9]{4}-[A-Z0-9]{4})$", last_mail(), re.MULTILINE)[1]


def link_in_mail(part):
    return re.search(rf"https?://testserver(/account/{part}/\S+)", last_mail())[1]


def code_on_the_page():
    owner = Client()
    answer = owner.post(reverse("account_request_login_code"), {"email": VICTIM})
    owner.post(answer.url, {"code": code_in_mail()})
    return is_signed_in(owner, None)


def code_in_the_app():
    token = post("auth/code/request", {"email": VICTIM}).json()["meta"]["session_token"]
    answer = post("auth/code/confirm", {"code": code_in_mail()}, token)
    return is_signed_in(None, answer.json()["meta"].get("session_token", token))


def link_on_the_page():
    owner = Client()
    answer = owner.post(link_in_mail("confirm-email"), follow=True)
    assert "the password was removed" in answer.content.decode()
    return code_on_the_page()


def link_in_the_app():
    key = link_in_mail("confirm-email").split("/")[3]
    assert post("auth/email/verify", {"key": key}).status_code == 401
    return code_in_the_app()


def reset_on_the_page():
    owner = Client()
    owner.post(reverse("account_reset_password"), {"email": VICTIM})
    form = owner.get(link_in_mail("password/reset/key"))
    assert owner.post(form.url, {"password1": OWNERS, "password2": OWNERS}).status_code == 302
    owner.post(reverse("account_login"), {"login": VICTIM, "password": OWNERS})
    return is_signed_in(owner, None)


def reset_in_the_app():
    post("auth/password/request", {"email": VICTIM})
    key = re.search(r"/reset/key/([^/\s]+)", last_mail())[1]
    assert post("auth/password/reset", {"key": key, "password": OWNERS}).status_code == 401
    answer = post("auth/login", {"email": VICTIM, "password": OWNERS})
    return is_signed_in(None, answer.json()["meta"].get("session_token"))


PROOFS = [code_on_the_page, code_in_the_app, link_on_the_page, link_in_the_app, reset_on_the_page, reset_in_the_app]


@pytest.mark.parametrize("verification", ["mandatory", "optional"])
@pytest.mark.parametrize("sign_up", [sign_up_on_the_page, sign_up_in_the_app])
@pytest.mark.parametrize("proof", PROOFS)
def test_owner_of_an_address_gets_an_account_that_nobody_else_has_a_key_to(settings, verification, sign_up, proof):
    settings.ACCOUNT_EMAIL_VERIFICATION = verification
    session = sign_up()
    user = User.objects.get()
    # Where addresses need not be proved the attacker is signed in and adds what there is to add.
    assert is_signed_in(*session) == (verification == "optional")
    if verification == "optional":
        TOTP.activate(user, generate_totp_secret())
        Authenticator.objects.create(user=user, type="webauthn", data={})
        Authenticator.objects.create(user=user, type="recovery_codes", data={"seed": "x"})
        SocialAccount.objects.create(user=user, provider="google", uid="attacker")
    assert proof()
    assert list(User.objects.all()) == [user]
    assert EmailAddress.objects.get().verified
    assert not is_signed_in(*session)
    assert (Authenticator.objects.count(), SocialAccount.objects.count()) == (0, 0)
    assert post("auth/login", {"email": VICTIM, "password": ATTACKERS}).status_code == 400
    browser = Client()
    browser.post(reverse("account_login"), {"login": VICTIM, "password": ATTACKERS})
    assert not is_signed_in(browser, None)


@pytest.mark.parametrize("verification", ["mandatory", "optional"])
def test_who_confirms_where_they_signed_up_keeps_the_password(settings, verification):
    settings.ACCOUNT_EMAIL_VERIFICATION = verification
    browser, _ = sign_up_on_the_page()
    browser.post(link_in_mail("confirm-email"))
    assert EmailAddress.objects.get().verified
    assert is_signed_in(browser, None) == (verification == "optional")
    browser.post(reverse("account_login"), {"login": VICTIM, "password": ATTACKERS})
    assert is_signed_in(browser, None)


def test_who_confirms_in_the_app_where_they_signed_up_keeps_the_password(settings):
    settings.ACCOUNT_EMAIL_VERIFICATION = "mandatory"
    _, token = sign_up_in_the_app()
    post("auth/email/verify", {"key": link_in_mail("confirm-email").split("/")[3]}, token)
    answer = post("auth/login", {"email": VICTIM, "password": ATTACKERS})
    assert is_signed_in(None, answer.json()["meta"]["session_token"])


def test_who_confirms_after_signing_in_with_the_password_keeps_it(settings):
    settings.ACCOUNT_EMAIL_VERIFICATION = "mandatory"
    sign_up_on_the_page()
    mail.outbox.clear()
    browser = Client()
    browser.post(reverse("account_login"), {"login": VICTIM, "password": ATTACKERS})
    browser.post(link_in_mail("confirm-email"))
    browser.post(reverse("account_login"), {"login": VICTIM, "password": ATTACKERS})
    assert is_signed_in(browser, None)


def test_code_of_a_proved_address_leaves_everything(settings, alice, client):
    settings.ACCOUNT_EMAIL_VERIFICATION = "mandatory"
    EmailAddress.objects.create(user=alice, email=alice.email, verified=True, primary=True)
    before = User.objects.get().password
    answer = client.post(reverse("account_request_login_code"), {"email": alice.email})
    client.post(answer.url, {"code": re.search(r"^(\S{4}-\S{4})$", mail.outbox[-1].body, re.MULTILINE)[1]})
    assert is_signed_in(client, None)
    assert User.objects.get().password == before


# -- A change to the address of another person -----------------------------------------------------------------------


@pytest.fixture
def pending(settings, alice):
    """Alice wants to change to the address of another person."""
    settings.ACCOUNT_EMAIL_VERIFICATION = "mandatory"
    EmailAddress.objects.create(user=alice, email=alice.email, verified=True, primary=True)
    browser = Client()
    browser.post(reverse("account_login"), {"login": alice.email, "password": "a-password-of-alice"})
    browser.post(reverse("account_email"), {"email": VICTIM, "action_add": ""})
    assert EmailAddress.objects.filter(user=alice, email=VICTIM, verified=False).exists()
    return alice


def test_link_of_a_change_works_only_where_the_account_is_signed_in(pending):
    owner = Client()
    link = link_in_mail("confirm-email")
    answer = owner.post(link, follow=True)
    assert "Sign in to your account first" in answer.content.decode()
    assert post("auth/email/verify", {"key": link.split("/")[3]}).status_code == 401
    assert not EmailAddress.objects.get(email=VICTIM).verified


@pytest.mark.parametrize("way", ["code", "reset"])
@pytest.mark.parametrize("door", ["page", "app"])
def test_address_that_is_only_wanted_gets_neither_code_nor_link(pending, way, door):
    mail.outbox.clear()
    if door == "page":
        name = "account_request_login_code" if way == "code" else "account_reset_password"
        Client().post(reverse(name), {"email": VICTIM})
    else:
        post("auth/code/request" if way == "code" else "auth/password/request", {"email": VICTIM})
    assert "There is no account with this address" in mail.outbox[-1].subject
    assert "reset/key" not in last_mail()


@pytest.mark.parametrize("sign_up", [sign_up_on_the_page, sign_up_in_the_app])
def test_owner_signs_up_with_an_address_that_another_wants(pending, sign_up):
    sign_up()
    assert User.objects.filter(email=VICTIM).exclude(pk=pending.pk).exists()
    assert not EmailAddress.objects.filter(user=pending, email=VICTIM).exists()


def code_is_asked_for_on_the_page():
    owner = Client()
    answer = owner.post(reverse("account_request_login_code"), {"email": VICTIM})
    owner.post(answer.url, {"code": code_in_mail()})
    return User.objects.get(pk=owner.session["_auth_user_id"])


def code_is_asked_for_in_the_app():
    token = post("auth/code/request", {"email": VICTIM}).json()["meta"]["session_token"]
    answer = post("auth/code/confirm", {"code": code_in_mail()}, token).json()
    return User.objects.get(pk=answer["data"]["user"]["id"])


@pytest.mark.parametrize("ask", [code_is_asked_for_on_the_page, code_is_asked_for_in_the_app])
@pytest.mark.parametrize("made", ["sign up", "by hand"])
# Which of two accounts came first must not decide.
@pytest.mark.parametrize("wishes", [1, 8])
def test_code_signs_in_to_the_account_that_an_address_has_and_not_to_one_that_wants_it(settings, made, ask, wishes):
    settings.ACCOUNT_EMAIL_VERIFICATION = "mandatory"
    thieves = [User.objects.create_user(f"thief{number}@example.com", ATTACKERS) for number in range(wishes)]
    owner = User.objects.create_user(VICTIM, OWNERS)
    if made == "sign up":
        EmailAddress.objects.create(user=owner, email=VICTIM, primary=True)
    for thief in thieves:
        EmailAddress.objects.create(user=thief, email=thief.email, verified=True, primary=True)
        browser = Client()
        browser.post(reverse("account_login"), {"login": thief.email, "password": ATTACKERS})
        browser.post(reverse("account_email"), {"email": VICTIM, "action_add": ""})
    assert EmailAddress.objects.filter(user__in=thieves, email=VICTIM).count() == wishes
    assert ask() == owner
    assert EmailAddress.objects.get(user=owner).verified
    assert not EmailAddress.objects.filter(user__in=thieves, email=VICTIM, verified=True).exists()


@pytest.mark.parametrize("door", ["page", "app"])
@pytest.mark.parametrize("make", [User.objects.create_user, User.objects.create_superuser])
def test_link_for_a_new_password_goes_to_the_account_that_an_address_has(pending, make, door):
    make(VICTIM, OWNERS)
    mail.outbox.clear()
    if door == "page":
        Client().post(reverse("account_reset_password"), {"email": VICTIM})
    else:
        post("auth/password/request", {"email": VICTIM})
    (sent,) = mail.outbox
    assert "/password/reset/key/" in sent.body


@pytest.mark.parametrize("make", [User.objects.create_user, User.objects.create_superuser])
def test_who_wants_an_address_does_not_use_up_the_confirmations_of_its_owner(settings, pending, make):
    settings.ACCOUNT_RATE_LIMITS = as_set.ACCOUNT_RATE_LIMITS
    make(VICTIM, OWNERS)
    thief = Client(REMOTE_ADDR="203.0.113.9")
    thief.post(reverse("account_login"), {"login": pending.email, "password": "a-password-of-alice"})
    for number in range(7):
        thief.post(reverse("account_email"), {"email": f"other{number}@example.com", "action_add": ""})
        thief.post(reverse("account_email"), {"email": VICTIM, "action_add": ""})
    mail.outbox.clear()
    Client().post(reverse("account_login"), {"login": VICTIM, "password": OWNERS})
    assert "confirm-email" in last_mail()


# -- Accounts that nobody ever proved ----------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_accounts_that_were_never_proved_are_deleted_after_three_days(settings, alice, upload):
    settings.ACCOUNT_EMAIL_VERIFICATION = "mandatory"
    EmailAddress.objects.create(user=alice, email=alice.email, verified=True)
    sign_up_on_the_page()
    user = User.objects.get(email=VICTIM)
    guest = User.objects.guest("a" * 32)
    stored = photos.accept(user, upload).file.name
    sweep.clean_up()
    assert User.objects.filter(pk=user.pk).exists()
    staff = User.objects.create_user("staff@example.com", is_staff=True)
    EmailAddress.objects.create(user=staff, email=staff.email)
    used = User.objects.create_user("used@example.com", last_login=timezone.now())
    EmailAddress.objects.create(user=used, email=used.email)
    User.objects.update(date_joined=timezone.now() - timedelta(days=3, minutes=1))
    settings.ACCOUNT_EMAIL_VERIFICATION = "none"
    sweep.clean_up()
    assert User.objects.filter(pk=user.pk).exists()
    settings.ACCOUNT_EMAIL_VERIFICATION = "mandatory"
    sweep.clean_up()
    assert set(User.objects.all()) == {alice, guest, staff, used}
    assert not default_storage.exists(stored)
