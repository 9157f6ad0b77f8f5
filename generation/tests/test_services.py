import os
import subprocess
import time
import uuid
from datetime import timedelta
from pathlib import Path

import pytest
import time_machine
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.models import Session
from django.core.files.storage import default_storage
from django.db import OperationalError, transaction
from django.utils import timezone

from accounts.models import User
from conftest import in_parallel, small
from generation import attempts, photos, services, sweep, tasks
from generation.exceptions import (
    CircuitsOpen,
    IdempotencyKeyReused,
    NotCancellable,
    NotRetryable,
    PresetUnavailable,
    QuotaExceeded,
    TooManyActiveRuns,
)
from generation.images import provenance
from generation.models import CountedRuns, IdempotencyKey, Photo, Preset, Run
from generation.modes import Mode
from generation.providers.base import TransformResult
from notifications.models import Notification


def news(user):
    return sorted(Notification.objects.for_user(user).values_list("kind", flat=True))


class Provider:
    """Stands in for a provider on the wire: does what the test says, once for each call."""

    name = "test"

    def __init__(self, *answers):
        self.answers, self.calls = list(answers), 0

    fetches_photo = False

    def transform(self, request):
        self.calls += 1
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        if callable(answer):
            answer = answer(request)
        return TransformResult(answer, provenance.ALGORITHMICALLY_ENHANCED)


@pytest.fixture
def provider(monkeypatch):
    def install(*answers):
        made = Provider(*answers)
        monkeypatch.setattr(attempts, "get_image_provider", lambda name: made)
        return made

    return install


def test_run_becomes_a_marked_picture_with_one_notification(start, work, alice):
    run = start()
    assert (run.status, run.phase, run.attempts) == ("queued", "queued", 0)
    assert work() == 1
    run.refresh_from_db()
    assert (run.status, run.phase, run.attempts, run.error_code) == ("succeeded", "done", 1, "")
    assert (run.width, run.height) == (run.photo.width, run.photo.height)
    assert run.leased_until is None
    assert None not in (run.queue_ms, run.model_ms, run.store_ms, run.total_ms)
    for file in (run.result, run.thumbnail):
        assert provenance.read(photos.read(file)) == "algorithmicallyEnhanced"
    assert news(alice) == ["run_succeeded"]


def test_snapshot_outlives_the_preset(start, work, preset):
    run = start()
    preset.delete()
    work()
    run.refresh_from_db()
    assert (run.status, run.preset, run.preset_slug) == ("succeeded", None, "express_enhance")


def test_same_key_and_request_is_one_run_and_another_request_is_refused(start, preset, catalogue):
    first = start(key="k")
    assert start(key="k") == first
    with pytest.raises(IdempotencyKeyReused):
        start(key="k", preset=catalogue.get(slug="noir_classic"))
    assert Run.objects.count() == 1


def test_hidden_preset_is_refused_and_leaves_nothing(alice, preset, upload):
    Preset.objects.filter(pk=preset.pk).update(is_active=False)
    preset.refresh_from_db()
    with pytest.raises(PresetUnavailable):
        services.start_run(user=alice, photo=upload, preset=preset, key="k")
    assert [model.objects.count() for model in (Photo, Run, IdempotencyKey)] == [0, 0, 0]


def test_fixed_seed_is_answered_from_earlier_result_and_costs_nothing(start, work, alice):
    first = start(seed=7)
    work()
    again = start(seed=7)
    first.refresh_from_db()
    assert (again.status, again.cached, again.result.name) == ("succeeded", True, first.result.name)
    assert Run.objects.counted_today().count() == 1
    assert start(seed=7, fresh=True).status == "queued"
    assert start(seed=8).status == "queued"


def test_deleting_a_cached_run_keeps_the_shared_file_until_the_last(start, work, django_capture_on_commit_callbacks):
    first = start(seed=7)
    work()
    again = start(seed=7)
    name = again.result.name
    with django_capture_on_commit_callbacks(execute=True):
        services.delete_run(Run.objects.get(pk=first.pk))
    assert default_storage.exists(name)
    with django_capture_on_commit_callbacks(execute=True):
        services.delete_run(again)
    assert not default_storage.exists(name)
    assert Run.objects.counted_today().count() == 1


def test_limits_count_what_is_used_and_free_what_failed(start, settings, work):
    settings.DAILY_RUN_LIMIT, settings.MAX_ACTIVE_RUNS = 3, 2
    first, _ = start(), start()
    with pytest.raises(TooManyActiveRuns):
        start()
    services.cancel_run(first)
    work()
    start()
    start()
    services.cancel_run(Run.objects.filter(status="queued").first())
    start()
    with pytest.raises(QuotaExceeded):
        start()


