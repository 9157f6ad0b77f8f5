"""allauth's pages where ours differ."""

from typing import Any

from allauth.account.views import LoginView, SignupView
from django.db import IntegrityError
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect

from accounts.forms import SignUpForm


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
