"""A photo becomes a picture: what is asked for, reused, refused, cancelled, tried again and deleted."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import uuid
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import F, Max, Sum
from django.db.models.functions import Coalesce
from django.utils import timezone

from accounts import credentials
from accounts.deletion import forget
from accounts.models import AddressChange, Profile, default_name
from generation import photos, queue
from generation.attempts import end, tell
from generation.exceptions import (
    AccountGone,
    BudgetExceeded,
    GenerationError,
    IdempotencyKeyReused,
    NotCancellable,
    NotRetryable,
    PresetUnavailable,
    PromptUnsupported,
    QuotaExceeded,
    StorageFull,
    TooManyActiveRuns,
    TooManyExports,
    TooManyFiltered,
)
from generation.models import MAX_SEED, BilledDay, Export, IdempotencyKey, Photo, Preset, Run, database_now
from generation.modes import CUSTOM_NAME, Mode
from generation.providers import default_provider
from notifications.emails import looks_at
from notifications.models import Notification

if TYPE_CHECKING:
    from accounts.models import User

log = structlog.get_logger("generation")

CUSTOM_STRENGTH = 0.7
KEY_LIFETIME = timedelta(hours=24)
UNDO_SECONDS = 600
MAX_DAILY_EXPORTS = 3


# -- Asking for runs ---------------------------------------------------------------------------------------


def start_run(
    *,
    user: User,
    photo: Photo | photos.Upload,
    preset: Preset | None = None,
    prompt: str = "",
    strength: float | None = None,
    seed: int | None = None,
    fresh: bool = False,
    key: str = "",
) -> Run:
    """Accept one run of a photo, by a preset or by the user's own words; or answer with what the same key made before.

    Raises GenerationError, and then leaves nothing behind.
    """
    request = _fingerprint(photo.sha256, preset and preset.slug, strength, seed, fresh, *([prompt] if prompt else []))
    earlier = _made_before(user, key, request)
    if earlier:
        return earlier[0]
    if preset and not preset.is_usable:
        raise PresetUnavailable
    if prompt and not takes_prompts():
        raise PromptUnsupported
    with _kept(user, photo, runs=1) as photo:
        run = _draft(user, photo, preset, prompt=prompt, strength=strength, seed=seed)
        return _accept(user, [run], key=key, request=request, fresh=fresh)[0]


def start_batch(
    *,
    user: User,
    photo: Photo | photos.Upload,
    mode: Mode | None = None,
    presets: Sequence[Preset] = (),
    variations: int = 1,
    key: str = "",
) -> list[Run]:
    """Accept several runs of one photo, all of them or none: a mode's members, or presets, each with so many seeds.

    Raises GenerationError.
    """
    asked = (mode,) if mode else ([preset.slug for preset in presets], variations)
    request = _fingerprint(photo.sha256, *asked)
    earlier = _made_before(user, key, request)
    if earlier:
        return earlier
    members = list(Preset.objects.active().members(mode).sound()) if mode else list(presets)
    if not members or not all(member.is_usable for member in members):
        raise PresetUnavailable
    batch = uuid.uuid4()
    # A preset that is asked for several times would be the same picture again with the seed that it has by default.
    seeds = [None] if variations == 1 else random.sample(range(1, MAX_SEED), variations)
    with _kept(user, photo, runs=len(members) * len(seeds)) as photo:
        runs = [_draft(user, photo, member, seed=seed, batch=batch) for member in members for seed in seeds]
        return _accept(user, runs, key=key, request=request)


def takes_prompts() -> bool:
    """Say whether a run may be asked for in the user's own words: the built-in engine cannot read."""
    return default_provider() != "embedded"


def retry_run(run: Run) -> Run:
    """Make a new run from a failed or cancelled one's photo and snapshot; trying twice gives the same new run."""
    with transaction.atomic():
        Profile.objects.lock(run.user_id)
        retried = Run.objects.filter(retry_of=run).first()
        if retried:
            return retried
        run.refresh_from_db()
        if not run.can_retry:
            raise NotRetryable
        new = _copy(run, retry_of=run, batch=run.batch)
        return _accept(run.user, [new], key="", request="", fresh=True)[0]


def vary_run(run: Run, *, strength: float | None = None, seed: int | None = None, key: str = "") -> Run:
    """Make a new run from another's photo and snapshot, with another strength or seed. Raises GenerationError."""
    request = _fingerprint(run.pk, strength, seed)
    new = _copy(run, strength=strength or run.strength, seed=seed or run.seed)
    return _accept(run.user, [new], key=key, request=request)[0]


