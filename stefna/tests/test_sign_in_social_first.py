"""Signing in with Google as the first proof of an address: the password that another person has set is gone."""

import json

import pytest

# As in test_sign_in_social: up to the answers that Google would give, in an installation that has it set.
START = """
import json, urllib.parse
from unittest import mock
import jwt, requests
from django.test import Client
from django.test.utils import setup_test_environment
from django.urls import reverse
from accounts.models import User
from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.socialaccount.models import SocialAccount

setup_test_environment()
app = "/_allauth/app/v1/auth/"
"""
ATTACK = """
sent = {"email": "victim@example.com", "password": "a-password-of-the-attacker"}
attacker = Client(SERVER_NAME="localhost")
if %(door)r == "page":
    attacker.post(reverse("account_signup"), {"email": sent["email"], "password1": sent["password"]})
else:
    attacker.post(app + "signup", sent, content_type="application/json")
user = User.objects.get()
Authenticator.objects.create(user=user, type="webauthn", data={})
SocialAccount.objects.create(user=user, provider="google", uid="attacker")
"""
SIGN_IN = """
owner = Client(SERVER_NAME="localhost")
away = owner.post("/account/google/login/?process=login").url
state = urllib.parse.parse_qs(urllib.parse.urlsplit(away).query)["state"][0]
claims = {"iss": "https://accounts.google.com", "aud": "the-id", "sub": "1", "email": "victim@example.com",
          "email_verified": True, "iat": 1, "exp": 9999999999}
answer = requests.Response()
answer.status_code = 200
answer.headers["Content-Type"] = "application/json"
token = {"access_token": "x", "id_token": jwt.encode(claims, "k" * 32, "HS256"), "expires_in": 60}
answer._content = json.dumps(token).encode()
with mock.patch("requests.Session.request", return_value=answer):
    owner.get("/account/google/login/callback/", {"code": "c", "state": state})
"""
FOUND = """
login = Client(SERVER_NAME="localhost").post(app + "login", sent, content_type="application/json")
print(json.dumps({
    "owner": owner.get("/account/profile/").status_code,
    "attacker": attacker.get("/account/profile/").status_code,
    "login": login.status_code,
    "passkeys": Authenticator.objects.count(),
    "accounts": [one.uid for one in SocialAccount.objects.all()],
    "verified": [one.verified for one in EmailAddress.objects.all()],
    "users": User.objects.count(),
}))
"""
FIRST_PROOF = START + ATTACK + SIGN_IN + FOUND

# Others have proved an address of their own, and want to change to the victim's.
WISHES = """
for number in range(8):
    thief = User.objects.create_user(f"thief{number}@example.com")
    EmailAddress.objects.create(user=thief, email=thief.email, verified=True, primary=True)
    EmailAddress.objects.create(user=thief, email="victim@example.com")
if %(has_account)r:
    User.objects.create_user("victim@example.com", "a-password-of-the-owner")
"""
WHO = """
found = SocialAccount.objects.get().user
print(json.dumps({
    "owner": owner.get("/account/profile/").status_code,
    "email": found.email,
    "verified": sorted(EmailAddress.objects.filter(user=found).values_list("email", "verified")),
    "users": User.objects.count(),
}))
"""


@pytest.mark.parametrize("verification", ["mandatory", "none"])
@pytest.mark.parametrize("door", ["page", "app"])
def test_first_sign_in_with_google_ends_what_another_person_set(server, verification, door):
    server.environment |= {"GOOGLE_CLIENT_ID": "the-id", "GOOGLE_CLIENT_SECRET": "the-secret"}
    server.environment |= {"ACCOUNT_EMAIL_VERIFICATION": verification}
    assert json.loads(server.shell(FIRST_PROOF % {"door": door}).splitlines()[-1]) == {
        "owner": 200,
        "attacker": 302,
        "login": 400,
        "passkeys": 0,
        "accounts": ["1"],
        "verified": [True],
        "users": 1,
    }


@pytest.mark.parametrize("has_account", [True, False])
def test_google_signs_in_to_no_account_that_merely_wants_the_address(server, has_account):
    server.environment |= {"GOOGLE_CLIENT_ID": "the-id", "GOOGLE_CLIENT_SECRET": "the-secret"}
    server.environment |= {"ACCOUNT_EMAIL_VERIFICATION": "mandatory"}
    script = START % {} + WISHES % {"has_account": has_account} + SIGN_IN % {} + WHO % {}
    assert json.loads(server.shell(script).splitlines()[-1]) == {
        "owner": 200,
        "email": "victim@example.com",
        "verified": [["victim@example.com", True]],
        "users": 9,
    }
