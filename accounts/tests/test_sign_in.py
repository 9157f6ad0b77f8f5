"""Every way of signing in: what it asks for, where it leads, what comes along, and what it does not give away."""

import re
import uuid

import pytest
from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.mfa.recovery_codes.internal.auth import RecoveryCodes
from allauth.mfa.totp.internal.auth import (
    TOTP,
    format_hotp_value,
    generate_totp_secret,
    hotp_value,
    yield_hotp_counters_from_time,
)
from django.core import mail
from django.urls import get_resolver, reverse

from accounts.models import User
from accounts.tests.test_accounts import PASSWORD, submit
from generation.models import Run

pytestmark = pytest.mark.django_db
THERE = "/runs/?status=favourite"


@pytest.fixture(autouse=True)
def no_limits_of_other_tests(settings):
    settings.ACCOUNT_RATE_LIMITS = False
    settings.MFA_RATE_LIMITS = False


@pytest.fixture
def member(alice):
    EmailAddress.objects.create(user=alice, email=alice.email, verified=True, primary=True)
    return alice


@pytest.fixture
def secret(member):
    made = generate_totp_secret()
    TOTP.activate(member, made)
    RecoveryCodes.activate(member)
    return made


def code_of(secret):
    return format_hotp_value(hotp_value(secret, next(iter(yield_hotp_counters_from_time()))))


def sign_in(client, next=THERE):
    return client.post(reverse("account_login"), {"login": "alice@example.com", "password": PASSWORD, "next": next})


def ask_for_code(client, email="alice@example.com"):
    return client.post(reverse("account_request_login_code"), {"email": email, "next": THERE})


def code_in_mail():
    return re.search(r"^([A-Z0-9]{4}-[A-Z0-9]{4})$", mail.outbox[-1].body, re.MULTILINE)[1]


def user_of(client):
    return client.get(reverse("profile")).context["user"] if "_auth_user_id" in client.session else None


# -- Where it leads ------------------------------------------------------------------------------------------


def test_links_between_the_doors_carry_the_page_to_come_back_to(client):
    login = client.get(reverse("account_login"), {"next": THERE}).content.decode()
    carried = "?next=%2Fruns%2F%3Fstatus%3Dfavourite"
    for name in ("account_signup", "account_request_login_code"):
        assert reverse(name) + carried in login
    # The form of the password and the one of the passkey.
    assert login.count(f'<input type="hidden" name="next" value="{THERE}">') == 2
    assert reverse("account_login") + carried in client.get(reverse("account_signup") + carried).content.decode()


def test_password_leads_back(client, member):
    assert sign_in(client).url == THERE


def test_foreign_page_is_not_led_to(client, member):
    assert sign_in(client, next="https://elsewhere.example/").url == reverse("studio")


def test_code_by_mail_signs_in_and_leads_back(client, member):
    answer = ask_for_code(client)
    assert mail.outbox[-1].to == [member.email]
    done = client.post(answer.url, {"code": code_in_mail(), "next": THERE})
    assert done.url == THERE
    assert user_of(client) == member


def test_wrong_code_does_not_sign_in(client, member):
    answer = ask_for_code(client)
    assert client.post(answer.url, {"code": "AAAA-AAAA"}).status_code == 200
    assert user_of(client) is None


def test_second_step_is_asked_for_and_leads_back(client, member, secret):
    answer = sign_in(client)
    assert answer.url == reverse("mfa_authenticate")
    assert user_of(client) is None
    assert client.post(answer.url, {"code": "000000"}).status_code == 200
    assert client.post(answer.url, {"code": code_of(secret)}).url == THERE
    assert user_of(client) == member


def test_code_by_mail_does_not_go_round_the_second_step(client, member, secret):
    answer = ask_for_code(client)
    assert client.post(answer.url, {"code": code_in_mail(), "next": THERE}).url == reverse("mfa_authenticate")
    assert user_of(client) is None


def test_recovery_code_works_once(client, member, secret):
    code = Authenticator.objects.get(user=member, type="recovery_codes").wrap().get_unused_codes()[0]
    client.post(sign_in(client).url, {"code": code})
    assert user_of(client) == member
    client.logout()
    client.post(sign_in(client).url, {"code": code})
    assert user_of(client) is None


