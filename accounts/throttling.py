"""How often somebody may ask. Each kind of request has a count of its own: looking never uses up sending."""

from __future__ import annotations

import structlog
from rest_framework.request import Request
from rest_framework.throttling import UserRateThrottle
from rest_framework.views import APIView

log = structlog.get_logger("accounts")

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


class PollThrottle(UserRateThrottle):
    """Looking."""

    scope = "poll"


class UploadThrottle(UserRateThrottle):
    """Sending a photo, or asking for runs of one."""

    scope = "upload"


class ChangeThrottle(UserRateThrottle):
    """Changing or deleting what is there."""

    scope = "change"


class ThrottledByMethod(APIView):
    """A view whose requests count by what they do."""

    def get_throttles(self) -> list[UserRateThrottle]:
        return [throttle_of(self.request, getattr(self, "action", ""))]

    def throttled(self, request: Request, wait: float | None) -> None:
        log.warning("limit_hit", code=throttle_of(request, getattr(self, "action", "")).scope)
        super().throttled(request, wait)


def throttle_of(request: Request, action: str) -> UserRateThrottle:
    if request.method in SAFE_METHODS:
        return PollThrottle()
    return UploadThrottle() if action == "create" else ChangeThrottle()
