"""How often a password may be guessed. What is counted is named in ACCOUNT_RATE_LIMITS, with allauth's own limits."""

import time
from types import SimpleNamespace
from typing import Any

from allauth.account import app_settings
from allauth.account.adapter import get_adapter
from allauth.account.authentication import get_authentication_records
from allauth.core import ratelimit
from allauth.usersessions.models import UserSession
from django.contrib.sites.shortcuts import get_current_site
from django.http import HttpRequest

from accounts.limits import client_network
from accounts.models import User

SIGNED_IN_AT = "signed_in_at"
# The passwords that were wrong for one account, whoever the client was.
ACCOUNT = "password_failed_account"


def pair(request: HttpRequest, email: str) -> str:
    """Name the client and the account together: one client's failures must not keep another from an account."""
    return f"{client_network(request)} {email}"


def allows_password(request: HttpRequest, email: str) -> bool:
    """Count a password that is tried against the account, and return whether it may be compared.

    Clients that the account is signed in from are not limited by what others do.
    """
    return ratelimit.consume(request, action=ACCOUNT, key=email) or _is_known_client(request, email)


def forget_failures(request: HttpRequest, email: str) -> None:
    """Let an account start at zero whose password was right."""
    ratelimit.clear(request, action=ACCOUNT, key=email)


def forget_failures_of_client(request: HttpRequest, email: str) -> None:
    """Let a client start at zero that has chosen a new password; allauth itself clears the name without the client."""
    forget_failures(request, email)
    site = get_current_site(request).domain
    ratelimit.clear(request, action="login_failed", key=f"{site}:{pair(request, email)}".lower())


def _is_known_client(request: HttpRequest, email: str) -> bool:
    known = UserSession.objects.filter(user__email=email, ip=get_adapter().get_client_ip(request))
    return known.exists()


# -- Re-authentication -------------------------------------------------------------------------------------------


def is_recent(session: Any, user: User) -> bool:
    """Return whether somebody has signed in, or shown who they are, in this session a few minutes ago."""
    records = get_authentication_records(SimpleNamespace(session=session), user)
    moments = [record["at"] for record in records] + [session.get(SIGNED_IN_AT, 0)]
    return time.time() - max(moments) < app_settings.REAUTHENTICATION_TIMEOUT