def test_second_step_can_be_left_for_another_way(client, member, secret):
    step = client.get(sign_in(client).url).content.decode()
    assert f'href="{reverse("account_login")}"' in step
    assert client.get(reverse("account_login")).status_code == 200


# -- What comes along ----------------------------------------------------------------------------------------


def by_password(client, secret):
    return sign_in(client)


def by_code(client, secret):
    return client.post(ask_for_code(client).url, {"code": code_in_mail()})


@pytest.mark.parametrize("way", [by_password, by_code])
@pytest.mark.parametrize("two_factor", [False, True])
def test_guest_keeps_everything_whatever_the_way(client, catalogue, member, way, two_factor, request):
    submit(client)
    assert Run.objects.get().user.is_guest
    secret = request.getfixturevalue("secret") if two_factor else ""
    answer = way(client, secret)
    if two_factor:
        assert answer.url == reverse("mfa_authenticate")
        client.post(answer.url, {"code": code_of(secret)})
    assert User.objects.get() == member
    assert Run.objects.get().user == member
    assert user_of(client) == member


def test_guest_that_signs_up_and_confirms_keeps_everything(client, catalogue, settings):
    settings.ACCOUNT_EMAIL_VERIFICATION = "mandatory"
    submit(client)
    client.post(reverse("account_signup"), {"email": "alice@example.com", "password1": PASSWORD})
    assert Run.objects.get().user.is_guest, "an address that nobody has confirmed owns nothing"
    link = re.search(r"https?://testserver(/account/confirm-email/\S+)", mail.outbox[-1].body)[1]
    assert client.get(link).status_code == 200
    client.post(link)
    sign_in(client)
    assert Run.objects.get().user == User.objects.get()
    assert user_of(client).email == "alice@example.com"


def test_guest_who_mistypes_the_address_loses_nothing(client, catalogue, settings):
    settings.ACCOUNT_EMAIL_VERIFICATION = "mandatory"
    submit(client)
    client.post(reverse("account_signup"), {"email": "alise@example.com", "password1": PASSWORD})
    assert client.get(reverse("run", args=[Run.objects.get().pk])).status_code == 200


def test_pages_of_an_account_send_a_guest_to_sign_up(client, catalogue):
    submit(client)
    for name in ("account_email", "account_set_password", "mfa_index", "mfa_activate_totp", "mfa_add_webauthn"):
        assert client.get(reverse(name)).url == reverse("account_signup"), name


def test_pages_at_the_door_are_open_to_guests_and_strangers(client, catalogue):
    doors = ["account_login", "account_signup", "account_request_login_code", "account_reset_password"]
    doors += ["account_reset_password_done", "account_reset_password_from_key_done", "account_inactive"]
    doors += ["account_email_verification_sent", "socialaccount_login_cancelled", "socialaccount_login_error"]
    for _ in range(2):
        for name in doors:
            assert 'class="door"' in client.get(reverse(name)).content.decode(), name
        submit(client)  # and again, as a guest


# -- What it does not give away ------------------------------------------------------------------------------


def answer_of(client, name, **fields):
    answer = client.post(reverse(name), fields, follow=True)
    said = re.sub(r'name="csrfmiddlewaretoken" value="\w+"', "", answer.content.decode())
    return answer.redirect_chain, answer.status_code, said.replace(fields.get("email", fields.get("login")), "ADDRESS")


@pytest.mark.parametrize("as_guest", [False, True])
@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("account_signup", {"password1": PASSWORD}),
        ("account_request_login_code", {}),
        ("account_reset_password", {}),
    ],
)
def test_known_and_unknown_addresses_get_the_same_answer(client, catalogue, member, settings, name, fields, as_guest):
    settings.ACCOUNT_EMAIL_VERIFICATION = "mandatory"
    answers = []
    for email in ("alice@example.com", "nobody@example.com"):
        client.cookies.clear()
        if as_guest:
            submit(client)
        before = client.get(reverse("history"), follow=True).status_code
        answers.append((answer_of(client, name, email=email, **fields), client.get("/runs/").status_code, before))
        assert mail.outbox.pop().to == [email]
    assert answers[0] == answers[1]


