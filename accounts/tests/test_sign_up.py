"""Signing up several times at the same moment."""

import json

import pytest
from django.test import Client

from accounts.models import User
from accounts.tests.test_accounts import PASSWORD
from conftest import in_parallel

APP = "/_allauth/app/v1"


@pytest.mark.parametrize("verification", ["mandatory", "none"])
@pytest.mark.django_db(transaction=True)
def test_simultaneous_sign_ups_of_the_app_are_answered_as_one_after_the_other(settings, verification):
    settings.ACCOUNT_RATE_LIMITS = False
    settings.ACCOUNT_EMAIL_VERIFICATION = verification
    sent = json.dumps({"email": "new@example.com", "password": PASSWORD})

    def sign_up(number):
        return Client().post(f"{APP}/auth/signup", sent, content_type="application/json")

    answers = in_parallel(16, sign_up)
    statuses = sorted(answer.status_code for answer in answers)
    known = sign_up(0).status_code
    assert statuses == sorted([401 if verification == "mandatory" else 200] + [known] * 15)
    assert known == (401 if verification == "mandatory" else 400)
    assert User.objects.count() == 1
