"""Setting right what a dead process left: its runs, its files, and what has expired."""

import itertools
import os
import secrets
import socket
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import structlog
from django.conf import settings
from django.contrib.sessions.models import Session
from django.core.cache import cache
from django.db.models import Exists, Manager, OuterRef
from django.utils import timezone
from django.utils.translation import gettext_noop

from accounts import database
from accounts.credentials import UNDO_LIFETIME
from accounts.models import AddressChange, Profile, User
from generation import attempts, metrics, photos, queue, services
from generation.models import Export, IdempotencyKey, Photo, Run, database_time

log = structlog.get_logger("generation")

MAX_CRASHES = 3
ORPHAN_SECONDS = 3600
CLEAN_UP_SECONDS = 3600
FEW_ORPHANS = 20
SESSIONS_AT_ONCE = 1000
ORPHANS_AT_A_TIME = 500
# The files of each folder of the storage, and where rows refer to them.
FOLDERS: dict[str, tuple[Manager[Any], tuple[str, ...]]] = {
    "photos": (Photo.objects, ("file", "thumbnail")),
    "results": (Run.objects, ("result", "thumbnail")),
    "avatars": (Profile.objects, ("avatar",)),
    "exports": (Export.objects, ("file",)),
}
WAKE_MOST, WAKE_AGAIN_SECONDS = 1000, 60

# Who this process is, as it is written on the runs that it holds. The last part tells it from an earlier process
# that had its number, as the first process of a container always has.
_HOST, _PID, _START = socket.gethostname(), os.getpid(), secrets.token_hex(4)
WORKER_NAME = f"{_HOST}:{_PID}:{_START}"


def take_over_lost_runs() -> int:
    """Hand the runs of dead workers back to the queue, and fail those that have no time left; return how many."""
    changed, handed_back = 0, []
    for run in _lost_runs():
        if run.crashes + 1 >= MAX_CRASHES:
            message = gettext_noop("This picture stopped our worker several times.")
            changed += _failed(run, "worker_crashed", message)
        elif run.requeue(code="worker_crashed", crashed=True):
            log.warning("run_taken_over", run_id=str(run.pk), preset_id=run.preset_slug, attempt=run.attempts)
            handed_back.append(run.pk)
        else:
            changed += attempts.end(run, partial(run.cancel, possible_cost=run.is_unanswered))
    earliest = database_time(-timedelta(seconds=settings.RUN_DEADLINE_SECONDS))
    for run in Run.objects.filter(status=Run.Status.QUEUED, created_at__lt=earliest):
        code = run.error_code or "deadline_exceeded"
        changed += _failed(run, code, gettext_noop("This picture had to wait too long."))
    if handed_back:
        queue.wake(handed_back)
    return changed + len(handed_back)


def _failed(run: Run, code: str, message: str) -> bool:
    # Several workers may see the same run; one of them ends it.
    failed = attempts.fail_run(run, code=code, message=message)
    if failed:
        log.warning("generation_failed", run_id=str(run.pk), preset_id=run.preset_slug, user_id=run.user_id, code=code)
    return failed


def wake_waiting_runs() -> int:
    """Tell workers again of runs that have been due for a while: messages get lost. Return how many."""
    waited = database_time(-timedelta(seconds=settings.RUN_HEARTBEAT_SECONDS))
    due = Run.objects.due().filter(created_at__lt=waited).values_list("pk", flat=True)[:WAKE_MOST]
    # Behind a long queue a run waits with its message still there; once a minute is often enough.
    lost = [run_id for run_id in due if cache.add(f"woken:{run_id}", 1, WAKE_AGAIN_SECONDS)]
    queue.wake(lost)
    return len(lost)


def is_clean_up_due() -> bool:
    """Say whether this process is the one that cleans up in this hour."""
    return cache.add("cleaned_up", 1, CLEAN_UP_SECONDS)


def _lost_runs() -> Iterator[Run]:
    """Yield running runs whose lease ran out, and those of this host whose process is gone: no need to wait then."""
    yield from Run.objects.lost()
    for run in Run.objects.filter(status=Run.Status.RUNNING, worker__startswith=f"{_HOST}:"):
        if run.worker != WORKER_NAME and not _is_alive(run.worker):
            yield run


def dead_here(workers: Iterable[str]) -> list[str]:
    """Return those of some workers that were processes of this host and are gone."""
    ours = (worker for worker in workers if worker.startswith(f"{_HOST}:") and worker != WORKER_NAME)
    return [worker for worker in ours if not _is_alive(worker)]


def _is_alive(worker: str) -> bool:
    pid = int(worker.split(":")[-2])
    if pid == _PID:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        # A killed process keeps its number until its parent asks how it ended, and in many containers nobody does.
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state not in ("Z", "X")


