"""Events for finding out later who did what, without anybody's address."""

import re

import pytest
from allauth.account.models import EmailAddress
from django.core import mail
from django.test import Client
from django.urls import reverse
from structlog.testing import capture_logs

from accounts.tests.test_accounts import PASSWORD
from generation.models import Preset

pytestmark = pytest.mark.django_db
EVENTS = {"sign_in", "sign_in_failed", "credentials_changed", "account_deleted", "staff_action", "email_limited"}


@pytest.fixture(autouse=True)
def as_in_production(settings):
    settings.ACCOUNT_EMAIL_VERIFICATION = "mandatory"


@pytest.fixture
def member(alice):
    EmailAddress.objects.create(user=alice, email=alice.email, verified=True, primary=True)
    return alice


def seen(logs):
    """Return our events with what tells them apart, having seen that none names an address."""
    mine = [entry for entry in logs if entry["event"] in EVENTS]
    assert "@" not in repr(mine)
    assert {entry["log_level"] for entry in mine} <= {"info"}
    return [(entry["event"], entry.get("what"), entry.get("code"), entry.get("user_id")) for entry in mine]


def sign_in(client, password=PASSWORD):
    client.post(reverse("account_login"), {"login": "alice@example.com", "password": password})


def test_signing_in_and_failing_to(member, client):
    with capture_logs() as logs:
        sign_in(client, "wrong")
        sign_in(client)
    assert seen(logs) == [("sign_in_failed", None, "password", None), ("sign_in", None, "password", member.pk)]


def test_limit_and_wrong_code(member, client):
    with capture_logs() as logs:
        for _ in range(6):
            sign_in(client, "wrong")
        answer = client.post(reverse("account_request_login_code"), {"email": member.email})
        client.post(answer.url, {"code": "AAAA-AAAA"})
    failed = ("sign_in_failed", None, "password", None)
    assert seen(logs) == [failed] * 5 + [
        ("sign_in_failed", None, "limited", None),
        ("sign_in_failed", None, "code", member.pk),
    ]


def test_password_address_and_account(member, client):
    sign_in(client)
    with capture_logs() as logs:
        new = "quite-another-password"
        client.post(reverse("account_change_password"), {"oldpassword": PASSWORD, "password1": new, "password2": new})
        client.post(reverse("account_email"), {"email": "new@example.com", "action_add": ""})
        body = next(one.body for one in reversed(mail.outbox) if one.to == ["new@example.com"])
        client.post(re.search(r"https?://testserver(/account/confirm-email/\S+)", body)[1])
        client.post(reverse("delete_account"))
    assert seen(logs) == [
        ("credentials_changed", "password", None, member.pk),
        ("credentials_changed", "email", None, member.pk),
        ("account_deleted", None, None, member.pk),
    ]


def test_first_proof_by_another_person(client):
    Client().post(reverse("account_signup"), {"email": "new@example.com", "password1": PASSWORD})
    with capture_logs() as logs:
        client.post(re.search(r"https?://testserver(/account/confirm-email/\S+)", mail.outbox[-1].body)[1])
    assert [entry[:3] for entry in seen(logs)] == [("credentials_changed", "all", "address_proved")]


@pytest.mark.parametrize("count", [1, 3])
def test_what_staff_do_to_several_rows_is_an_event_each(owner, catalogue, count):
    chosen = list(Preset.objects.values_list("pk", flat=True)[:count])
    with capture_logs() as logs:
        sent = {"action": "delete_selected", "_selected_action": chosen, "post": "yes"}
        owner.post(reverse("admin:generation_preset_changelist"), sent)
    assert not Preset.objects.filter(pk__in=chosen).exists()
    assert [entry[:3] for entry in seen(logs)] == [("staff_action", "preset", "deleted")] * count


def test_what_a_superuser_does_to_a_member(owner, member):
    with capture_logs() as logs:
        words = {"password1": "a-password-of-the-owner", "password2": "a-password-of-the-owner"}
        path = reverse("admin:auth_user_password_change", args=[member.pk])
        owner.post(path, words | {"usable_password": "true"})
        owner.post(reverse("admin:accounts_user_delete", args=[member.pk]), {"post": "yes"})
    assert [entry[:3] for entry in seen(logs)] == [
        ("staff_action", "user", "changed"),
        ("credentials_changed", "password", "staff"),
        ("staff_action", "user", "deleted"),
        ("account_deleted", None, None),
    ]
