"""E-mail when something has ended and nobody is looking. It comes after the news, and nothing depends on it."""

from __future__ import annotations

import atexit
import contextvars
import threading
import time
import uuid
from typing import Any

import structlog
from django.conf import settings
from django.core import signing
from django.core.cache import cache
from django.core.mail import EmailMultiAlternatives
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import translation
from django.utils.translation import gettext, ngettext

from accounts.models import Profile, User
from notifications.models import Notification

log = structlog.get_logger("notifications")

# A page asks at least every five seconds, unless it is in the background: then nobody looks at it.
LOOKING_SECONDS = 20
SALT = "notifications.switch_off"
# A mail server that does not answer holds this many threads at most; what comes then is dropped.
MOST_AT_ONCE = 8
# A server that is being restarted, or defers whom it does not know, takes a mail a little later.
PAUSE_SECONDS = (1, 5)
LEAVING_SECONDS = 3


# -- Who is looking ------------------------------------------------------------------------------------------


def looks_at(*subjects: uuid.UUID, seconds: int = 0) -> None:
    """Remember that somebody looks at these runs or batches, now or for so many seconds. Writes no row."""
    cache.set_many({_looking(subject): 1 for subject in subjects}, LOOKING_SECONDS + seconds)


def is_looked_at(subject: uuid.UUID) -> bool:
    return cache.get(_looking(subject)) is not None


def _looking(subject: uuid.UUID) -> str:
    return f"looking:{subject}"


# -- Writing -------------------------------------------------------------------------------------------------


def email_news(
    user_id: int,
    *,
    kind: Notification.Kind,
    look: str,
    url: str,
    language: str,
    reason: str = "",
    counted: bool = False,
    ready: int = 0,
    asked: int = 0,
) -> None:
    """Write to somebody about what has ended, if they want that and have an address. Call it after the commit.

    `look` is the name of what was asked for, empty for a batch without one; `url` a path; `reason` why a run failed,
    and `counted` whether it counts against its user's limit all the same. `language` is what they were spoken to in,
    for those who chose none. Of a batch `ready` of `asked` came out.
    Returns without waiting for a mail server.
    """
    wanted = User.objects.filter(is_active=True, email__isnull=False, profile__email_notifications=True)
    user = wanted.select_related("profile").filter(pk=user_id).first()
    if user is None:
        return
    with translation.override(user.profile.language or language):
        # A preset's name is its own in every language; the user's own words are called something in each.
        look = gettext(look)
        subject, sentence = _words(kind, look, reason, counted, ready, asked)
        message = _message(user, subject, {"sentence": sentence, "url": settings.SITE_URL + url})
    _send(message)


def _words(kind: Notification.Kind, look: str, reason: str, counted: bool, ready: int, asked: int) -> tuple[str, str]:
    """Return subject and sentence, in the language that is active."""
    if kind == Notification.Kind.RUN_SUCCEEDED:
        return gettext("%(look)s is ready") % {"look": look}, gettext("Your picture is done.")
    if kind == Notification.Kind.RUN_FAILED:
        # The reason was stored in English, so that whoever reads it gets it in a language of theirs.
        sentences = [gettext(reason), gettext("Your photo is still there, for another try.")]
        if counted:
            sentences.insert(1, gettext("This counted, because the service had already started."))
        elif "not charged" not in reason:
            sentences.insert(1, gettext("You were not charged."))
        return gettext("%(look)s did not work") % {"look": look}, " ".join(sentences).strip()
    if kind == Notification.Kind.EXPORT_READY:
        return gettext("Your export is ready"), gettext("You can download it for 7 days.")
    subject = gettext("%(look)s is done") % {"look": look} if look else gettext("Your pictures are done")
    if ready == asked:
        return subject, gettext("All of them came out.")
    sentence = ngettext("%(ready)d of %(asked)d came out.", "%(ready)d of %(asked)d came out.", ready)
    return subject, sentence % {"ready": ready, "asked": asked}


def _message(user: User, subject: str, words: dict[str, Any]) -> EmailMultiAlternatives:
    switch_off = settings.SITE_URL + reverse("notifications_off", args=[switch_off_token(user)])
    context = words | {"heading": subject, "switch_off_url": switch_off, "to": user.email}
    message = EmailMultiAlternatives(
        " ".join(subject.split()),
        render_to_string("notifications/email/news.txt", context).strip() + "\n",
        to=[user.email or ""],
        # The two of RFC 8058: mail programs show a button that needs no sign-in.
        headers={
            "List-Unsubscribe": f"<{switch_off}>",
            "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
            "Auto-Submitted": "auto-generated",
        },
    )
    message.attach_alternative(render_to_string("notifications/email/news.html", context), "text/html")
    return message


# -- Sending -------------------------------------------------------------------------------------------------

_places = threading.BoundedSemaphore(MOST_AT_ONCE)


def _send(message: EmailMultiAlternatives) -> None:
    """Send in a thread of its own, which touches no database: a slow mail server must not keep a worker from runs."""
    if not _places.acquire(blocking=False):
        log.error("email_failed", code="too_many_at_once")
        return
    # With the context, so that its line in the log says which run it is about.
    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(_deliver, message), name="mail", daemon=True).start()


def _deliver(message: EmailMultiAlternatives) -> None:
    try:
        for pause in (0, *PAUSE_SECONDS):
            time.sleep(pause)
            if _is_out(message):
                break
    finally:
        _places.release()


def _is_out(message: EmailMultiAlternatives) -> bool:
    """Try to send; False if it may work another time."""
    started = time.monotonic()
    try:
        message.send()
    # ValueError: an address or a header that cannot be written down.
    except (OSError, ValueError) as error:
        # What a server says names the address, so it is not logged.
        log.error("email_failed", code=type(error).__name__, duration_ms=_milliseconds(started))
        return isinstance(error, ValueError)
    log.info("email_sent", duration_ms=_milliseconds(started))
    return True


def _milliseconds(started: float) -> int:
    return round((time.monotonic() - started) * 1000)


def finish(seconds: float = LEAVING_SECONDS) -> bool:
    """Wait for what is being sent, but not long; False if some of it is not out."""
    until = time.monotonic() + seconds
    taken = 0
    while taken < MOST_AT_ONCE and _places.acquire(timeout=max(0, until - time.monotonic())):
        taken += 1
    for _ in range(taken):
        _places.release()
    return taken == MOST_AT_ONCE


atexit.register(finish)


# -- Switching off -------------------------------------------------------------------------------------------


def switch_off_token(user: User) -> str:
    """Return what a link needs to switch somebody's mails off, and nothing else. It does not expire."""
    return signing.dumps(user.pk, salt=SALT)


def profile_of(token: str) -> Profile | None:
    """Return whose mails a link switches off; None for a link that is not ours, or of an account that is gone."""
    try:
        user_id = signing.loads(token, salt=SALT)
    except signing.BadSignature:
        return None
    return Profile.objects.filter(user_id=user_id).first()
