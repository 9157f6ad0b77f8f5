from allauth.account.admin import EmailAddressAdmin as StockEmailAddressAdmin
from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.socialaccount.admin import SocialAccountAdmin as StockSocialAccountAdmin
from allauth.socialaccount.models import SocialAccount, SocialApp, SocialToken
from django.contrib import admin
from django.contrib.auth.admin import UserAdmin as StockUserAdmin
from django.contrib.auth.forms import AdminUserCreationForm, UserChangeForm
from django.db.models import QuerySet
from django.http import HttpRequest

from accounts.models import Profile, User


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


class UserAdmin(StockUserAdmin):
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
        """Who may change accounts may not give themselves rights by it."""
        rights = [] if is_superuser(request) else ["is_staff", "is_superuser", "groups", "user_permissions"]
        return [*self.readonly_fields, *rights]

    def has_change_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        return super().has_change_permission(request, obj) and may_manage(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        return super().has_delete_permission(request, obj) and may_manage(request, obj)

    def get_inlines(self, request, obj=None):  # type: ignore[no-untyped-def]
        # The profile is made when the account is saved; a form for it beforehand would make a second one.
        return self.inlines if obj else []


def is_superuser(request: HttpRequest) -> bool:
    return request.user.is_authenticated and request.user.is_superuser


def may_manage(request: HttpRequest, user: User | None) -> bool:
    """Say whether an account is one that this member of staff may change at all: rights are the superuser's matter."""
    return is_superuser(request) or not user or not (user.is_staff or user.is_superuser)


# Keys of sign-in services come from the environment. A row here would be a second truth, and a secret in the database.
admin.site.unregister([SocialApp, SocialToken, Authenticator, EmailAddress, SocialAccount])


class SignInAdmin(admin.ModelAdmin):
    """What people sign in with. They add it themselves; what staff sign in with is the superuser's matter."""

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        found = super().get_queryset(request)
        return found if is_superuser(request) else found.filter(user__is_staff=False, user__is_superuser=False)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False


@admin.register(EmailAddress)
class EmailAddressAdmin(SignInAdmin, StockEmailAddressAdmin):
    readonly_fields = ["user", "email"]

    @admin.action(permissions=["change"], description="Mark selected addresses as verified")
    def make_verified(self, request: HttpRequest, queryset: QuerySet[EmailAddress]) -> None:
        super().make_verified(request, queryset)


class Seen(SignInAdmin):
    """What is looked at, and taken away for who has lost it."""

    def has_change_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return False


@admin.register(Authenticator)
class AuthenticatorAdmin(Seen):
    # Not its data, which are the secret.
    fields = ["user", "type", "created_at", "last_used_at"]
    list_display = ["user", "type", "created_at", "last_used_at"]
    list_filter = ["type"]
    search_fields = ["user__email"]


@admin.register(SocialAccount)
class SocialAccountAdmin(Seen, StockSocialAccountAdmin):
    fields = ["user", "provider", "uid", "last_login", "date_joined"]
