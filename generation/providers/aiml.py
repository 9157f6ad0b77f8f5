"""The AIML API as an ImageProvider: `POST /v1/images/generations`, one call for one picture.

Every call is billed anew; there is no idempotency at the service. So a call is repeated only where it surely made
nothing, or gave an answer that is no answer; and an answer is told to the caller before the picture is fetched.
"""

import base64
import binascii
import email.utils
import json
import random
import time
from collections.abc import Mapping
from typing import Any

import structlog
from django.conf import settings

from generation.engine.exceptions import DecodeError
from generation.engine.headers import read_header
from generation.exceptions import (
    ContentFiltered,
    ProviderError,
    ResultInvalid,
    ResultUnavailable,
    UpstreamAuth,
    UpstreamCredits,
    UpstreamEmpty,
    UpstreamMalformed,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from generation.images import processing
from generation.images.provenance import COMPOSITE_WITH_AI
from generation.providers import http
from generation.providers.base import TransformRequest, TransformResult, UpstreamAnswer
from generation.providers.endpoints import Call, Endpoint, Outcome, call, circuit, configured

log = structlog.get_logger("generation")

PATH = "/v1/images/generations"
MAX_PROMPT = 4000
# The luminance, 0..255, that no pixel of a black picture exceeds.
BLACK = 2
RESULT = http.Limits(connect=5, read=20, whole=30, most_bytes=30_000_000)


class AimlProvider:
    name = "aiml"
    fetches_photo = True

    def transform(self, request: TransformRequest) -> TransformResult:
        answer = request.answer
        if answer is None:
            answer = _generated(request)
            request.answered(answer)
        data = _picture(answer.result_url)
        if _is_black(data):
            raise ContentFiltered
        return TransformResult(data, COMPOSITE_WITH_AI)


def payload(request: TransformRequest) -> dict[str, Any]:
    """Return the documented fields and no others. There is none for a negative prompt, so that is folded in."""
    prompt = request.prompt
    if request.negative_prompt:
        prompt = f"{prompt.rstrip(' .')}, without {request.negative_prompt}."
    fields = {
        "model": request.model,
        "prompt": prompt[:MAX_PROMPT],
        "image_url": request.photo_url,
        "strength": request.strength,
        "seed": request.seed,
        "num_images": 1,
        "num_inference_steps": request.steps,
        "guidance_scale": request.guidance,
    }
    # Left out is the service's default; null would be refused.
    return {name: value for name, value in fields.items() if value is not None}


def _generated(request: TransformRequest) -> UpstreamAnswer:
    """Have the picture made, with the retries that an attempt has. Raises ProviderError.

    An endpoint that refuses our key, or fails as a probe, costs no run that another endpoint can serve.
    """
    fields, until = payload(request), time.monotonic() + request.seconds
    last: Endpoint | None = None
    left = configured()
    number = 0
    while True:
        with call(left, avoid=last) as made:
            last = made.endpoint
            try:
                answer = _called(last, fields, request.request_id, until - time.monotonic())
                made.outcome = Outcome.GOOD
                return answer
            except ProviderError as error:
                made.outcome = OUTCOMES.get(type(error), Outcome.GOOD)
                trouble = error
        if made.is_given_up:
            left = _others(request, made, trouble, left)
            continue
        number += 1
        pause = _pause(number)
        is_over = number > settings.AIML_MAX_RETRIES or time.monotonic() + pause >= until
        if is_over or trouble.transient or not isinstance(trouble, SURELY_NOTHING_MADE):
            raise trouble
        log.warning("upstream_retry", code=trouble.code, endpoint=last.name, duration_ms=round(pause * 1000))
        time.sleep(pause)


def _others(request: TransformRequest, made: Call, trouble: ProviderError, left: list[Endpoint]) -> list[Endpoint]:
    """Return the endpoints to go on with after one was given up. Raises the trouble when there is none.

    A run that was only the probe of a key that is still refused goes back to the queue: nothing was made.
    """
    others = [endpoint for endpoint in left if endpoint != made.endpoint]
    if others:
        if trouble.possible_cost:
            request.unanswered()
        log.warning("upstream_retry", code=trouble.code, endpoint=made.endpoint.name)
        return others
    if made.is_probe and made.outcome is Outcome.REFUSED:
        trouble.transient, trouble.retry_after = True, circuit(made.endpoint).seconds
    raise trouble


def _pause(number: int) -> float:
    """Seconds before retry `number`: doubling, capped, with up to a tenth of jitter."""
    milliseconds: float = min(settings.AIML_RETRY_CAP_MS, settings.AIML_RETRY_BASE_MS * 2 ** (number - 1))
    return milliseconds / 1000 * random.uniform(1.0, 1.1)  # noqa: S311


def _called(endpoint: Endpoint, fields: Mapping[str, Any], request_id: str, seconds: float) -> UpstreamAnswer:
    """Make one call. Raises ProviderError by what came back, or did not."""
    started = time.monotonic()
    limits = http.Limits(
        connect=settings.AIML_CONNECT_TIMEOUT_SECONDS,
        read=settings.AIML_READ_TIMEOUT_SECONDS,
        whole=min(settings.AIML_CALL_SECONDS, seconds),
        # A picture may come within the answer, as base64.
        most_bytes=RESULT.most_bytes * 4 // 3 + 100_000,
    )
    facts: dict[str, Any] = {"endpoint": endpoint.name}
    try:
        reply = http.post_json(
            endpoint.base + PATH,
            fields,
            headers={
                "Authorization": f"Bearer {endpoint.key}",
                "X-Client-Request-Id": request_id,
                "Connection": "close",
            },
            limits=limits,
        )
        facts |= {"http_status": reply.status, "upstream_request_id": reply.headers.get("x-inference-id", "")[:100]}
        return _read(reply, endpoint)
    except http.CallFailed as error:
        facts["code"] = str(error)
        if error.sent:
            raise UpstreamTimeout(detail=str(error)) from error
        raise UpstreamUnavailable(detail=str(error)) from error
    except http.TooLarge as error:
        raise UpstreamMalformed(detail="the answer is too large") from error
    except ProviderError as error:
        facts["code"] = error.code
        raise
    finally:
        log.info("upstream_call", duration_ms=round((time.monotonic() - started) * 1000), **facts)


def _read(reply: http.Answer, endpoint: Endpoint) -> UpstreamAnswer:
    """Make sense of an answer in any of the documented shapes. Raises ProviderError."""
    if not 200 <= reply.status < 300:
        raise _refusal(reply, endpoint)
    try:
        body = json.loads(reply.body)
    except ValueError as error:
        raise UpstreamMalformed(detail="not JSON") from error
    if not isinstance(body, dict):
        raise UpstreamMalformed(detail="not an object")
    flagged = body.get("has_nsfw_concepts")
    if isinstance(flagged, list) and any(flag is True for flag in flagged):
        raise ContentFiltered
    items = [*_list(body, "data"), *_list(body, "images")]
    if not items and "data" not in body and "images" not in body:
        raise UpstreamMalformed(detail="neither data nor images")
    url = next((found for item in items if isinstance(item, dict) and (found := _address(item))), None)
    if url is None:
        raise UpstreamEmpty
    seed = body.get("seed")
    return UpstreamAnswer(
        result_url=url,
        seed=seed if isinstance(seed, int) else None,
        request_id=reply.headers.get("x-inference-id", "")[:100],
        endpoint=endpoint.name,
    )


def _list(body: Mapping[str, Any], name: str) -> list[Any]:
    found = body.get(name)
    return found if isinstance(found, list) else []


def _address(item: Mapping[str, Any]) -> str | None:
    """The address of a picture in an answer, or the picture itself as a data: address."""
    url, inline = item.get("url"), item.get("b64_json")
    if isinstance(url, str) and url:
        return url
    return f"data:;base64,{inline}" if isinstance(inline, str) and inline else None


def _refusal(reply: http.Answer, endpoint: Endpoint) -> ProviderError:
    """Say by the status alone what a refusal means: the bodies have no common shape."""
    status = reply.status
    if status in (401, 403):
        log.critical("upstream_refused_key", endpoint=endpoint.name, http_status=status)
        return UpstreamAuth() if status == 401 else UpstreamCredits()
    if status == 429:
        return UpstreamRateLimited(retry_after=_retry_after(reply))
    if status in (500, 502, 503, 504):
        return UpstreamUnavailable(detail=f"status {status}")
    if 400 <= status < 500:
        return UpstreamRejected(detail=f"status {status}")
    return UpstreamMalformed(detail=f"status {status}")


def _retry_after(reply: http.Answer) -> float | None:
    """Read Retry-After, seconds or a date; None when it is missing or makes no sense."""
    value = reply.headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return float(min(int(value[:9]), 86_400))
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None


def _picture(url: str) -> bytes:
    """Fetch what was made, with the retries of an attempt: it is paid for. Raises ResultUnavailable, ResultInvalid."""
    if url.startswith("data:"):
        try:
            return base64.b64decode(url.partition(",")[2], validate=True)
        except binascii.Error as error:
            raise ResultInvalid(detail="not base64") from error
    for number in range(1, settings.AIML_MAX_RETRIES + 2):
        try:
            reply = http.fetch_public(url, hosts=settings.RESULT_HOSTS, limits=RESULT)
            if reply.status == 200:
                return reply.body
            trouble = f"status {reply.status}"
        except http.AddressBlocked as error:
            log.error("ssrf_blocked", code=str(error))
            raise ResultInvalid(detail="blocked address") from error
        except http.TooLarge as error:
            raise ResultInvalid(detail="too large") from error
        except http.CallFailed as error:
            trouble = str(error)
        log.warning("upstream_retry", code="result_unavailable", detail=trouble)
        if number <= settings.AIML_MAX_RETRIES:
            time.sleep(_pause(number))
    raise ResultUnavailable(detail=trouble)


def _is_black(data: bytes) -> bool:
    """Say whether this is the black picture that the safety filter answers with; a broken one is judged elsewhere."""
    header = read_header(data)
    # Black takes less than half a bit a pixel: what takes more is a picture, and need not be decoded.
    if header is None or len(data) > 2_000 + header.pixels // 16:
        return False
    try:
        return processing.brightest(data, {"pixels": settings.MAX_PHOTO_PIXELS}) <= BLACK
    except DecodeError:
        return False


SURELY_NOTHING_MADE = (UpstreamUnavailable, UpstreamRateLimited, UpstreamMalformed, UpstreamEmpty)
OUTCOMES: dict[type[ProviderError], Outcome] = {
    UpstreamUnavailable: Outcome.FAILED,
    UpstreamTimeout: Outcome.FAILED,
    UpstreamMalformed: Outcome.FAILED,
    UpstreamEmpty: Outcome.FAILED,
    UpstreamRateLimited: Outcome.NEUTRAL,
    UpstreamAuth: Outcome.REFUSED,
    UpstreamCredits: Outcome.REFUSED,
}
