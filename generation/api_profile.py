"""The API of your own account: profile and quota, everything we hold as a file, and the end of it."""

from __future__ import annotations

import json
import tempfile
import zipfile
from typing import Any, ClassVar

from django.http import FileResponse, HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.parsers import FormParser, JSONParser, MultiPartParser
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts import limits
from accounts.limits import Limit
from accounts.models import Profile, User
from generation import photos, pictures, services
from generation.exceptions import StorageUnavailable
from generation.models import Photo, Run
from generation.serializers import PhotoSerializer, RunSerializer
from notifications.api import NotificationSerializer
from notifications.models import Notification

KEPT_IN_MEMORY = 5_000_000


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
        request: Request = self.context["request"]
        return request.build_absolute_uri(pictures.signed(reverse("avatar", args=[profile.user_id])))

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


class ProfileView(APIView):
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
        """Delete the account with everything in it. Asks for the password once more."""
        asked = GoodbyeSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        user = request.user
        if user.has_usable_password() and not user.check_password(asked.validated_data.get("password", "")):
            raise serializers.ValidationError({"password": [_("Please enter your password to delete the account.")]})
        services.delete_account(user)
        return Response(status=204)


class ExportView(APIView):
    """Everything that we hold about you."""

    @extend_schema(responses={(200, "application/zip"): bytes})
    def get(self, request: Request) -> FileResponse:
        """A zip of your photos and results, and of manifest.json, which says what they are."""
        return export(request, request.user)


def export(request: HttpRequest | Request, user: User) -> FileResponse:
    """Send everything that we hold about a user, as a file."""
    context = {"request": request}
    runs = Run.objects.for_user(user).select_related("photo")
    sent = Photo.objects.for_user(user)
    profile = Profile.objects.upsert(user)
    manifest = {
        "made_at": timezone.now(),
        "profile": ProfileSerializer(profile, context=context).data | {"file": profile.avatar.name or None},
        "photos": [
            PhotoSerializer(photo, context=context).data | {"file": photo.file.name, "name": photo.name}
            for photo in sent
        ],
        "runs": [RunSerializer(run, context=context).data | {"file": run.result.name or None} for run in runs],
        "notifications": NotificationSerializer(Notification.objects.for_user(user), many=True).data,
    }
    # Large accounts do not have to fit into memory; the file is gone when the answer has been sent.
    file = tempfile.SpooledTemporaryFile(max_size=KEPT_IN_MEMORY)  # noqa: SIM115
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        held = [profile.avatar, *(photo.file for photo in sent), *(run.result for run in runs)]
        for stored in {one.name: one for one in held if one}.values():
            try:
                archive.writestr(str(stored.name), photos.read(stored))
            except StorageUnavailable:
                manifest.setdefault("missing", []).append(stored.name)
        archive.writestr("manifest.json", json.dumps(json.loads(JSONRenderer().render(manifest)), indent=2))
    file.seek(0)
    return FileResponse(file, as_attachment=True, filename="stefna-export.zip", content_type="application/zip")
