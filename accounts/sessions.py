"""The session of a request: when it was last used, for the list of devices, and when it has to be signed in again."""

import hashlib
import time
from collections.abc import Callable
from contextlib import suppress

from allauth.account.adapter import get_adapter
from allauth.core.exceptions import ReauthenticationRequired
from allauth.usersessions.models import UserSession
from django.contrib import messages
from django.contrib.auth import SESSION_KEY, logout
from django.contrib.sessions.backends.base import SessionBase
from django.core.cache import cache
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.http import urlencode
from django.utils.translation import gettext as _

from accounts import credentials

TRACK_SECONDS = 300
REMEMBER_SECONDS = 24 * 3600
# A sign-in that was begun: anybody may begin one, each is a row, and it holds the address, also of a deleted account.
VISITOR_SECONDS = 3600
# Who confirms the address in the session that signed up keeps the password.
SIGN_UP_SECONDS = 24 * 3600


class ActivityMiddleware:
    """Note where and when a session of the pages was used, at most once in five minutes; end visitors' sessions soon.

    allauth's own middleware would write a row for every request.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if request.session.session_key and request.user.is_authenticated:
            track(request)
        response = self.get_response(request)
        if request.session.modified and not request.session.is_empty():
            limit_lifetime(request.session)
        return response

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Send who has neither password nor passkey to the sign-in page; allauth has a page for all others."""
        if not isinstance(exception, ReauthenticationRequired) or not request.user.is_authenticated:
            return None
        if get_adapter().get_reauthentication_methods(request.user):
            return None
        logout(request)
        messages.info(request, _("Please sign in again to go on."))
        return redirect(f"{reverse('account_login')}?{urlencode({'next': request.path})}")


def limit_lifetime(session: SessionBase) -> None:
    """Keep the session of somebody who is signed in as long as the settings say, and that of a visitor for an hour."""
    if SESSION_KEY in session:
        session.set_expiry(None)
    else:
        session.set_expiry(SIGN_UP_SECONDS if credentials.SIGNED_UP in session else VISITOR_SECONDS)


def track(request: HttpRequest) -> None:
    """Write down the use of the request's session, unless that was done, or it was first seen, a few minutes ago.

    Signing in has written it down; this is for long sessions, and for those of before there was a list.
    """
    name = "session_seen:" + hashlib.sha256(f"{request.session.session_key}".encode()).hexdigest()
    now = time.time()
    if cache.add(name, now, REMEMBER_SECONDS) or now - cache.get(name, now) < TRACK_SECONDS:
        return
    cache.set(name, now, REMEMBER_SECONDS)
    note_use(request)


def note_use(request: HttpRequest) -> None:
    """Write down where and when the request's session is used."""
    # Without a client address there is nothing to show; the page is served all the same.
    with suppress(PermissionDenied):
        UserSession.objects.create_from_request(request)
