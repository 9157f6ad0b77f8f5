"""What the pages of signing up and of the profile send."""

from typing import Any

from allauth.account.adapter import get_adapter
from allauth.account.forms import ChangePasswordForm, RequestLoginCodeForm, ResetPasswordForm, SignupForm
from django import forms
from django.conf import settings
from django.db import transaction
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from accounts import credentials
from accounts.models import Profile, User


class ReleasesPendingChange:
    """Let the owner of an address sign up although another account wants to change to it."""

    def clean_email(self) -> str:
        credentials.release_pending_change(address=self.cleaned_data["email"])  # type: ignore[attr-defined]
        email: str = super().clean_email()  # type: ignore[misc]
        return email


class SignUpForm(ReleasesPendingChange, SignupForm):
    def save(self, request: HttpRequest) -> User:
        """Make the account and its address, both or none. Mail comes afterwards: it must not hold the write lock."""
        with transaction.atomic():
            user: User = super().save(request)
        return user


class CodeForItsAccount:
    """Send a code to the account of an address, and not to one of those that want to change to it."""

    def clean_email(self) -> str:
        email: str = super().clean_email()  # type: ignore[misc]
        # allauth's views read it from here.
        self._user = next(iter(_active_accounts(email)), None)
        return email


class LinkForItsAccount:
    """Send a link for a new password to the account of an address, and not to those that want to change to it."""

    def clean_email(self) -> str:
        email: str = super().clean_email()  # type: ignore[misc]
        self.users = _active_accounts(email)
        return email


def _active_accounts(email: str) -> list[User]:
    return [user for user in credentials.accounts_of(address=email) if user.is_active]


class RequestCodeForm(CodeForItsAccount, RequestLoginCodeForm):
    pass


class RequestResetForm(LinkForItsAccount, ResetPasswordForm):
    pass


class NewPasswordForm(ChangePasswordForm):
    def clean_oldpassword(self) -> str:
        return compare_password(self.user, self.cleaned_data["oldpassword"])


def compare_password(user: User, password: str) -> str:
    """Compare the current password within the limits of signing in. Raises ValidationError, also at a limit."""
    if not get_adapter().reauthenticate(user, password):
        raise get_adapter().validation_error("enter_current_password")
    return password


class ProfileForm(forms.ModelForm):
    locale = forms.ChoiceField(label=_("Language"), required=False)

    class Meta:
        model = Profile
        fields = ["display_name", "locale", "email_notifications"]
        labels = {"display_name": _("Name"), "email_notifications": _("E-mail me when a picture is done")}
        widgets = {"display_name": forms.TextInput(attrs={"autocomplete": "name"})}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # An app may have set a language that the pages do not speak; looking at the page must not change that.
        known = [("", _("As in the browser")), *settings.LANGUAGES]
        other = [] if self.instance.locale in dict(known) else [(self.instance.locale, self.instance.locale)]
        self.fields["locale"].choices = known + other  # type: ignore[attr-defined]
        if self.instance.user.is_guest:
            del self.fields["email_notifications"]


class PictureForm(forms.Form):
    picture = forms.FileField(label=_("New picture"), allow_empty_file=True, max_length=None)
