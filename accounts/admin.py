from typing import Any

import structlog
from allauth.account.adapter import get_adapter
from allauth.account.admin import EmailAddressAdmin as StockEmailAddressAdmin
from allauth.account.decorators import reauthentication_required
from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.socialaccount.admin import SocialAccountAdmin as StockSocialAccountAdmin
from allauth.socialaccount.models import SocialAccount, SocialApp, SocialToken
from allauth.usersessions.models import UserSession
from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin
from django.contrib.auth.admin import UserAdmin as StockUserAdmin
from django.contrib.auth.forms import AdminUserCreationForm, UserChangeForm
from django.contrib.auth.models import Group
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect

from accounts import credentials, password_limits
from accounts.models import Profile, User

log = structlog.get_logger("accounts")

RIGHTS = ["is_staff", "is_superuser", "groups", "user_permissions"]


@reauthentication_required
def require_recent_proof(request: HttpRequest) -> None:
    """Raise allauth's ReauthenticationRequired, which leads to its page, unless the session has lately shown who it is.

    A session that was left open, or was stolen, must neither take over another account nor keep its own.
    """


def require_proof_to_change(request: HttpRequest) -> None:
    """Ask superusers who they are before they change what people sign in with; others are refused anyway."""
    if request.method == "POST" and is_superuser(request):
        require_recent_proof(request)


def is_superuser(request: HttpRequest) -> bool:
    return request.user.is_authenticated and request.user.is_superuser


class ProvedAdmin(admin.ModelAdmin):
    """Rows that superusers add, delete and act on in lists only when they have lately shown who they are."""

    def add_view(self, request: HttpRequest, *arguments: Any, **options: Any) -> HttpResponse:
        require_proof_to_change(request)
        return super().add_view(request, *arguments, **options)

    def delete_view(self, request: HttpRequest, *arguments: Any, **options: Any) -> HttpResponse:
        require_proof_to_change(request)
        return super().delete_view(request, *arguments, **options)

    def changelist_view(self, request: HttpRequest, *arguments: Any, **options: Any) -> HttpResponse:
        require_proof_to_change(request)
        return super().changelist_view(request, *arguments, **options)


class WhollyProvedAdmin(ProvedAdmin):
    """Rows that they change only then as well."""

    def change_view(self, request: HttpRequest, *arguments: Any, **options: Any) -> HttpResponse:
        require_proof_to_change(request)
        return super().change_view(request, *arguments, **options)


class ProfileInline(admin.StackedInline):
    model = Profile
    can_delete = False
    # Without the avatar: pictures come in by their one door, and this is not it.
    fields = ("display_name", "daily_run_limit", "email_notifications", "locale")


class CreationForm(AdminUserCreationForm):
    class Meta:
        model = User
        fields = ("email",)


class ChangeForm(UserChangeForm):
    class Meta:
        model = User
        fields = "__all__"


