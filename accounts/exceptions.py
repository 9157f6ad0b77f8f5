"""What every refusal of a request has in common, on pages and in the API."""

from datetime import datetime

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

RETRY_AFTER_SECONDS = 5


class Refusal(Exception):
    """A request that is not served. `status` is the HTTP status that pages and API answer with.

    `code` is stable and for programs, `message` is the sentence for people in their language, `retry_after` is in
    seconds.
    """

    code = "invalid"
    status = 400
    sentence: str | Promise = _("This did not work.")
    retryable = False
    transient = False
    resets_at: datetime | None = None

    def __init__(self, message: str | Promise = "", *, retry_after: float | None = None) -> None:
        self.message = str(message or self.sentence)
        self.retry_after = retry_after
        super().__init__(self.message)

    @property
    def headers(self) -> dict[str, str]:
        """Return the headers of an answer with this refusal: when to try again, where that helps."""
        if self.status != 503 and self.retry_after is None:
            return {}
        return {"Retry-After": str(max(1, round(self.retry_after or RETRY_AFTER_SECONDS)))}


class LimitReached(Refusal):
    """A client address has asked for too much."""

    code = "throttled"
    status = 429
    sentence = _("Too many requests come from your network. Please try again later.")
    retryable = True
