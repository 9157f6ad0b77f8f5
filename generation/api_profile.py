"""The API of your own account: profile and quota, everything we hold as a file, and the end of it."""

from __future__ import annotations

from typing import Any, ClassVar

from django.urls import reverse
from django.utils.translation import gettext as _
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from accounts import limits
from accounts.authentication import check_password, require_recent_sign_in
from accounts.limits import Limit
from accounts.models import Profile
from accounts.parsers import FormParser, JSONParser, MultiPartParser
from accounts.throttling import ThrottledByMethod
from generation import services
from generation.models import EXPORT_FAILED, Export
from generation.serializers import absolute


class QuotaSerializer(serializers.Serializer):
    limit = serializers.IntegerField(allow_null=True)
    used = serializers.IntegerField()
    remaining = serializers.IntegerField(allow_null=True)
    resets_at = serializers.DateTimeField()


class StorageSerializer(serializers.Serializer):
    used = serializers.IntegerField(help_text="Bytes.")
    limit = serializers.IntegerField(allow_null=True, help_text="Bytes; null where there is no limit.")


class ProfileSerializer(serializers.ModelSerializer):
    id = serializers.IntegerField(source="user_id", read_only=True)
    email = serializers.EmailField(source="user.email", read_only=True, allow_null=True)
    date_joined = serializers.DateTimeField(source="user.date_joined", read_only=True)
    avatar = serializers.SerializerMethodField()
    quota = serializers.SerializerMethodField()
    storage = serializers.SerializerMethodField()

    class Meta:
        model = Profile
        fields = (
            "id", "email", "display_name", "avatar", "email_notifications", "locale", "date_joined", "quota", "storage",
        )  # fmt: skip
        extra_kwargs: ClassVar[dict[str, Any]] = {"display_name": {"required": False}}

    def get_avatar(self, profile: Profile) -> str | None:
        if not profile.avatar:
            return None
        return absolute(self.context, reverse("avatar", args=[profile.user_id]))

    def get_quota(self, profile: Profile) -> QuotaSerializer:
        return QuotaSerializer(services.quota(profile)).data

    def get_storage(self, profile: Profile) -> StorageSerializer:
        return StorageSerializer(services.storage(profile.user)).data


class ProfileChangeSerializer(serializers.ModelSerializer):
    avatar = serializers.FileField(required=False, allow_null=True, use_url=False)
    locale = serializers.RegexField(r"^([a-z]{2,3}(-[A-Za-z0-9]{2,8})*)?$", required=False, max_length=10)

    class Meta:
        model = Profile
        fields = ("display_name", "avatar", "email_notifications", "locale")
        extra_kwargs: ClassVar[dict[str, Any]] = {
            "display_name": {"required": False},
            "email_notifications": {"required": False},
        }


class GoodbyeSerializer(serializers.Serializer):
    password = serializers.CharField(required=False, trim_whitespace=False)


class ProfileView(ThrottledByMethod):
    """Your profile. It is made on first use if it is missing."""

    parser_classes: ClassVar = [JSONParser, MultiPartParser, FormParser]

    @extend_schema(responses=ProfileSerializer)
    def get(self, request: Request) -> Response:
        profile = Profile.objects.upsert(request.user)
        return Response(ProfileSerializer(profile, context={"request": request}).data)

    @extend_schema(request=ProfileChangeSerializer, responses=ProfileSerializer)
    def patch(self, request: Request) -> Response:
        """Change what is sent, and nothing else."""
        profile = Profile.objects.upsert(request.user)
        asked = ProfileChangeSerializer(data=request.data, partial=True)
        asked.is_valid(raise_exception=True)
        changes = dict(asked.validated_data)
        if "avatar" in changes:
            limits.hit(request, Limit.UPLOADS)
            services.change_avatar(profile, changes.pop("avatar"))
        for name, value in changes.items():
            setattr(profile, name, value)
        profile.save(update_fields=[*changes])
        return self.get(request)

    @extend_schema(request=GoodbyeSerializer, responses={204: None})
    def delete(self, request: Request) -> Response:
        """Delete the account with everything in it.

        The session has signed in or reauthenticated a few minutes ago, or the password is sent along.
        """
        asked = GoodbyeSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        password = asked.validated_data.get("password")
        if password is None:
            require_recent_sign_in(request)
        elif not request.user.is_guest and not check_password(request, password):
            raise serializers.ValidationError({"password": [_("Please enter your password to delete the account.")]})
        user = request.user
        services.delete_account(user)
        return Response(status=204)


class ExportErrorSerializer(serializers.Serializer):
    code = serializers.CharField()
    message = serializers.CharField()
    retryable = serializers.BooleanField()


class ExportSerializer(serializers.ModelSerializer):
    state = serializers.ChoiceField(choices=["none", *Export.State.values])
    # Of no export there is none.
    created_at = serializers.DateTimeField(read_only=True, allow_null=True)
    url = serializers.SerializerMethodField()
    error = serializers.SerializerMethodField()

    class Meta:
        model = Export
        fields = ("state", "url", "bytes", "error", "created_at", "expires_at")

    def get_url(self, export: Export) -> str | None:
        return absolute(self.context, reverse("export_download", args=[export.pk])) if export.is_ready else None

    @extend_schema_field(ExportErrorSerializer(allow_null=True))
    def get_error(self, export: Export) -> dict[str, Any] | None:
        if export.state != Export.State.FAILED:
            return None
        return {"code": export.error_code, "message": _(EXPORT_FAILED), "retryable": True}


class ExportView(ThrottledByMethod):
    """A zip of your photos and results, and of manifest.json, which says what they are."""

    @extend_schema(responses=ExportSerializer)
    def get(self, request: Request) -> Response:
        """Return the state of your latest export and, for 7 days, the address of its file."""
        return self._answer(services.latest_export(request.user), 200)

    @extend_schema(request=None, responses={202: ExportSerializer})
    def post(self, request: Request) -> Response:
        """Ask for an export. While one is being made, it is that one.

        The session has signed in or reauthenticated a few minutes ago.
        """
        require_recent_sign_in(request)
        return self._answer(services.request_export(request.user), 202)

    def _answer(self, export: Export | None, status: int) -> Response:
        if export is None:
            nothing = dict.fromkeys(ExportSerializer.Meta.fields) | {"state": "none"}
            return Response(nothing, status=status)
        return Response(ExportSerializer(export, context={"request": self.request}).data, status=status)