class UserAdmin(ProvedAdmin, StockUserAdmin):
    """Accounts and their rights; `generation.admin_users` registers it, with what is known of their runs."""

    add_form = CreationForm
    form = ChangeForm
    inlines = [ProfileInline]
    list_display = ["__str__", "email", "is_active", "is_staff", "date_joined", "last_login"]
    list_filter = ["is_active", "is_staff"]
    list_select_related = ["profile"]
    ordering = ["-date_joined"]
    search_fields = ["email", "profile__display_name"]
    readonly_fields = ["date_joined", "last_login"]
    fieldsets = [
        (None, {"fields": ["email", "password"]}),
        ("Rights", {"fields": ["is_active", "is_staff", "is_superuser", "groups", "user_permissions"]}),
        ("Dates", {"fields": ["date_joined", "last_login"]}),
    ]
    add_fieldsets = [(None, {"classes": ["wide"], "fields": ["email", "usable_password", "password1", "password2"]})]

    def get_readonly_fields(self, request: HttpRequest, obj: User | None = None) -> list[str]:
        """Who may change accounts may neither give themselves rights by it nor sign in as others."""
        if is_superuser(request):
            return [*self.readonly_fields]
        return [*self.readonly_fields, *RIGHTS, *([] if obj is None else ["email", "has_password"])]

    def get_fieldsets(self, request: HttpRequest, obj: User | None = None) -> Any:
        """Show others whether there is a password, in the place of its hash and of the link to change it."""
        fieldsets = super().get_fieldsets(request, obj)
        if obj is None or is_superuser(request):
            return fieldsets
        (name, first), *others = fieldsets
        shown = ["has_password" if field == "password" else field for field in first["fields"]]
        return [(name, {**first, "fields": shown}), *others]

    @admin.display(description="password", boolean=True)
    def has_password(self, user: User) -> bool:
        return user.has_usable_password()

    def user_change_password(self, request: HttpRequest, id: str, form_url: str = "") -> HttpResponse:
        user = request.user
        if not isinstance(user, User) or not user.is_superuser:
            raise PermissionDenied
        if request.method == "POST" and not password_limits.is_recent(request.session, user):
            # A form that waits for the proof is kept in the session, and this one is a password.
            return redirect(request.get_full_path())
        require_recent_proof(request)
        response = super().user_change_password(request, id, form_url)
        # Only a form that was accepted leads elsewhere.
        if request.method == "POST" and response.status_code == 302:
            member = User.objects.get(pk=id)
            credentials.end_picture_addresses(user=member)
            tell_member(member, "password")
        return response

    def save_model(self, request: HttpRequest, obj: User, form: Any, change: bool) -> None:
        """Save the account; another address has to be proved, and the old one gets a notice."""
        # Switching an account off is what is done in a hurry, and takes nothing over.
        is_switched_on = "is_active" in form.changed_data and obj.is_active
        if change and (is_switched_on or {"email", *RIGHTS}.intersection(form.changed_data)):
            require_recent_proof(request)
        old = form.initial.get("email") if change and "email" in form.changed_data else None
        super().save_model(request, obj, form, change)
        if change and {"is_active", "email"}.intersection(form.changed_data):
            credentials.end_picture_addresses(user=obj)
        if old:
            credentials.replace_address(user=obj)
            tell_member(obj, "email", address=old)

    def has_change_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        return super().has_change_permission(request, obj) and may_manage(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        return super().has_delete_permission(request, obj) and may_manage(request, obj)

    def get_inlines(self, request, obj=None):  # type: ignore[no-untyped-def]
        # The profile is made when the account is saved; a form for it beforehand would make a second one.
        return self.inlines if obj else []


def tell_member(user: User, what: str, *, address: str | None = None) -> None:
    """Tell a member by e-mail, and the log, that a superuser has changed what they sign in with."""
    log.info("credentials_changed", user_id=user.pk, what=what, code="staff")
    if address or user.email:
        get_adapter().send_notification_mail("account/email/staff_change", user, {"what": what}, address or user.email)


def may_manage(request: HttpRequest, user: User | None) -> bool:
    """Say whether an account is one that this member of staff may change at all: rights are the superuser's matter."""
    return is_superuser(request) or not user or not (user.is_staff or user.is_superuser)


# Keys of sign-in services come from the environment. A row here would be a second truth, and a secret in the database.
admin.site.unregister([Group, SocialApp, SocialToken, Authenticator, EmailAddress, SocialAccount, UserSession])


@admin.register(Group)
class RightsAdmin(WhollyProvedAdmin, GroupAdmin):
    """Groups, whose permissions are the rights of all their members."""


class SignInAdmin(WhollyProvedAdmin):
    """What people sign in with, for reading. Only superusers change it; of other staff they alone see it."""

    what = ""

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        found = super().get_queryset(request)
        return found if is_superuser(request) else found.filter(user__is_staff=False, user__is_superuser=False)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return is_superuser(request)

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        super().delete_model(request, obj)
        tell_member(obj.user, self.what)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet) -> None:
        for row in queryset.select_related("user"):
            self.delete_model(request, row)


@admin.register(EmailAddress)
class EmailAddressAdmin(SignInAdmin, StockEmailAddressAdmin):
    what = "email"
    readonly_fields = ["user", "email"]

    def has_change_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return is_superuser(request)

    @admin.action(permissions=["change"], description="Mark selected addresses as verified")
    def make_verified(self, request: HttpRequest, queryset: QuerySet[EmailAddress]) -> None:
        addresses = list(queryset.filter(verified=False).select_related("user"))
        super().make_verified(request, queryset)
        for address in addresses:
            self.log_change(request, address, "Marked as verified.")
            tell_member(address.user, self.what)

    def save_model(self, request: HttpRequest, obj: EmailAddress, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        tell_member(obj.user, self.what)


@admin.register(Authenticator)
class AuthenticatorAdmin(SignInAdmin):
    what = "second_step"
    # Not its data, which are the secret.
    fields = ["user", "type", "created_at", "last_used_at"]
    list_display = ["user", "type", "created_at", "last_used_at"]
    list_filter = ["type"]
    search_fields = ["user__email"]


@admin.register(SocialAccount)
class SocialAccountAdmin(SignInAdmin, StockSocialAccountAdmin):
    what = "social_account"
    fields = ["user", "provider", "uid", "last_login", "date_joined"]


@admin.register(UserSession)
class SessionAdmin(SignInAdmin):
    what = "session"
    # Not its key, which is the token.
    fields = ["user", "created_at", "last_seen_at", "ip", "user_agent"]
    list_display = ["user", "created_at", "last_seen_at", "ip"]
    list_select_related = ["user__profile"]
    search_fields = ["user__email"]

    def delete_model(self, request: HttpRequest, obj: UserSession) -> None:
        obj.end()
