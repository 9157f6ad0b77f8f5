"""The API of notifications."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.utils.translation import gettext as _
from drf_spectacular.utils import OpenApiParameter, extend_schema, inline_serializer
from rest_framework import mixins, serializers, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.api_fields import ShortListField
from accounts.models import Profile
from accounts.pagination import NewestFirst
from accounts.throttling import ThrottledByMethod
from notifications.models import Notification


class NotificationSerializer(serializers.ModelSerializer):
    run = serializers.SerializerMethodField()

    class Meta:
        model = Notification
        fields = ("id", "kind", "message", "url", "run", "read_at", "created_at")

    def get_run(self, notification: Notification) -> str | None:
        """The id of the run that it is about; none when it is about a batch or an export."""
        of_runs = (Notification.Kind.RUN_SUCCEEDED, Notification.Kind.RUN_FAILED)
        return str(notification.subject) if notification.kind in of_runs else None


class NotificationPages(NewestFirst):
    """Newest first, with what every page needs to know beside its rows."""

    def get_paginated_response(self, data: Any) -> Response:
        unread = Notification.objects.for_user(self.request.user).unread().count()
        return Response({"profile_ready": True, "unread_count": unread} | super().get_paginated_response(data).data)

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        described = super().get_paginated_response_schema(schema)
        described["properties"] |= {"profile_ready": {"type": "boolean"}, "unread_count": {"type": "integer"}}
        described["required"] = ["profile_ready", "unread_count", "results"]
        return described


class ReadSerializer(serializers.Serializer):
    ids = ShortListField(child=serializers.UUIDField(), required=False, max_length=500)
    all = serializers.BooleanField(required=False)

    def validate(self, fields: dict[str, Any]) -> dict[str, Any]:
        if ("ids" in fields) == bool(fields.get("all")):
            raise serializers.ValidationError({"ids": [_("Send ids, or all: true.")]})
        return fields


class NotificationViewSet(ThrottledByMethod, mixins.ListModelMixin, viewsets.GenericViewSet):
    """What you were told: one piece of news for each run that ended, and for each batch that is done."""

    queryset = Notification.objects.none()
    serializer_class = NotificationSerializer
    pagination_class = NotificationPages
    filter_backends = ()

    def get_queryset(self) -> QuerySet[Notification]:
        news = Notification.objects.for_user(self.request.user)
        return news.unread() if self.request.query_params.get("unread", "").lower() in ("true", "1") else news

    @extend_schema(parameters=[OpenApiParameter("unread", bool)])
    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        if not Profile.objects.filter(user=request.user).exists():
            # Nothing was told to somebody without a profile, so nothing more is asked.
            nothing: dict[str, Any] = {"next": None, "previous": None, "results": []}
            return Response({"profile_ready": False, "unread_count": 0} | nothing)
        return super().list(request, *args, **kwargs)

    @extend_schema(
        request=ReadSerializer,
        responses=inline_serializer("UnreadCount", {"unread_count": serializers.IntegerField()}),
    )
    @action(detail=False, methods=["post"])
    def read(self, request: Request) -> Response:
        """Mark some as read, or all."""
        asked = ReadSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        mine = Notification.objects.for_user(request.user)
        (mine if asked.validated_data.get("all") else mine.filter(pk__in=asked.validated_data["ids"])).mark_read()
        return Response({"unread_count": mine.unread().count()})
