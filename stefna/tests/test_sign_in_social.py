"""Sign in with Google, up to the answers that Google would give, in an installation that has it set."""

import json

import pytest

AS_GUEST = """
import json, urllib.parse
from unittest import mock
import jwt, requests
from django.test import Client
from django.test.utils import setup_test_environment
from django.urls import reverse
from accounts.models import User
from generation.models import Run
from allauth.account.models import EmailAddress

setup_test_environment()
found = {}
if %(known)r:
    alice = User.objects.create_user("alice@example.com", "a-password-of-alice")
    EmailAddress.objects.create(user=alice, email=alice.email, verified=True, primary=True)
client = Client(SERVER_NAME="localhost")
page = client.get("/")
client.post(reverse("create"), {"key": page.context["key"], "sample": "coffee", "look": "express_enhance"})
found["guest"] = Run.objects.get().user.is_guest
login = client.get(reverse("account_login"), {"next": "/runs/"})
found["button"] = "Continue with Google" in login.content.decode()
found["apple"] = "Continue with Apple" in login.content.decode()
found["form_action"] = "https://accounts.google.com" in login["Content-Security-Policy"]
away = client.post("/account/google/login/?process=login&next=%%2Fruns%%2F").url
found["away"] = urllib.parse.urlsplit(away).netloc
state = urllib.parse.parse_qs(urllib.parse.urlsplit(away).query)["state"][0]
claims = {"iss": "https://accounts.google.com", "aud": "the-id", "sub": "1", "email": "alice@example.com",
          "email_verified": True, "iat": 1, "exp": 9999999999}
answer = requests.Response()
answer.status_code = 200
answer.headers["Content-Type"] = "application/json"
token = {"access_token": "x", "id_token": jwt.encode(claims, "k" * 32, "HS256"), "expires_in": 60}
answer._content = json.dumps(token).encode()
with mock.patch("requests.Session.request", return_value=answer) as wire:
    back = client.get("/account/google/login/callback/", {"code": "c", "state": state})
found["back"] = back.url
found["asked"] = wire.call_args.args
found["accounts"] = [user.email for user in User.objects.all()]
found["owner"] = Run.objects.get().user.email
found["page"] = client.get("/account/3rdparty/").status_code
print(json.dumps(found))
"""


@pytest.mark.parametrize("known", [False, True])
def test_guest_who_comes_with_google_keeps_everything(server, known):
    server.environment |= {"GOOGLE_CLIENT_ID": "the-id", "GOOGLE_CLIENT_SECRET": "the-secret"}
    assert json.loads(server.shell(AS_GUEST % {"known": known}).splitlines()[-1]) == {
        "guest": True,
        "button": True,
        "apple": False,
        "form_action": True,
        "away": "accounts.google.com",
        "asked": ["POST", "https://oauth2.googleapis.com/token"],
        "back": "/runs/",
        "accounts": ["alice@example.com"],
        "owner": "alice@example.com",
        "page": 200,
    }
