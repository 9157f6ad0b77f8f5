"""allauth's pages where ours differ."""

from typing import Any

from allauth.account.decorators import reauthentication_required
from allauth.account.views import LoginView, PasswordSetView, SignupView
from allauth.usersessions.models import UserSession
from allauth.usersessions.views import ListUserSessionsView
from django.contrib import messages
from django.contrib.auth import logout
from django.db import IntegrityError
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect
from django.utils.translation import gettext as _

from accounts import credentials, sessions
from accounts.forms import SignUpForm
from accounts.models import User

MAX_ID_DIGITS = 18


class MembersMoveOn:
    """Send somebody who is signed in on their way. A guest is not: see guests.VisitorsAtTheDoor."""

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if request.user.is_authenticated:
            return redirect(self.get_authenticated_redirect_url())  # type: ignore[attr-defined]
        return super().dispatch(request, *args, **kwargs)  # type: ignore[misc]


class SignInView(MembersMoveOn, LoginView):
    pass


class SignUpView(MembersMoveOn, SignupView):
    form_class = SignUpForm

    def form_valid(self, form: Any) -> HttpResponse:
        try:
            return super().form_valid(form)
        except IntegrityError:
            # Another request with this address was faster than our check. Checking once more gives the answer
            # that the address would have got a moment later: neutral where addresses are verified.
            form.full_clean()
            return super().form_valid(form) if form.is_valid() else self.form_invalid(form)


# A password is a new way in: who adds one proves who they are, as for a passkey.
set_password = reauthentication_required(PasswordSetView.as_view())


class DevicesView(ListUserSessionsView):
    """The sessions of an account: end one, or all others."""

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        sessions.note_use(request)
        return super().get(request, *args, **kwargs)

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        chosen = request.POST.get("session", "")
        if not chosen or not isinstance(request.user, User):
            return super().post(request, *args, **kwargs)
        is_id = len(chosen) <= MAX_ID_DIGITS and chosen.isdecimal()
        session = get_object_or_404(UserSession, user=request.user, pk=int(chosen) if is_id else 0)
        if session.is_current():
            logout(request)
            return redirect("account_login")
        credentials.end_sessions(user=request.user, only=session.pk)
        messages.success(request, _("The device was signed out."))
        return redirect("usersessions_list")