def _copy(run: Run, **changes: Any) -> Run:
    """Return an unsaved run with the snapshot of another. Raises PresetUnavailable when its preset was switched off."""
    if run.preset and not run.preset.is_active:
        raise PresetUnavailable
    copied = (
        "user_id photo_id mode preset_id preset_slug preset_name preset_tag prompt negative_prompt"
        " strength seed recipe provider model steps guidance"
    )
    new = Run(**{name: getattr(run, name) for name in copied.split()} | changes)
    new.fingerprint = _run_fingerprint(new)
    return new


def _draft(
    user: User,
    photo: Photo,
    preset: Preset | None,
    *,
    prompt: str = "",
    strength: float | None = None,
    seed: int | None = None,
    batch: uuid.UUID | None = None,
) -> Run:
    """Return an unsaved run with its snapshot taken."""
    run = Run(user=user, photo=photo, batch=batch, provider=default_provider(), upload_ms=photo.upload_ms)
    if preset:
        run.mode, run.preset = Mode(preset.mode), preset
        run.preset_slug, run.preset_name, run.preset_tag = preset.slug, preset.name, preset.tag
        run.prompt, run.negative_prompt, run.recipe = preset.prompt, preset.negative_prompt, preset.recipe
    else:
        run.mode, run.preset_name, run.prompt = Mode.CUSTOM, CUSTOM_NAME, prompt
    run.strength = strength or (preset.strength if preset else CUSTOM_STRENGTH)
    # Any seed will do, but it is part of the snapshot: the run can be explained and repeated.
    run.seed = seed or (preset and preset.default_seed) or random.randint(1, MAX_SEED)  # noqa: S311
    if run.provider == "aiml":
        run.model, run.steps, run.guidance = settings.AIML_MODEL, settings.AIML_STEPS, settings.AIML_GUIDANCE
    run.fingerprint = _run_fingerprint(run)
    return run


def _run_fingerprint(run: Run) -> str:
    made_from = (run.provider, run.model, run.steps, run.guidance, run.prompt, run.negative_prompt, run.recipe)
    return _fingerprint(run.photo.sha256, run.strength, run.seed, *made_from)


def _accept(user: User, runs: list[Run], *, key: str, request: str, fresh: bool = False) -> list[Run]:
    """Write the runs if the user may have them. Counting and inserting happen under one lock."""
    with transaction.atomic():
        profile = Profile.objects.lock(user.pk) or Profile.objects.upsert(user)
        earlier = _made_before(user, key, request)
        if earlier:
            return earlier
        now = database_now()
        for run in runs:
            run.created_at = now
            if not fresh:
                _reuse(run)
        if due := [run for run in runs if run.status == Run.Status.QUEUED]:
            check_limits(user, provider=due[0].provider, runs=len(due), profile=profile)
        Run.objects.bulk_create(runs)
        if key:
            _remember(IdempotencyKey(user=user, key=key, fingerprint=request, runs=[str(run.pk) for run in runs]))
        for run in runs:
            log.info("run_accepted", run_id=str(run.pk), preset_id=run.preset_slug, cached=run.cached)
            if run.cached:
                tell(run, profile)
        # Whoever asked a moment ago is still there, and the built-in engine may be done before their page is.
        asked = {run.batch or run.pk for run in runs}
        transaction.on_commit(lambda: looks_at(*asked))
        transaction.on_commit(lambda: queue.wake([run.pk for run in due]))
    return runs


def _reuse(run: Run) -> None:
    """Turn a draft into an ended run if the same user already has what it would make."""
    earlier = Run.objects.for_user(run.user).reusable(run.fingerprint).filter(photo=run.photo).first()
    if earlier is None:
        return
    for name in ["result", "thumbnail", "width", "height", "bytes", "content_type", "source_type"]:
        setattr(run, name, getattr(earlier, name))
    run.status, run.phase, run.cached = Run.Status.SUCCEEDED, Run.Phase.DONE, True
    run.finished_at, run.total_ms = run.created_at, 0


