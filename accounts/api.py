"""The API's ping: it goes through the whole of authentication and calls nothing else."""

from typing import Any

from django.conf import settings
from django.utils import timezone
from drf_spectacular.utils import extend_schema, inline_serializer
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView


class PingView(APIView):
    """Find out whether your credentials are in order."""

    answer = inline_serializer(
        "Pong",
        {
            "ok": serializers.BooleanField(),
            "message": serializers.CharField(),
            "timestamp": serializers.DateTimeField(),
            "devMode": serializers.BooleanField(),
        },
    )

    @extend_schema(operation_id="ping", responses=answer)
    def get(self, request: Request) -> Response:
        pong: dict[str, Any] = {"ok": True, "message": "pong", "timestamp": timezone.now(), "devMode": settings.DEBUG}
        return Response(pong)

    @extend_schema(operation_id="ping_post", request=None, responses=answer)
    def post(self, request: Request) -> Response:
        return self.get(request)
