"""Working on a run: one attempt at it, and how it ends. The only module that sees rows and providers together."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import TypeVar

import structlog
from django.conf import settings
from django.db import InterfaceError, OperationalError, transaction
from django.utils import translation
from django.utils.translation import gettext

from accounts.models import Profile
from generation import photos, queue
from generation.exceptions import (
    CircuitsOpen,
    ContentFiltered,
    GenerationError,
    InternalError,
    UpstreamAuth,
    UpstreamCredits,
)
from generation.models import Run, release_connections
from generation.modes import Mode
from generation.providers import get_image_provider
from generation.providers.base import ImageProvider, TransformRequest, UpstreamAnswer
from notifications.emails import email_news, is_looked_at
from notifications.models import Notification
from notifications.services import notify

log = structlog.get_logger("generation")
T = TypeVar("T")

DATABASE_CAP_SECONDS = 30
RETRY_CAP_SECONDS = 30
OWNER_MUST_ACT = (UpstreamAuth.code, UpstreamCredits.code)
NEWS = {
    Run.Status.SUCCEEDED: Notification.Kind.RUN_SUCCEEDED,
    Run.Status.FAILED: Notification.Kind.RUN_FAILED,
}


def process_run(run: Run) -> None:
    """Make one attempt at a claimed run. Never raises: however it ends, the row says so."""
    with structlog.contextvars.bound_contextvars(
        run_id=str(run.pk),
        preset_id=run.preset_slug,
        user_id=run.user_id,
        mode=run.mode,
        attempt=run.attempts,
    ):
        try:
            _attempt(run)
        except GenerationError as error:
            _give_up(run, error)
        except Exception:
            log.exception("generation_crashed")
            _give_up(run, InternalError(detail="see the traceback"))


def _attempt(run: Run) -> None:
    log.info("generation_started")
    started = time.monotonic()
    if run.attempts == 1 and run.started_at:
        run.queue_ms = _milliseconds((run.started_at - run.created_at).total_seconds())
    provider = get_image_provider(run.provider)
    request = _transform_request(run, provider)
    phase = Run.Phase.STORING if request.answer else Run.Phase.GENERATING
    if not repeated(lambda: run.enter(phase, queue_ms=run.queue_ms)):
        return
    calling = time.monotonic()
    release_connections()
    made = provider.transform(request)
    model_ms = _milliseconds(time.monotonic() - calling)
    if run.phase != Run.Phase.STORING and not repeated(lambda: run.enter(Run.Phase.STORING, model_ms=model_ms)):
        return
    storing = time.monotonic()
    release_connections()
    stored = photos.accept_result(made.data, made.source_type, name=f"{run.pk.hex}-{run.attempts}")
    store_ms = _milliseconds(time.monotonic() - storing)
    log.info("result_stored", duration_ms=store_ms, bytes=stored.bytes, width=stored.width, height=stored.height)
    try:
        kept = repeated(
            lambda: end(run, lambda: run.succeed(**vars(stored), store_ms=store_ms)) or end(run, run.cancel)
        )
    except BaseException:
        stored.discard()
        raise
    if kept and run.status == Run.Status.SUCCEEDED:
        log.info("generation_succeeded", duration_ms=_milliseconds(time.monotonic() - started))
    # A commit whose confirmation was lost has kept the picture, though the second try found nothing to change.
    elif not repeated(lambda: Run.objects.filter(pk=run.pk, result=stored.result).exists()):
        stored.discard()


def _transform_request(run: Run, provider: ImageProvider) -> TransformRequest:
    calling = time.monotonic()

    def answered(answer: UpstreamAnswer) -> None:
        facts = {
            "endpoint": answer.endpoint,
            "upstream_request_id": answer.request_id,
            "upstream_seed": answer.seed,
            "model_ms": _milliseconds(time.monotonic() - calling),
            "billed_calls": run.billed_calls + 1,
        }
        # A picture that came within the answer is not kept on the row.
        if not answer.result_url.startswith("data:"):
            facts["result_url"] = answer.result_url
        repeated(lambda: run.enter(Run.Phase.STORING, **facts))
        release_connections()

    def unanswered() -> None:
        repeated(lambda: run.enter(Run.Phase.GENERATING, possible_cost=run.possible_cost + 1))
        release_connections()

    known = UpstreamAnswer(run.result_url, run.upstream_seed, run.upstream_request_id, run.endpoint)
    return TransformRequest(
        request_id=f"{run.pk}.{run.attempts}",
        photo=b"" if provider.fetches_photo else photos.read(run.photo.file),
        photo_url=run.photo.file.url if provider.fetches_photo else "",
        prompt=run.prompt,
        negative_prompt=run.negative_prompt,
        strength=run.strength,
        seed=run.seed,
        recipe=run.recipe,
        model=run.model,
        steps=run.steps,
        guidance=run.guidance,
        seconds=run.seconds_left,
        answer=known if run.result_url else None,
        answered=answered,
        unanswered=unanswered,
    )


def repeated(change: Callable[[], T]) -> T:
    """Make a change of the row, again and again while the database is away: what it says has already happened."""
    pause, until = 0.5, time.monotonic() + settings.RUN_DEADLINE_SECONDS
    while True:
        try:
            return change()
        except (OperationalError, InterfaceError):
            if transaction.get_connection().in_atomic_block or time.monotonic() > until:
                raise
            log.warning("database_away", exc_info=True, duration_ms=_milliseconds(pause))
            release_connections()
            time.sleep(pause)
            pause = min(DATABASE_CAP_SECONDS, pause * 2)


def _give_up(run: Run, error: GenerationError) -> None:
    """End the attempt: back to the queue if trying again may help and there is time, else failed."""
    if isinstance(error, CircuitsOpen) and run.error_code in OWNER_MUST_ACT:
        # The reason why the circuits are open.
        error.code, error.english = run.error_code, run.error_message
    after = timedelta(seconds=error.retry_after or min(RETRY_CAP_SECONDS, 2**run.attempts))
    may_wait = error.transient and after.total_seconds() < run.seconds_left
    if may_wait and repeated(lambda: run.requeue(code=error.code, message=error.english, after=after)):
        queue.wake([run.pk], after=after)
        waits_ms = _milliseconds(after.total_seconds())
        log.warning("run_requeued", code=error.code, detail=error.detail, duration_ms=waits_ms)
        return
    log.warning("generation_failed", code=error.code, detail=error.detail)
    if isinstance(error, ContentFiltered):
        # The filter judges the finished picture, which has to be paid, also if the user has cancelled meanwhile.
        facts = {"billed_calls": max(1, run.billed_calls), "error_code": error.code}
        repeated(lambda: run.enter(Run.Phase(run.phase), **facts))
    repeated(
        lambda: fail_run(
            run,
            code=error.code,
            message=error.english,
            retryable=error.retryable,
            possible_cost=error.possible_cost,
        )
    )


def fail_run(run: Run, *, code: str, message: str, retryable: bool = True, possible_cost: bool = False) -> bool:
    """End a run as failed, or as cancelled if its user has given it up meanwhile."""

    def fail() -> bool:
        return run.fail(code=code, message=message, retryable=retryable, possible_cost=possible_cost)

    return end(run, fail) or end(run, partial(run.cancel, possible_cost=possible_cost))


def end(run: Run, change: Callable[[], bool]) -> bool:
    """Change a run's status for good, and tell its user, in one transaction; False if it was not this worker's."""
    status = run.status
    try:
        with transaction.atomic():
            profile = _owner(run)
            if not change():
                return False
            batch_done = tell(run, profile)
            if profile:
                # Not before the commit; and whatever becomes of it, the run has ended.
                transaction.on_commit(partial(_email, run, batch_done), robust=True)
    except BaseException:
        run.status = status  # nothing was changed, so the change may be made again
        raise
    return True


def _owner(run: Run) -> Profile | None:
    """Lock the profile of whoever has the run by now: a guest's run moves to the account that the guest signs in to."""
    profile = Profile.objects.lock(run.user_id)
    if profile is None and (moved_to := Run.objects.filter(pk=run.pk).values_list("user", flat=True).first()):
        run.user_id = moved_to
        profile = Profile.objects.lock(moved_to)
    return profile


