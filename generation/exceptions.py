"""Everything that can be refused or go wrong on the way from a photo to a picture.

GenerationError                 somebody can act on it: `code` is stored and tested, `message` may be shown;
                                a `transient` one is tried again by itself within the run's deadline
├── PhotoError                  the photo cannot be used
│   ├── PhotoRequired
│   ├── PhotoEmpty
│   ├── PhotoTooLarge
│   ├── PhotoTypeUnsupported
│   ├── PhotoInvalid
│   ├── PhotoDimensions
│   └── PhotoTooManyPixels
├── PromptUnsupported           the built-in engine cannot read
├── PresetUnavailable           hidden or gone since the page was made
├── QuotaExceeded               no runs left today
│   ├── TooManyFiltered         the safety filter hid too many of today's runs
│   └── BudgetExceeded          the installation pays for no more calls today
├── AccountGone                 deleted while the request was being served
├── StorageFull                 the account keeps as many bytes as it may
├── TooManyActiveRuns
├── TooManyExports              several within a day
├── IdempotencyKeyRequired
├── IdempotencyKeyInvalid
├── IdempotencyKeyReused        the same key with another request
├── NotCancellable
├── NotRetryable
├── StorageUnavailable          transient
├── ImageProcessingBusy         transient: no room for another picture at the moment
├── InternalError               a bug of ours
└── ProviderError               the picture could not be made
    ├── CircuitsOpen            transient: every endpoint is being skipped
    ├── UpstreamUnavailable     it could not be reached, or broke down
    ├── UpstreamTimeout         it did not answer, and may have made (and billed) the picture
    ├── UpstreamRateLimited     transient where it said when to come back
    ├── UpstreamAuth            our key is wrong: the owner must act
    ├── UpstreamCredits         our credits are used up: the owner must act
    ├── UpstreamRejected        it does not take this request
    ├── UpstreamMalformed       its answer makes no sense
    ├── UpstreamEmpty           its answer has no picture
    ├── ContentFiltered         its safety filter hid the picture
    ├── ResultUnavailable       the picture was made and cannot be fetched
    └── ResultInvalid
"""

from datetime import datetime

from django.utils import translation
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from accounts.exceptions import Refusal


class GenerationError(Refusal):
    """A refusal on the way from a photo to a picture; `detail` is for the log only.

    `english` is the sentence for the row, whose readers each have a language of their own.
    """

    possible_cost = False

    def __init__(self, message: str | Promise = "", *, detail: str = "", retry_after: float | None = None) -> None:
        with translation.override(None):
            self.english = str(message or self.sentence)
        self.detail = detail
        super().__init__(message, retry_after=retry_after)


class PhotoError(GenerationError):
    code = "photo_invalid"
    status = 422


class PhotoRequired(PhotoError):
    code = "photo_required"
    status = 400
    sentence = _("Choose a photo first.")


class PhotoEmpty(PhotoError):
    code = "photo_empty"
    sentence = _("This file is empty. Please choose another photo.")


class PhotoTooLarge(PhotoError):
    code = "photo_too_large"
    status = 413
    sentence = _("This photo is too large.")


class PhotoTypeUnsupported(PhotoError):
    code = "photo_type_unsupported"
    status = 415
    sentence = _("This is not a photo we can read. Please choose a JPEG, PNG, WebP or HEIC picture.")


class PhotoInvalid(PhotoError):
    code = "photo_invalid"
    sentence = _("This photo is damaged and cannot be read. Please choose another one.")


class PhotoDimensions(PhotoError):
    code = "photo_dimensions"
    sentence = _("This photo has unusual measures. Each side must be between 64 and 12,000 pixels.")


class PhotoTooManyPixels(PhotoError):
    code = "photo_too_many_pixels"
    sentence = _("This photo has too many pixels.")


class PresetUnavailable(GenerationError):
    code = "preset_unavailable"
    status = 409
    sentence = _("This look is no longer available. Please pick another one.")


class PromptUnsupported(GenerationError):
    sentence = _("The built-in engine cannot follow a description. Please pick a preset.")


class QuotaExceeded(GenerationError):
    code = "quota_exceeded"
    status = 429
    sentence = _("You have used all of today's pictures. There are new ones tomorrow.")

    def __init__(self, *, resets_at: datetime) -> None:
        super().__init__()
        self.resets_at = resets_at