def clean_up() -> dict[str, int]:
    """Delete what nobody needs any more, and keep the numbers of what is over; return how many of each."""
    # First: the runs of expired guests count too.
    with database.limited(database.UNLIMITED):
        counted = metrics.roll_up()
    expired_keys, _ = IdempotencyKey.objects.filter(created_at__lt=timezone.now() - services.KEY_LIFETIME).delete()
    guests = 0
    for guest in User.objects.expired_guests():
        services.delete_account(guest)
        guests += 1
    for user in User.objects.expired_unverified():
        services.delete_account(user)
    AddressChange.objects.filter(created_at__lt=timezone.now() - UNDO_LIFETIME).delete()
    return {
        "counted_periods": counted,
        "expired_keys": expired_keys,
        "expired_sessions": _delete_expired_sessions(),
        "expired_guests": guests,
        "binned_runs": services.empty_bin(),
        "expired_exports": _expire_exports(),
        "orphaned_files": delete_orphans(),
        "unfinished_uploads": _delete_unfinished_uploads(),
    }


@dataclass(frozen=True)
class Orphans:
    """Stored pictures of a folder that no row refers to, and how many pictures there are in all."""

    folder: str
    names: list[str]
    stored: int

    @property
    def is_doubtful(self) -> bool:
        """Most is unknown: perhaps the storage is not ours, or this is not the database that belongs to it."""
        return len(self.names) > FEW_ORPHANS and 2 * len(self.names) > self.stored


def find_orphans() -> Iterator[Orphans]:
    """Look for stored pictures without a row. A file is written a moment before its row is, so new ones are left out.

    Deleted rows take their files along (services); this finds what a storage has refused to delete, or a process has
    left when it died.
    """
    before = timezone.now() - timedelta(seconds=ORPHAN_SECONDS)
    for folder, (rows, columns) in FOLDERS.items():
        names = list(photos.stored_before(folder, before))
        unknown: list[str] = []
        for start in range(0, len(names), ORPHANS_AT_A_TIME):
            some = names[start : start + ORPHANS_AT_A_TIME]
            known = {name for column in columns for name in _known(rows, column, some)}
            unknown += [name for name in some if name not in known]
        yield Orphans(folder, unknown, len(names))


def _known(rows: Manager[Any], column: str, names: list[str]) -> Iterable[str]:
    return rows.filter(**{f"{column}__in": names}).values_list(column, flat=True)


def delete_orphans(*, confirmed: bool = False) -> int:
    """Delete pictures that no row refers to; those of a folder that is in doubt only when the owner has confirmed."""
    deleted, held_back = 0, {}
    for found in find_orphans():
        if found.is_doubtful and not confirmed:
            held_back[found.folder] = len(found.names)
            log.error("orphans_not_deleted", folder=found.folder, orphans=len(found.names), stored=found.stored)
            continue
        gone = photos.delete_files(*found.names)
        deleted += gone
        if found.names:
            log.info("orphans_deleted", folder=found.folder, orphans=len(found.names), deleted=gone)
    cache.set("orphans_held_back", held_back, 2 * CLEAN_UP_SECONDS)
    return deleted


def orphans_held_back() -> dict[str, int]:
    """Return how many pictures of each folder wait for the owner's word, as the last clean-up has found them."""
    held_back: dict[str, int] = cache.get("orphans_held_back") or {}
    return {folder: held_back.get(folder, 0) for folder in FOLDERS}


def _expire_exports() -> int:
    """Delete the files of exports after their time, and rows that no limit counts any more."""
    ended = Export.objects.exclude(state__in=[*Export.ACTIVE, Export.State.READY])
    ended.filter(created_at__lt=timezone.now() - Export.LIFETIME).delete()
    orphaned = Export.objects.filter(~Exists(User.objects.filter(pk=OuterRef("user_id"))))
    expired = services.expire_exports(Export.objects.outdated()) + services.expire_exports(orphaned)
    orphaned.delete()
    return expired


def _delete_expired_sessions() -> int:
    """Delete sessions that nobody can sign in with any more, so many at a time that no lock lasts long."""
    deleted = 0
    expired = Session.objects.filter(expire_date__lt=timezone.now()).order_by()
    while keys := list(expired.values_list("pk", flat=True)[:SESSIONS_AT_ONCE]):
        deleted += Session.objects.filter(pk__in=keys).delete()[0]
    return deleted


def _delete_unfinished_uploads() -> int:
    deleted = 0
    previews = Path(settings.CACHES["previews"]["LOCATION"])
    # The cache counts only the files that it has finished.
    begun = itertools.chain(Path(settings.FILE_UPLOAD_TEMP_DIR).iterdir(), previews.glob("tmp*"))
    for path in begun:
        if path.is_file() and time.time() - path.stat().st_mtime > ORPHAN_SECONDS:
            path.unlink(missing_ok=True)
            deleted += 1
    return deleted