def test_moodmorph_is_three_runs_that_end_on_their_own(alice, photo, catalogue, work):
    runs = services.start_batch(user=alice, photo=photo, mode=Mode.MOODMORPH, key="k")
    assert [run.preset_slug for run in runs] == ["happy", "sad", "cinematic"]
    assert [run.seed for run in runs] == [1001, 1002, 1003]
    assert services.start_batch(user=alice, photo=photo, mode=Mode.MOODMORPH, key="k") == runs
    work()
    assert news(alice) == ["batch_done", "run_succeeded", "run_succeeded", "run_succeeded"]
    assert len(set(Run.objects.values_list("result", flat=True))) == 3


def test_batch_is_all_or_nothing(alice, photo, catalogue, settings):
    settings.DAILY_RUN_LIMIT = 2
    with pytest.raises(QuotaExceeded):
        services.start_batch(user=alice, photo=photo, mode=Mode.MOODMORPH)
    assert Run.objects.count() == 0


def test_failure_says_why_and_try_again_makes_one_new_run(start, provider, work, alice):
    provider(RuntimeError("a bug"), small("coffee"))
    run = start()
    work()
    run.refresh_from_db()
    assert (run.status, run.error_code, run.error_retryable, run.counted) == ("failed", "internal_error", False, False)
    assert news(alice) == ["run_failed"]
    new = services.retry_run(run)
    assert services.retry_run(run) == new
    assert (new.seed, new.photo, new.retry_of) == (run.seed, run.photo, run)
    work()
    new.refresh_from_db()
    assert new.status == "succeeded"
    with pytest.raises(NotRetryable):
        services.retry_run(new)


def test_transient_trouble_goes_back_to_the_queue_until_the_deadline(start, provider, work):
    provider(CircuitsOpen(), small("coffee"), CircuitsOpen())
    run = start()
    work()
    run.refresh_from_db()
    assert (run.status, run.error_code) == ("queued", "upstream_unavailable")
    assert run.run_after > timezone.now()
    Run.objects.update(run_after=None)
    work()
    run.refresh_from_db()
    assert (run.status, run.attempts) == ("succeeded", 2)
    late = start()
    Run.objects.filter(pk=late.pk).update(created_at=timezone.now() - timedelta(seconds=599))
    work()
    late.refresh_from_db()
    assert (late.status, late.error_code) == ("failed", "upstream_unavailable")


@pytest.mark.parametrize("data", [b"", b"<html>", small("coffee")[:2000]])
def test_result_that_is_no_picture_fails_the_run(start, provider, work, data):
    provider(data)
    run = start()
    work()
    run.refresh_from_db()
    assert (run.status, run.error_code, run.result) == ("failed", "result_invalid", "")


def test_cancel_ends_a_waiting_run_and_drops_a_running_ones_result(start, provider, work, alice, settings):
    waiting = services.cancel_run(start())
    assert waiting.status == "cancelled"
    with pytest.raises(NotCancellable):
        services.cancel_run(waiting)

    def cancelled_meanwhile(request):
        services.cancel_run(Run.objects.get(pk=running.pk))
        return small("coffee")

    provider(cancelled_meanwhile)
    running = start()
    work()
    running.refresh_from_db()
    assert (running.status, running.result) == ("cancelled", "")
    assert news(alice) == []
    assert not [path for path in (settings.MEDIA_ROOT / "results").rglob("*") if path.is_file()]


def test_worker_that_lost_its_run_changes_nothing(start, provider, alice):
    run = start()
    slow = Run.objects.claim(run.pk, "elsewhere:1:slow")
    Run.objects.update(leased_until=timezone.now() - timedelta(seconds=1))
    assert sweep.take_over_lost_runs() == 1
    provider(small("coffee"))
    faster = Run.objects.claim(run.pk, "elsewhere:2:fast")
    assert (faster.attempts, faster.crashes) == (2, 1)
    attempts.process_run(faster)
    assert not slow.succeed(result="other")
    assert not slow.fail(code="x", message="x")
    assert not slow.enter(Run.Phase.STORING)
    assert not slow.requeue()
    assert Run.objects.renew_leases("elsewhere:1:slow", [run.pk]) == 0
    assert news(alice) == ["run_succeeded"]


def test_lease_of_a_claim_that_its_worker_does_not_know_of_runs_out(start, work):
    """The confirmation of a claim was lost: the worker lives, renews what it holds, and does not hold this run."""
    lost, known = start(), start(seed=2)
    for run in (lost, known):
        assert Run.objects.claim(run.pk, sweep.WORKER_NAME)
    Run.objects.update(leased_until=timezone.now() - timedelta(seconds=1))
    assert Run.objects.renew_leases(sweep.WORKER_NAME, [known.pk]) == 1
    assert sweep.take_over_lost_runs() == 1
    assert Run.objects.get(pk=lost.pk).status == "queued"
    Run.objects.filter(pk=known.pk).update(status="queued", leased_until=None)
    assert work() == 2