class TooManyFiltered(QuotaExceeded):
    sentence = _("The safety filter hid too many of your pictures today. Please come back tomorrow.")


class BudgetExceeded(QuotaExceeded):
    code = "budget_exceeded"
    sentence = _("No more pictures can be made here today. Please come back tomorrow.")


class AccountGone(GenerationError):
    code = "not_found"
    status = 404
    sentence = _("This account was deleted.")


class StorageFull(GenerationError):
    code = "storage_full"
    status = 409
    sentence = _("Your storage is full. Please delete some photos or pictures first.")


class TooManyActiveRuns(GenerationError):
    code = "too_many_active_runs"
    status = 429
    sentence = _("Several of your pictures are still being made. Please wait until one is done.")


class TooManyExports(GenerationError):
    code = "throttled"
    status = 429
    sentence = _("You have asked for several exports today. Please try again tomorrow.")


class IdempotencyKeyRequired(GenerationError):
    code = "idempotency_key_required"
    sentence = _("This request needs an Idempotency-Key header.")


class IdempotencyKeyInvalid(GenerationError):
    code = "idempotency_key_invalid"
    sentence = _("An Idempotency-Key has 1 to 255 visible ASCII characters.")


class IdempotencyKeyReused(GenerationError):
    code = "idempotency_key_reused"
    status = 422
    sentence = _("This page was already used for another picture. Please start again from the studio.")


class NotCancellable(GenerationError):
    code = "not_cancellable"
    status = 409
    sentence = _("This picture has already ended.")


class NotRetryable(GenerationError):
    code = "not_retryable"
    status = 409
    sentence = _("Only a picture that failed or was cancelled can be tried again.")


class StorageUnavailable(GenerationError):
    code = "storage_unavailable"
    status = 503
    sentence = _("We cannot store pictures at the moment. You were not charged.")
    retryable = True
    transient = True


class ImageProcessingBusy(GenerationError):
    code = "service_unavailable"
    status = 503
    sentence = _("Many photos are being processed at the moment. Please try again in a few seconds.")
    retryable = True
    transient = True


class InternalError(GenerationError):
    code = "internal_error"
    status = 500
    sentence = _("Something went wrong on our side.")


class ProviderError(GenerationError):
    code = "upstream_unavailable"
    status = 503
    sentence = _("The picture could not be made.")
    retryable = True


class CircuitsOpen(ProviderError):
    code = "upstream_unavailable"
    sentence = _("The picture service is not available at the moment. Your picture waits until it is back.")
    transient = True


class UpstreamUnavailable(ProviderError):
    code = "upstream_unavailable"
    sentence = _("The picture service is not available at the moment.")


class UpstreamTimeout(ProviderError):
    code = "upstream_timeout"
    sentence = _("The picture service took too long to answer.")
    possible_cost = True


class UpstreamRateLimited(ProviderError):
    code = "upstream_rate_limited"
    sentence = _("The picture service has too much to do at the moment.")

    def __init__(self, message: str | Promise = "", *, detail: str = "", retry_after: float | None = None) -> None:
        super().__init__(message, detail=detail, retry_after=retry_after)
        self.transient = retry_after is not None


class UpstreamAuth(ProviderError):
    code = "upstream_auth"
    sentence = _("The picture service is unavailable. We have been told and are looking into it.")


class UpstreamCredits(ProviderError):
    code = "upstream_credits"
    sentence = _("The picture service is unavailable. We have been told and are looking into it.")


class UpstreamRejected(ProviderError):
    code = "upstream_rejected"
    sentence = _("The picture service does not accept this photo with this look. Please try another look.")
    retryable = False


class UpstreamMalformed(ProviderError):
    code = "upstream_malformed"
    sentence = _("The picture service gave an answer that we do not understand.")


class UpstreamEmpty(ProviderError):
    code = "upstream_empty"
    sentence = _("The picture service answered without a picture.")


class ContentFiltered(ProviderError):
    code = "content_filtered"
    sentence = _("The safety filter of the picture service hid this picture. Please try another photo or look.")
    retryable = False


class ResultUnavailable(ProviderError):
    code = "result_unavailable"
    sentence = _("The picture was made, but it could not be fetched.")


class ResultInvalid(ProviderError):
    code = "result_invalid"
    sentence = _("The picture that came back could not be read.")