def check_limits(user: User, *, provider: str, runs: int, profile: Profile | None = None) -> None:
    """Check that a user may have so many more runs. Exact only while the caller holds the user's profile.

    Raises QuotaExceeded, TooManyFiltered, BudgetExceeded, TooManyActiveRuns and StorageFull.
    """
    mine = Run.objects.filter(user=user)
    limit = daily_limit(profile or Profile.objects.upsert(user))
    if limit and mine.counted_today().count() + runs > limit:
        raise QuotaExceeded(resets_at=tomorrow())
    if settings.FILTERED_RUNS_DAILY and mine.filtered_today().count() >= settings.FILTERED_RUNS_DAILY:
        raise TooManyFiltered(resets_at=tomorrow())
    if settings.MAX_ACTIVE_RUNS and mine.active().count() + runs > settings.MAX_ACTIVE_RUNS:
        raise TooManyActiveRuns
    check_room(user, 1)
    if settings.DAILY_BILLED_CALLS_LIMIT and provider != "embedded":
        _check_budget(runs)


def _check_budget(runs: int) -> None:
    """Check the installation's limit of calls a day. In a transaction whoever asks next waits until it has ended."""
    with transaction.atomic():
        day, _ = BilledDay.objects.get_or_create(day=timezone.now().date())
        day = BilledDay.objects.select_for_update().get(pk=day.pk)
        if Run.objects.billed_calls_today() + day.other_calls + runs > settings.DAILY_BILLED_CALLS_LIMIT:
            raise BudgetExceeded(resets_at=tomorrow())


def check_room(user: User, more: int) -> None:
    """Check that an account may keep so many more bytes. Raises StorageFull."""
    limit = storage_limit(user)
    if limit and stored_bytes(user) + more > limit:
        raise StorageFull


def storage_limit(user: User) -> int:
    """Return how many bytes an account may keep; 0 is no limit."""
    megabytes: int = settings.MAX_STORED_MB_GUEST if user.is_guest else settings.MAX_STORED_MB
    return megabytes * 1_000_000


def stored_bytes(user: User) -> int:
    """Return how many bytes of photos and results an account keeps, without their thumbnails."""
    sent = Photo.objects.filter(user=user, deleted_at=None).aggregate(total=Coalesce(Sum("bytes"), 0))["total"]
    # A result that was answered from the cache is the file of the earlier one.
    files = Run.objects.filter(user=user).exclude(result="").order_by().values("result").annotate(size=Max("bytes"))
    return int(sent + files.aggregate(total=Coalesce(Sum("size"), 0))["total"])


def daily_limit(profile: Profile) -> int:
    """Return how many runs a day the user may make; 0 is no limit."""
    return settings.DAILY_RUN_LIMIT if profile.daily_run_limit is None else profile.daily_run_limit


def tomorrow() -> datetime:
    """Return when the day's limit is whole again: midnight, UTC."""
    return (timezone.now() + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)


def quota(profile: Profile) -> dict[str, Any]:
    """Return what the user has used of today's limit; the limit and what remains are None where there is none."""
    limit = daily_limit(profile) or None
    used = Run.objects.filter(user_id=profile.user_id).counted_today().count()
    remaining = None if limit is None else max(0, limit - used)
    return {"limit": limit, "used": used, "remaining": remaining, "resets_at": tomorrow()}


def storage(user: User) -> dict[str, Any]:
    """Return how many bytes an account keeps, and how many it may; `limit` is None where there is none."""
    return {"used": stored_bytes(user), "limit": storage_limit(user) or None}


def _made_before(user: User, key: str, request: str) -> list[Run]:
    """Return the runs that the same request with the same key made, if any."""
    since = timezone.now() - KEY_LIFETIME
    known = key and IdempotencyKey.objects.filter(user=user, key=key, created_at__gte=since).first()
    if not known:
        return []
    if known.fingerprint != request:
        raise IdempotencyKeyReused
    runs = Run.objects.select_related("photo").in_bulk(known.runs)
    found = [runs[uuid.UUID(pk)] for pk in known.runs if uuid.UUID(pk) in runs]
    for run in found:
        run.replayed = True
    return found


def _remember(key: IdempotencyKey) -> None:
    # One that has expired may still be there: it is of another request now.
    fields = ["fingerprint", "runs", "answer", "created_at"]
    IdempotencyKey.objects.bulk_create(
        [key], update_conflicts=True, unique_fields=["user", "key"], update_fields=fields
    )


@contextlib.contextmanager
def _kept(user: User, photo: Photo | photos.Upload, *, runs: int) -> Iterator[Photo]:
    """Give the stored photo that runs are made of; one that was stored for nothing is not kept."""
    if isinstance(photo, Photo):
        yield photo
        return
    # Not exact without the lock, but most of what is refused is refused before anything is stored.
    check_limits(user, provider=default_provider(), runs=runs)
    stored = accept_photo(user, photo)
    try:
        yield stored
    except GenerationError:
        if stored.is_new and not stored.runs.exists():
            delete_photo(stored)
        raise


