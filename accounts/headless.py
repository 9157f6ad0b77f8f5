"""The app client's endpoints where ours differ from allauth's."""

from typing import Any

from allauth.account.decorators import reauthentication_required
from allauth.headless.account.inputs import (
    ChangePasswordInput,
    RequestLoginCodeInput,
    RequestPasswordResetInput,
    SignupInput,
)
from allauth.headless.account.views import (
    ChangePasswordView,
    RequestLoginCodeView,
    RequestPasswordResetView,
    SignupView,
)
from django.db import IntegrityError, transaction
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from accounts.forms import CodeForItsAccount, LinkForItsAccount, ReleasesPendingChange, compare_password


class SignUpInput(ReleasesPendingChange, SignupInput):
    def save(self, request: HttpRequest) -> Any:
        """Create the account and its address, both or none."""
        with transaction.atomic():
            return super().save(request)


class AppSignUpView(SignupView):
    input_class = {"POST": SignUpInput}

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """Answer a simultaneous sign-up with the same address as one that comes a moment later."""
        try:
            return super().post(request, *args, **kwargs)
        except IntegrityError:
            response = self.handle_input(self.data)
            return response or super().post(request, *args, **kwargs)


class RequestCodeInput(CodeForItsAccount, RequestLoginCodeInput):
    pass


class AppRequestCodeView(RequestLoginCodeView):
    input_class = RequestCodeInput


class RequestResetInput(LinkForItsAccount, RequestPasswordResetInput):
    pass


class AppRequestResetView(RequestPasswordResetView):
    input_class = RequestResetInput


class NewPasswordInput(ChangePasswordInput):
    def clean_current_password(self) -> str:
        password: str = self.cleaned_data["current_password"]
        return compare_password(self.user, password) if password else password


class AppChangePasswordView(ChangePasswordView):
    input_class = NewPasswordInput

    def handle(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Ask who has no password yet to prove who they are; others send the current one."""
        if request.user.is_authenticated and not request.user.has_usable_password():
            return _proved(request, lambda _: super(AppChangePasswordView, self).handle(request, *args, **kwargs))
        return super().handle(request, *args, **kwargs)


def _proved(request: HttpRequest, view: Any) -> HttpResponseBase:
    response: HttpResponseBase = reauthentication_required(view)(request)
    return response
