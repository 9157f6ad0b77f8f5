"""What an installation must not be started with: half-set services, and development switches in production."""

import os
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.http.request import split_domain_port, validate_host

SHORTEST_TOKEN = 20


@register
def services_are_whole(**options: Any) -> list[CheckMessage]:
    """A service that is set by halves would fail at the first photo; say it at the start."""
    found: list[CheckMessage] = []
    makes_pictures = settings.AIML_API_KEY or settings.AIML_ENDPOINTS
    if makes_pictures and not settings.CLOUDINARY_URL:
        found.append(
            Error(
                "AIML is set and Cloudinary is not.",
                hint="The AIML API fetches photos itself: set CLOUDINARY_URL, or clear AIML_API_KEY.",
                id="stefna.E001",
            )
        )
    if settings.CLOUDINARY_URL:
        parts = urlsplit(settings.CLOUDINARY_URL)
        if parts.scheme != "cloudinary" or not (parts.username and parts.password and parts.hostname):
            found.append(
                Error(
                    "CLOUDINARY_URL is incomplete.",
                    hint="It reads cloudinary://KEY:SECRET@CLOUD, as the Cloudinary console shows it.",
                    id="stefna.E002",
                )
            )
        if os.environ.get("CLOUDINARY_CLOUD_NAME"):
            found.append(
                Error(
                    "CLOUDINARY_CLOUD_NAME is set beside CLOUDINARY_URL.",
                    hint="Cloudinary's library would ignore CLOUDINARY_URL: unset the other CLOUDINARY_… variables.",
                    id="stefna.E003",
                )
            )
    found += [
        Error(
            f"AIML_ENDPOINTS entry {number} is incomplete.",
            hint="Each reads base|key|weight, with the base beginning with https://.",
            id="stefna.E004",
        )
        for number, (base, key, weight) in enumerate(settings.AIML_ENDPOINTS, start=1)
        if not base.startswith(("https://", "http://")) or not key or weight <= 0
    ]
    found += _sign_in_is_whole()
    return found


def _sign_in_is_whole() -> list[CheckMessage]:
    needed = {
        "Google": ["GOOGLE_CLIENT_ID", "GOOGLE_CLIENT_SECRET"],
        "Apple": ["APPLE_CLIENT_ID", "APPLE_TEAM_ID", "APPLE_KEY_ID", "APPLE_PRIVATE_KEY"],
    }
    missing = {service: [name for name in names if not getattr(settings, name)] for service, names in needed.items()}
    return [
        Error(
            f"Sign-in with {service} is set by halves.",
            hint=f"Set {', '.join(names)} as well, or clear the others.",
            id="stefna.E006",
        )
        for service, names in missing.items()
        if names and len(names) < len(needed[service])
    ]


@register(Tags.security, deploy=True)
def nothing_of_development_is_on(**options: Any) -> list[CheckMessage]:
    """Switches that are right on a developer's machine and wrong on the internet."""
    found: list[CheckMessage] = []
    if settings.UPSTREAM_PRIVATE_HOSTS and not settings.DEBUG:
        found.append(
            Warning(
                "UPSTREAM_PRIVATE_HOSTS opens addresses of the private network to what a service answers.",
                hint="It is for tests; clear it.",
                id="stefna.W001",
            )
        )
    if settings.DEV_ALLOW_NOAUTH:
        found.append(Error("DEV_ALLOW_NOAUTH is on.", hint="It is for a developer's machine.", id="stefna.E005"))
    if settings.METRICS_TOKEN and len(settings.METRICS_TOKEN) < SHORTEST_TOKEN:
        found.append(
            Warning(
                "METRICS_TOKEN is short enough to be guessed.",
                hint=f"Use {SHORTEST_TOKEN} characters or more, or none: then only staff may read the numbers.",
                id="stefna.W007",
            )
        )
    bases = [base for base, _, _ in settings.AIML_ENDPOINTS] or [settings.AIML_API_BASE]
    if any(not base.startswith("https://") for base in bases):
        found.append(Warning("The AIML key would travel without encryption.", hint="Use https://.", id="stefna.W002"))
    if settings.DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3" and settings.CELERY_BROKER_URL:
        found.append(
            Warning(
                "Workers of a queue engine share an SQLite file.",
                hint="Set DATABASE_URL to a PostgreSQL database.",
                id="stefna.W003",
            )
        )
    if settings.CELERY_BROKER_URL and not settings.REDIS_URL:
        found.append(
            Warning(
                "Each process counts throttles and skips failing endpoints for itself alone.",
                hint="Set REDIS_URL, so that all of them share what they know.",
                id="stefna.W005",
            )
        )
    if settings.ACCOUNT_EMAIL_VERIFICATION != "none" and settings.EMAIL_BACKEND.endswith("console.EmailBackend"):
        found.append(
            Warning("Nobody receives e-mails: they go to the console.", hint="Set EMAIL_URL.", id="stefna.W004")
        )
    if settings.EMAIL_BACKEND == "stefna.smtp.EmailBackend" and not settings.SITE_URL.startswith("https://"):
        found.append(
            Warning(
                f"Links in e-mails lead to {settings.SITE_URL}.",
                hint="Set SITE_URL to where the site is reached, beginning with https://.",
                id="stefna.W006",
            )
        )
    site = urlsplit(settings.SITE_URL)
    if site.scheme == "https" and not validate_host(split_domain_port(site.netloc)[0], settings.ALLOWED_HOSTS):
        found.append(
            Warning(
                f"Pages at {settings.SITE_URL} would be refused.",
                hint="Set ALLOWED_HOSTS to the name in SITE_URL, and to no name that is not yours.",
                id="stefna.W008",
            )
        )
    return found