def accept_photo(user: User, upload: photos.Upload) -> Photo:
    """Check, normalise and store what a user sent. Raises PhotoError, StorageUnavailable and StorageFull."""
    return photos.accept(user, upload, check_room=partial(check_room, user))


def _fingerprint(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


# -- Changing one's mind -----------------------------------------------------------------------------------


def cancel_run(run: Run) -> Run:
    """End a waiting run at once; ask a running one to drop its result. Raises NotCancellable when it has ended."""
    # A run that starts or is handed back between our look and our change is looked at again: it can do so only
    # a few times before it ends.
    for _ in range(10):
        run.refresh_from_db()
        if run.status == Run.Status.RUNNING and run.cancel_requested_at:
            return run
        if end(run, run.cancel):
            log.info("run_cancelled", run_id=str(run.pk))
            return run
        if run.request_cancel():
            run.refresh_from_db()
            return run
        if not run.is_active:
            break
    raise NotCancellable


def delete_run(run: Run) -> None:
    """Take a run and its result away. Its bare row stays: deleting must not give back what was used up."""
    with contextlib.suppress(NotCancellable):
        cancel_run(run)
    with transaction.atomic():
        Profile.objects.lock(run.user_id)
        run.refresh_from_db()
        names = _files_of_its_own(run)
        Run.objects.filter(pk=run.pk).update(deleted_at=timezone.now(), result="", thumbnail="", favourite=False)
        Notification.objects.filter(subject=run.pk).delete()
        transaction.on_commit(lambda: photos.delete_files(*names))


def bin_runs(runs: Iterable[Run]) -> datetime:
    """Take runs away so that they can be brought back for a while; return the moment, which `restore_runs` asks for.

    Their pictures are deleted by the sweep, once nobody can change their mind any more.
    """
    now, runs = timezone.now(), list(runs)
    for run in runs:
        if run.is_active:
            with contextlib.suppress(NotCancellable):
                cancel_run(run)
    Notification.objects.filter(subject__in=[run.pk for run in runs]).delete()
    Run.objects.filter(pk__in=[run.pk for run in runs], deleted_at=None).update(deleted_at=now)
    return now


def restore_runs(user: User, binned_at: datetime) -> int:
    """Bring back what a user took away at that moment, as far as the sweep has not been there; return how many."""
    return Run.objects.filter(user=user, deleted_at=binned_at).exclude(photo__file="").update(deleted_at=None)


def empty_bin() -> int:
    """Delete the pictures of runs that were taken away a while ago; return how many."""
    binned = Run.objects.binned().filter(deleted_at__lt=timezone.now() - timedelta(seconds=UNDO_SECONDS))
    for run in binned:
        delete_run(run)
    return len(binned)


def delete_photo(photo: Photo) -> None:
    """Take a photo away, with everything that was made of it. Bare rows stay, as they do of deleted runs."""
    for run in Run.objects.filter(photo=photo, deleted_at=None):
        delete_run(run)
    names = photo.file.name, photo.thumbnail.name
    with transaction.atomic():
        # The same picture may be sent again, and is then a new photo.
        gone = {
            "deleted_at": timezone.now(),
            "sha256": f"deleted:{photo.pk.hex}",
            "name": "",
            "file": "",
            "thumbnail": "",
        }
        Photo.objects.filter(pk=photo.pk).update(**gone)
        transaction.on_commit(lambda: photos.delete_files(*names))


def change_avatar(profile: Profile, file: Any) -> None:
    """Store a new picture of the user in the place of the old one; None takes it away. Raises GenerationError."""
    old = profile.avatar.name
    new = photos.accept_avatar(photos.Upload(file.read(), file.name)) if file else ""
    if not Profile.objects.filter(pk=profile.pk).update(avatar=new):
        photos.delete_files(new)
        raise AccountGone
    profile.avatar = new
    photos.delete_files(old)


def delete_account(user: User) -> None:
    """Take an account away with all that belongs to it: stored pictures, and its name in the log of the admin site.

    Every way of deleting one ends here. A picture that the storage does not delete now is left to the sweep.
    """
    with transaction.atomic():
        Profile.objects.lock(user.pk)
        forget(user)
        names = [name for photo in Photo.objects.filter(user=user) for name in (photo.file.name, photo.thumbnail.name)]
        names += [name for run in Run.objects.filter(user=user) for name in (run.result.name, run.thumbnail.name)]
        names += [profile.avatar.name for profile in Profile.objects.filter(user=user)]
        _count_other_calls(Run.objects.filter(user=user).calls_made_today())
        names += [export.file.name for export in Export.objects.for_user(user)]
        user_id = user.pk
        # An address may be in a session, and the session of an app is its token.
        credentials.end_sessions(user=user)
        user.delete()
        transaction.on_commit(lambda: photos.delete_files(*set(names)))
    log.info("account_deleted", user_id=user_id)


def undo_email_change(*, change: AddressChange) -> bool:
    """Give an account the address back that it had before; return False when that is not possible any more.

    An account with the address that nobody has proved is deleted: this mail is the proof. Accounts with another
    address that want to change to it stay, without that wish.
    """
    with transaction.atomic():
        if credentials.old_address_is_proved(change):
            return False
        if holder := credentials.unproved_holder(change):
            delete_account(holder)
        credentials.drop_pending_changes(address=change.old_address)
        return credentials.undo_change(change)


def _count_other_calls(calls: int) -> None:
    """Count calls of today that no run counts: they have to be paid all the same."""
    if calls:
        day, _ = BilledDay.objects.get_or_create(day=timezone.now().date())
        BilledDay.objects.filter(pk=day.pk).update(other_calls=F("other_calls") + calls)


def count_trial() -> None:
    """Count one call of a preset trial against the installation's limit. Raises BudgetExceeded."""
    if default_provider() != "embedded":
        with transaction.atomic():
            if settings.DAILY_BILLED_CALLS_LIMIT:
                _check_budget(1)
            _count_other_calls(1)


# -- Exports -----------------------------------------------------------------------------------------------


def request_export(user: User) -> Export:
    """Return the export of a user that is being made, or ask for a new one. Raises TooManyExports."""
    with transaction.atomic():
        Profile.objects.lock(user.pk) or Profile.objects.upsert(user)
        mine = Export.objects.for_user(user)
        if active := mine.active().first():
            return active
        today = mine.filter(created_at__gt=timezone.now() - timedelta(days=1)).order_by("created_at")
        if len(times := list(today.values_list("created_at", flat=True))) >= MAX_DAILY_EXPORTS:
            raise TooManyExports(retry_after=(times[0] + timedelta(days=1) - timezone.now()).total_seconds())
        export = mine.create(user=user)
        log.info("export_accepted", user_id=user.pk)
        transaction.on_commit(queue.bell.ring)
    return export


def latest_export(user: User) -> Export | None:
    return Export.objects.for_user(user).first()


def expire_exports(exports: Iterable[Export]) -> int:
    """Delete the files of exports that are ready; return how many."""
    expired = [export.file.name for export in exports if export.expire()]
    transaction.on_commit(lambda: photos.delete_files(*expired))
    return len(expired)


def _files_of_its_own(run: Run) -> list[str]:
    """Return the run's files, unless another run shares them: one from the cache has the earlier one's."""
    if not run.result or Run.objects.filter(result=run.result.name).exclude(pk=run.pk).exists():
        return []
    return [name for name in (run.result.name, run.thumbnail.name) if name]


def adopt_guest(*, guest: User, user: User) -> None:
    """Give an account everything that a guest made before signing in, and close the guest's account."""
    with transaction.atomic():
        Profile.objects.lock(guest.pk)
        Profile.objects.lock(user.pk)
        for photo in Photo.objects.for_user(guest):
            same = Photo.objects.for_user(user).filter(sha256=photo.sha256).first()
            if same:
                Run.objects.filter(photo=photo).update(photo=same)
                transaction.on_commit(partial(photos.delete_files, photo.file.name, photo.thumbnail.name))
                photo.delete()
        Photo.objects.filter(user=guest).update(user=user)
        Run.objects.filter(user=guest).update(user=user)
        Notification.objects.for_user(guest).update(user=user)
        expire_exports(Export.objects.for_user(guest))
        # A request that is repeated after signing in gets the runs that it made before. The account's own keys stay.
        taken = IdempotencyKey.objects.filter(user=user).values_list("key", flat=True)
        IdempotencyKey.objects.filter(user=guest).exclude(key__in=list(taken)).update(user=user)
        _keep_the_name(guest, user)
        delete_account(guest)


def _keep_the_name(guest: User, user: User) -> None:
    """Call a new account what the guest was called, unless it has been given another name than the first one."""
    name = Profile.objects.filter(user=guest).values_list("display_name", flat=True).first()
    if name:
        Profile.objects.filter(user=user, display_name=default_name(user)).update(display_name=name)