def test_wrong_password_and_unknown_address_get_the_same_answer(client, member):
    fields = {"password": "not-the-password"}
    known = answer_of(client, "account_login", login="alice@example.com", **fields)
    assert known == answer_of(client, "account_login", login="nobody@example.com", **fields)


def test_guessing_passwords_is_slowed_down(client, member, settings):
    settings.ACCOUNT_RATE_LIMITS = {}
    there = {"REMOTE_ADDR": f"10.0.0.{uuid.uuid4().int % 250}"}
    for _ in range(5):
        client.post(reverse("account_login"), {"login": member.email, "password": "guess"}, **there)
    client.post(reverse("account_login"), {"login": member.email, "password": PASSWORD}, **there)
    assert user_of(client) is None


# -- Around it -----------------------------------------------------------------------------------------------


def test_admin_site_asks_staff_for_the_second_step(client, member, secret):
    User.objects.filter(pk=member.pk).update(is_staff=True, is_superuser=True)
    index = reverse("admin:index")
    door = client.get(index, follow=True)
    assert door.redirect_chain[-1][0].startswith(reverse("account_login"))
    step = sign_in(client, next=index)
    assert step.url == reverse("mfa_authenticate")
    assert client.get(index).status_code == 302
    assert client.post(step.url, {"code": code_of(secret)}).url == index
    assert client.get(index).status_code == 200


def test_staff_that_were_guests_reach_the_admin_site(client, catalogue):
    submit(client)
    assert client.get(reverse("admin:index"), follow=True).redirect_chain[-1][0].startswith(reverse("account_login"))


def test_adding_a_second_factor_asks_who_you_are(client, member):
    client.force_login(member)
    for name in ("mfa_activate_totp", "mfa_add_webauthn"):
        assert client.get(reverse(name)).url.startswith(reverse("account_reauthenticate"))


def test_unconfirmed_address_cannot_add_a_second_factor_where_addresses_count(client, member, settings):
    settings.MFA_ALLOW_UNVERIFIED_EMAIL = False
    EmailAddress.objects.update(verified=False)
    client.force_login(member)
    assert client.get(reverse("mfa_activate_totp")).url == reverse("mfa_index")


def test_address_changes_when_the_new_one_is_confirmed(client, member):
    sign_in(client)
    client.post(reverse("account_email"), {"email": "New@example.com", "action_add": ""})
    member.refresh_from_db()
    assert member.email == "alice@example.com"
    assert "new@example.com" in client.get(reverse("account_email")).content.decode()
    body = next(one.body for one in reversed(mail.outbox) if one.to == ["new@example.com"])
    client.post(re.search(r"https?://testserver(/account/confirm-email/\S+)", body)[1])
    member.refresh_from_db()
    assert member.email == "new@example.com"


def test_every_page_of_signing_in_is_ours(client, member, secret):
    """allauth's own layouts would bring its menu, and its scripts without `defer`."""
    names = {one for one in get_resolver().reverse_dict if isinstance(one, str)}
    names = {one for one in names if one.startswith(("account_", "mfa_", "socialaccount_"))}
    client.force_login(member)
    session = client.session
    session["account_authentication_methods"] = [{"method": "password", "at": 9e9, "reauthenticated": True}]
    session["account_authentication_methods_user"] = str(member.pk)
    session.save()
    seen = set()
    for name in names:
        try:
            url = reverse(name)
        except Exception:
            continue
        answer = client.get(url)
        if answer.status_code != 200 or "html" not in answer["Content-Type"]:
            continue
        seen.add(name)
        page = answer.content.decode()
        assert 'class="door"' in page, name
        assert not re.search(r"<script(?![^>]*(src=|application/json))|<style|style=|onclick=", page), name
    assert seen >= {
        "account_email", "account_change_password", "account_logout", "account_reauthenticate", "mfa_index",
        "mfa_add_webauthn", "mfa_list_webauthn", "mfa_deactivate_totp", "mfa_view_recovery_codes",
        "mfa_generate_recovery_codes", "mfa_reauthenticate", "socialaccount_connections",
    }  # fmt: skip