@pytest.mark.django_db(transaction=True)
def test_attempt_whose_first_change_is_cut_off_makes_it_again(start, work, monkeypatch):
    cuts = [OperationalError("the server closed the connection")]

    def enter(run, phase, enter=Run.enter, **facts):
        if cuts:
            raise cuts.pop()
        return enter(run, phase, **facts)

    monkeypatch.setattr(Run, "enter", enter)
    run = start()
    assert work() == 1
    run.refresh_from_db()
    assert (run.status, run.attempts, cuts) == ("succeeded", 1, [])


@pytest.mark.django_db(transaction=True)
def test_suspect_is_worked_on_alone(start, provider):
    """Of many runs that two workers died over, each is the only one that its third worker holds."""
    held = {}

    def slowly(request):
        time.sleep(0.05)
        held[uuid.UUID(request.request_id.partition(".")[0])] = len(tasks.held._runs)
        return small("coffee")

    provider(*[slowly] * 6)
    runs = [start(seed=seed, fresh=True) for seed in range(1, 7)]
    suspects = {run.pk for run in runs[::2]}
    Run.objects.filter(pk__in=suspects).update(crashes=2)
    assert in_parallel(6, lambda number: tasks.process(runs[number].pk)) == [True] * 6
    assert Run.objects.filter(status="succeeded").count() == 6
    assert {held[pk] for pk in suspects} == {1}


@pytest.mark.django_db(transaction=True)
def test_worker_that_stops_takes_no_suspect(start, work):
    run = start()
    Run.objects.update(crashes=2)
    holder = tasks.Holder()
    holder.stop()
    with holder.claimed(run.pk) as claimed:
        assert claimed is None
    run.refresh_from_db()
    assert run.status == "queued"
    assert work() == 1


@pytest.mark.django_db(transaction=True)
def test_picture_is_kept_when_the_confirmation_of_its_commit_is_lost(start, work, alice, monkeypatch):
    lost = [OperationalError("the server closed the connection")]

    def told_and_cut_off(run, profile, tell=attempts.tell):
        tell(run, profile)
        # What runs after a commit fails after it, as a lost confirmation does.
        transaction.on_commit(lambda: lost and (_ for _ in ()).throw(lost.pop()))

    monkeypatch.setattr(attempts, "tell", told_and_cut_off)
    run = start()
    work()
    run.refresh_from_db()
    assert not lost
    assert run.status == "succeeded"
    assert default_storage.exists(run.result.name)
    assert default_storage.exists(run.thumbnail.name)
    assert news(alice) == ["run_succeeded"]


def test_third_crash_fails_the_run(start, alice):
    run = start()
    for is_suspect in (False, False, True):
        assert Run.objects.claim(run.pk, "elsewhere:1:x", alone=not is_suspect) is None
        assert Run.objects.claim(run.pk, "elsewhere:1:x", alone=is_suspect)
        Run.objects.update(leased_until=timezone.now() - timedelta(seconds=1))
        sweep.take_over_lost_runs()
    run.refresh_from_db()
    assert (run.status, run.error_code, run.crashes) == ("failed", "worker_crashed", 2)
    assert news(alice) == ["run_failed"]


def test_run_of_a_dead_process_on_this_host_is_taken_over_at_once(start):
    run = start()
    Run.objects.claim(run.pk, f"{sweep._HOST}:{sweep._PID}:earlier")
    assert sweep.take_over_lost_runs() == 1
    Run.objects.claim(run.pk, sweep.WORKER_NAME)
    assert sweep.take_over_lost_runs() == 0


def test_run_of_a_killed_process_that_nobody_reaped_is_taken_over_at_once(start):
    run = start()
    process = subprocess.Popen(["sleep", "60"])
    Run.objects.claim(run.pk, f"{sweep._HOST}:{process.pid}:other")
    assert sweep.take_over_lost_runs() == 0
    process.kill()
    # Wait for its death, and leave it a zombie: WNOWAIT looks without reaping.
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    os.kill(process.pid, 0)
    assert sweep.take_over_lost_runs() == 1
    process.wait()


def test_run_that_waited_beyond_its_deadline_fails(start):
    run = start()
    Run.objects.update(created_at=timezone.now() - timedelta(seconds=601))
    sweep.take_over_lost_runs()
    run.refresh_from_db()
    assert (run.status, run.error_code) == ("failed", "deadline_exceeded")


