"""The settings of production, without the list that `collectstatic` makes, and with a bug at one address."""

from typing import Any

from django.http import HttpRequest

from stefna.settings import *  # noqa: F403
from stefna.settings import MIDDLEWARE, STORAGES

STORAGES["staticfiles"] = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
MIDDLEWARE.append("stefna.tests.faults.production.bug")


def bug(get_response: Any) -> Any:
    def middleware(request: HttpRequest) -> Any:
        if request.path.endswith("/with-a-bug"):
            password = "canary-of-a-variable"
            raise RuntimeError(f"canary-of-the-error {len(password)}")
        return get_response(request)

    return middleware
