"""Where forms may come from, and where the doors of the site lead: to no other house."""

from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from allauth.mfa.totp.internal.auth import TOTP, generate_totp_secret
from django.test import Client
from django.urls import reverse

from accounts.models import User
from accounts.tests.test_accounts import PASSWORD
from accounts.tests.test_sign_in import code_in_mail, code_of, member, sign_in

__all__ = ["member"]  # a fixture
pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def no_limits_of_other_tests(settings):
    settings.ACCOUNT_RATE_LIMITS = False
    settings.MFA_RATE_LIMITS = False


# -- S7: a form comes from a page of ours --------------------------------------------------------------------


@pytest.mark.parametrize("origin", ["https://elsewhere.example", "http://testserver.elsewhere.example", "null"])
@pytest.mark.parametrize("address", ["/notifications/read", "/api/v1/ping"])
def test_good_token_does_not_help_another_origin(alice, origin, address):
    client = Client(enforce_csrf_checks=True)
    client.force_login(alice)
    token = client.get(reverse("studio")).context["csrf_token"]
    headers = {"X-CSRFToken": str(token), "Origin": "http://testserver"}
    assert client.post(address, headers=headers).status_code in (200, 302)
    refused = client.post(address, headers=headers | {"Origin": origin})
    assert refused.status_code == 403
    if address.startswith("/api/"):
        assert (refused["Content-Type"], refused.json()["code"]) == ("application/problem+json", "csrf_failed")
    else:
        assert "Go back, reload the page and send it again." in refused.content.decode()


# -- S8: no door leads to another house ----------------------------------------------------------------------

FOREIGN = [
    "https://elsewhere.example/", "//elsewhere.example/", "///elsewhere.example/", "/\\elsewhere.example/",
    "\\\\elsewhere.example/", "javascript:alert(1)", "\tjavascript:alert(1)", "http:elsewhere.example",
    "https://testserver@elsewhere.example/",
]  # fmt: skip


def through_sign_up(client, next):
    return client.post(reverse("account_signup"), {"email": "new@example.com", "password1": PASSWORD, "next": next})


def through_sign_in(client, next):
    return sign_in(client, next=next)


def through_query(client, next):
    fields = {"login": "alice@example.com", "password": PASSWORD}
    return client.post(f"{reverse('account_login')}?{urlencode({'next': next})}", fields)


def through_code(client, next):
    fields = {"email": "alice@example.com", "next": next}
    page = client.post(reverse("account_request_login_code"), fields).url
    return client.post(page, {"code": code_in_mail(), "next": next})


def through_second_step(client, next):
    TOTP.activate(User.objects.get(email="alice@example.com"), secret := generate_totp_secret())
    step = sign_in(client, next=next).url
    return client.post(step, {"code": code_of(secret), "next": next})


def through_the_door_of_a_member(client, next):
    sign_in(client)
    return client.get(reverse("account_login"), {"next": next})


def through_sign_out(client, next):
    sign_in(client)
    return client.post(reverse("account_logout"), {"next": next})


def through_the_page_of_a_fragment(client, next):
    """htmx says which page it was on: that is where signing in leads back to."""
    asked = client.get(reverse("history"), headers={"HX-Request": "true", "HX-Current-URL": next})
    (carried,) = parse_qs(urlsplit(asked["HX-Redirect"]).query)["next"]
    return sign_in(client, next=carried)


@pytest.mark.parametrize(
    "door",
    [
        through_sign_in, through_query, through_sign_up, through_code, through_second_step,
        through_the_door_of_a_member, through_sign_out, through_the_page_of_a_fragment,
    ],
)  # fmt: skip
@pytest.mark.parametrize("next", FOREIGN)
def test_no_door_leads_to_another_house(client, member, settings, door, next):
    settings.ACCOUNT_EMAIL_VERIFICATION = "none"
    assert door(client, next).url == reverse("studio")


def test_second_thoughts_lead_to_no_other_house(client, member):
    """Whoever is asked for the password once more comes from a page, whose address is in the form."""
    sign_in(client)
    session = client.session
    del session["account_authentication_methods"]
    session.save()
    for next in FOREIGN:
        answer = client.post(
            f"{reverse('account_reauthenticate')}?{urlencode({'next': next})}", {"password": PASSWORD, "next": next}
        )
        assert answer.url == reverse("studio"), next