def tell(run: Run, profile: Profile | None) -> bool:
    """Write the news of a run that has ended, in the caller's transaction; return whether its whole batch has."""
    if profile is None:
        return False
    with translation.override(profile.language or run.language):
        return _tell(run, profile)


def _tell(run: Run, profile: Profile) -> bool:
    look = {"look": run.look}
    failed = gettext("%(look)s did not work. You were not charged.")
    if run.counted:
        failed = gettext("%(look)s did not work. This counted, because the service had already started.")
    messages = {Run.Status.SUCCEEDED: gettext("%(look)s is ready.") % look, Run.Status.FAILED: failed % look}
    status = Run.Status(run.status)
    if status in NEWS:
        notify(
            profile,
            kind=NEWS[status],
            subject=run.pk,
            message=messages[status],
            url=run.get_absolute_url(),
        )
    batch_done = bool(run.batch) and not Run.objects.active().filter(batch=run.batch).exists()
    if run.batch and batch_done:
        notify(
            profile,
            kind=Notification.Kind.BATCH_DONE,
            subject=run.batch,
            message=gettext("MoodMorph is done.") if run.mode == Mode.MOODMORPH else gettext("Your pictures are done."),
            url=run.get_batch_url(),
        )
    return batch_done


def _email(run: Run, batch_done: bool) -> None:
    """Write to a run's user, unless they are looking: about a batch once, when all of it has ended."""
    if is_looked_at(run.batch or run.pk):
        return
    if run.batch and batch_done:
        _email_about_batch(run)
    elif not run.batch and (kind := NEWS.get(Run.Status(run.status))):
        email_news(
            run.user_id,
            language=run.language,
            kind=kind,
            look=run.preset_name,
            url=run.get_absolute_url(),
            reason=Run.objects.filter(pk=run.pk).values_list("error_message", flat=True).first() or "",
            counted=run.counted,
        )


def _email_about_batch(run: Run) -> None:
    ended = Run.objects.last_tries().filter(batch=run.batch, deleted_at=None).exclude(status=Run.Status.CANCELLED)
    statuses = list(ended.values_list("status", flat=True))
    # Who has cancelled all of it knows.
    if statuses:
        email_news(
            run.user_id,
            language=run.language,
            kind=Notification.Kind.BATCH_DONE,
            look="MoodMorph" if run.mode == Mode.MOODMORPH else "",
            url=run.get_batch_url(),
            ready=statuses.count(Run.Status.SUCCEEDED),
            asked=len(statuses),
        )


def _milliseconds(seconds: float) -> int:
    return max(0, round(seconds * 1000))