def test_clean_up_removes_what_nobody_needs(start, photo, work, settings):
    start()
    work()
    old = timezone.now() - timedelta(days=40)
    IdempotencyKey.objects.update(created_at=old)
    guest = User.objects.guest("old")
    User.objects.filter(pk=guest.pk).update(last_login=old)
    kept = {path for path in settings.MEDIA_ROOT.rglob("*") if path.is_file()}
    orphan = settings.MEDIA_ROOT / "results" / "ab" / "x.jpg"
    orphan.parent.mkdir(parents=True, exist_ok=True)
    orphan.write_bytes(b"x")
    for path in [*kept, orphan]:
        os.utime(path, (0, 0))
    sessions = [SessionStore(), SessionStore()]
    for session, days in zip(sessions, (-90, 1), strict=True):
        session["_auth_user_id"] = "1"
        session.set_expiry(timezone.now() + timedelta(days=days))
        session.save()
    begun = Path(settings.CACHES["previews"]["LOCATION"]) / "tmpabc"
    begun.parent.mkdir()
    begun.write_bytes(b"x")
    os.utime(begun, (0, 0))
    cleaned_up = sweep.clean_up()
    assert list(Session.objects.values_list("pk", flat=True)) == [sessions[1].session_key]
    assert cleaned_up.pop("counted_periods") == CountedRuns.objects.count() > 0
    assert cleaned_up == {
        "expired_keys": 1, "expired_sessions": 1, "expired_guests": 1, "binned_runs": 0, "expired_exports": 0,
        "orphaned_files": 1, "unfinished_uploads": 1,
    }  # fmt: skip
    assert {path for path in settings.MEDIA_ROOT.rglob("*") if path.is_file()} == kept


def test_many_expired_sessions_are_deleted_and_no_other(db, monkeypatch):
    monkeypatch.setattr(sweep, "SESSIONS_AT_ONCE", 100)
    now = timezone.now()
    days = {f"old{number}": -1 - number % 90 for number in range(250)} | {"new": 1}
    Session.objects.bulk_create(
        Session(session_key=key, session_data="x", expire_date=now + timedelta(days=late)) for key, late in days.items()
    )
    assert sweep.clean_up()["expired_sessions"] == 250
    assert [session.pk for session in Session.objects.all()] == ["new"]


def test_guest_that_signs_in_brings_everything(alice, preset, upload, photo, work):
    guest = User.objects.guest("key")
    run = services.start_run(user=guest, photo=upload, preset=preset)
    other = services.start_run(user=guest, photo=photos.Upload(small("coffee")), preset=preset)
    work()
    services.adopt_guest(guest=guest, user=alice)
    assert set(Run.objects.for_user(alice)) == {run, other}
    run.refresh_from_db()
    assert run.photo == photo
    assert Notification.objects.for_user(alice).count() == 2
    assert not User.objects.filter(pk=guest.pk).exists()


@pytest.mark.django_db(transaction=True)
def test_twenty_submits_with_one_left_accept_one(alice, photo, preset, settings):
    settings.DAILY_RUN_LIMIT = 1
    answers = in_parallel(20, lambda n: services.start_run(user=alice, photo=photo, preset=preset, key=str(n)))
    assert sorted(type(answer).__name__ for answer in answers) == ["QuotaExceeded"] * 19 + ["Run"]


@pytest.mark.django_db(transaction=True)
def test_fifty_submits_with_one_key_are_one_run(alice, upload, preset):
    answers = in_parallel(50, lambda n: services.start_run(user=alice, photo=upload, preset=preset, key="k"))
    assert {getattr(answer, "pk", answer) for answer in answers} == {Run.objects.get().pk}
    assert Photo.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_fifty_writers_at_once_never_find_the_database_locked(catalogue, preset, upload):
    users = [User.objects.create_user(f"user{n}@example.com") for n in range(50)]
    answers = in_parallel(
        50, lambda n: services.start_run(user=users[n], photo=upload, preset=preset, key=uuid.uuid4().hex)
    )
    assert [answer for answer in answers if not isinstance(answer, Run)] == []


def test_worker_with_a_wrong_clock_has_all_of_a_runs_time(start):
    run = start()
    with time_machine.travel(timezone.now() + timedelta(hours=1)):
        assert 590 < Run.objects.claim(run.pk, "elsewhere:1:ahead").seconds_left <= 600
    Run.objects.update(status="queued", leased_until=None)
    with time_machine.travel(timezone.now() - timedelta(hours=1)):
        assert 590 < Run.objects.claim(run.pk, "elsewhere:2:behind").seconds_left <= 600


def test_storage_of_which_most_is_unknown_is_left_alone(settings, monkeypatch, start, work):
    monkeypatch.setattr(sweep, "ORPHAN_SECONDS", -60)
    start()
    work()
    folder = settings.MEDIA_ROOT / "results" / "ab"
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(30):
        (folder / f"{number}.jpg").write_bytes(b"somebody else's")
    assert sweep.clean_up()["orphaned_files"] == 0
    for number in range(25):
        (folder / f"{number}.jpg").unlink()
    assert sweep.clean_up()["orphaned_files"] == 5
    assert Run.objects.get().result.storage.exists(Run.objects.get().result.name)
