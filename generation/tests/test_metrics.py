"""Numbers of runs: counted from rows, kept, added up again."""

import math
import random
import uuid
from datetime import UTC, datetime, timedelta

import pytest

from generation import metrics
from generation.exceptions import ProviderError, StorageUnavailable
from generation.histogram import MAX_ERROR, histogram, percentile
from generation.metrics import SUCCEEDED
from generation.models import CountedRuns, Run
from generation.waiting import Waiting, just_ended, waiting

pytestmark = pytest.mark.rows_by_hand

NOW = datetime(2026, 11, 25, 14, 20, tzinfo=UTC)
Step = CountedRuns.Step
HOUR = timedelta(hours=1)


@pytest.fixture
def clock(monkeypatch):
    """What the database says the time is, to whoever keeps counts."""

    def at(moment):
        monkeypatch.setattr(metrics, "database_now", lambda: moment)
        return moment

    at(NOW)
    return at


@pytest.fixture
def ended(alice, photo):
    """Write a run that ended so long ago."""

    def write(ago, status="succeeded", code="", slug="duotone", user=None, **times):
        at = NOW - ago
        return Run.objects.create(
            id=uuid.uuid4(), user=user or alice, photo=photo, preset_slug=slug, preset_name=slug, preset_tag="",
            strength=0.5, seed=1, provider="embedded", fingerprint="f", status=status, phase="done", error_code=code,
            result="x.jpg" if status == "succeeded" else "", created_at=at, finished_at=at, **times,
        )  # fmt: skip

    return write


def outcomes(span):
    return {start: dict(numbers.outcomes) for start, numbers in span.steps.items() if numbers.outcomes}


def told(span):
    """Everything that a span can be asked for."""
    return span.steps, span.presets, span.busiest_users(10)


def hour(ago):
    return NOW.replace(minute=0) - HOUR * ago


@pytest.mark.parametrize("seed", range(5))
def test_percentile_is_less_than_five_percent_off(seed):
    draw = random.Random(seed)
    times = sorted(round(draw.lognormvariate(7, 2)) + 1 for _ in range(1000))
    counts = histogram(times[:400]) + histogram(times[400:])
    for share in (0.01, 0.5, 0.95, 0.99, 1):
        true = times[math.ceil(share * 1000) - 1]
        assert abs(percentile(counts, share) - true) <= true * MAX_ERROR * 1.0001
    assert MAX_ERROR < 0.05


def test_percentile_of_nothing_is_unknown():
    assert percentile({}, 0.5) is None


def test_database_and_python_name_the_same_buckets(ended):
    times = [0, 1, 2, 3, 7, 10, 99, 100, 101, 1234, 59_999, 600_000]
    for milliseconds in times:
        ended(timedelta(minutes=1), total_ms=milliseconds)
    counted = metrics.from_rows(hour(0), hour(-1))[hour(0)]
    assert counted.presets["duotone"].times["total"] == histogram(times)
    assert counted.users[str(Run.objects.first().user_id)].times["total"] == histogram(times)


def test_every_failure_of_the_service_has_a_class():
    def kinds(error):
        return [error, *(inner for sub in error.__subclasses__() for inner in kinds(sub))]

    codes = {error.code for error in [*kinds(ProviderError), StorageUnavailable]}
    assert codes - {code for named in metrics.CLASSES.values() for code in named} == set()
    assert metrics.class_of("something_new") == "other"


def test_run_counts_where_it_ended_with_what_became_of_it(ended, alice, bob):
    ended(timedelta(minutes=5), total_ms=1000, model_ms=500)
    ended(timedelta(minutes=5), total_ms=0, cached=True)
    ended(timedelta(minutes=5), "failed", "upstream_timeout", total_ms=60_000)
    ended(timedelta(minutes=5), "failed", "internal_error", slug="", user=bob)
    ended(timedelta(minutes=30), "cancelled", "upstream_rate_limited")
    span = metrics.last(24, Step.HOUR, NOW)
    assert outcomes(span) == {
        hour(0): {SUCCEEDED: 1, "reused": 1, "upstream_timeout": 1, "internal_error": 1},
        hour(1): {"cancelled": 1},
    }
    numbers = span.all
    assert (numbers.ended, numbers.failed, numbers.success_rate) == (5, 2, 1 / 3)
    assert dict(numbers.classes) == dict.fromkeys(metrics.CLASSES, 0) | {"timeout": 1, "other": 1}
    assert {key: one.ended for key, one in span.presets.items()} == {"duotone": 4, "": 1}
    assert {key: one.ended for key, one in span.busiest_users(9)[0].items()} == {str(alice.pk): 4, str(bob.pk): 1}
    # Only what was made took its time.
    assert (numbers.times["total"], numbers.times["model"]) == (histogram([1000]), histogram([500]))
    assert numbers.percentile("store", 0.5) is None


def test_run_that_has_not_ended_counts_nowhere(start):
    start()
    assert metrics.last(30, Step.DAY).all.ended == 0


def test_deleted_run_still_counts(ended):
    run = ended(timedelta(minutes=5))
    Run.objects.filter(pk=run.pk).update(deleted_at=NOW, result="", thumbnail="")
    assert metrics.last(24, Step.HOUR, NOW).all.outcomes == {SUCCEEDED: 1}


@pytest.mark.parametrize(("number", "step"), [(24, Step.HOUR), (7, Step.DAY), (30, Step.DAY)])
def test_kept_counts_say_the_same_as_the_rows(ended, bob, clock, number, step):
    for days in (0, 0.2, 1, 2.5, 6, 20, 29):
        ended(timedelta(days=days), total_ms=round(1000 * (days + 1)), store_ms=7)
        ended(timedelta(days=days), "failed", "upstream_auth", slug="noir_classic", user=bob)
    from_rows = told(metrics.last(number, step, NOW))
    assert metrics.roll_up() == CountedRuns.objects.count() == 48 + 31
    assert told(metrics.last(number, step, NOW)) == from_rows
    Run.objects.filter(finished_at__lt=hour(0)).delete()
    assert told(metrics.last(number, step, NOW)) == from_rows


def test_keeping_twice_counts_once(ended, clock):
    ended(timedelta(hours=30), total_ms=5)
    metrics.roll_up()
    kept = list(CountedRuns.objects.order_by("pk").values("step", "start", "numbers"))
    metrics.roll_up()
    assert list(CountedRuns.objects.order_by("pk").values("step", "start", "numbers")) == kept
    clock(NOW + timedelta(days=2))
    metrics.roll_up()
    assert metrics.roll_up() == 3  # the hours that are not settled, and no day


def test_hour_that_is_not_over_is_not_kept(ended, clock):
    ended(timedelta(minutes=1))
    metrics.roll_up()
    assert not CountedRuns.objects.filter(start__gte=hour(0)).exists()
    assert not CountedRuns.objects.filter(step=Step.DAY, start__gte=NOW.replace(hour=0, minute=0)).exists()


def test_without_runs_there_is_nothing_to_keep(db, clock):
    assert metrics.roll_up() == 0


def test_run_that_a_slow_clock_ended_in_an_hour_that_was_kept_is_counted(ended, clock):
    ended(timedelta(hours=1))
    metrics.roll_up()
    ended(timedelta(hours=1))
    metrics.roll_up()
    assert outcomes(metrics.last(24, Step.HOUR, NOW)) == {hour(1): {SUCCEEDED: 2}}


def test_day_is_kept_anew_until_its_last_hour_is_settled(ended, clock):
    ended(timedelta(hours=15))  # 23:20 of the day before
    clock(NOW.replace(hour=0, minute=30))
    metrics.roll_up()
    ended(timedelta(hours=15))
    clock(NOW.replace(hour=1, minute=30))
    metrics.roll_up()
    assert outcomes(metrics.last(7, Step.DAY, NOW)) == {NOW.replace(day=24, hour=0, minute=0): {SUCCEEDED: 2}}


def test_counts_that_nobody_asks_for_any_more_are_deleted(ended, clock):
    ended(timedelta(hours=2))
    metrics.roll_up()
    clock(NOW + timedelta(days=40))
    metrics.roll_up()
    assert CountedRuns.objects.count() == 0


def test_hours_are_kept_for_two_days_and_days_for_a_month(ended, clock):
    ended(timedelta(hours=30))
    metrics.roll_up()
    clock(NOW + timedelta(days=10))
    ended(-timedelta(days=10))
    metrics.roll_up()
    kept = CountedRuns.objects.values_list("step", flat=True)
    assert [list(kept).count(step) for step in Step] == [48, 31]
    assert metrics.last(30, Step.DAY, NOW + timedelta(days=10)).all.ended == 2


def test_day_with_some_hours_kept_needs_only_the_others(ended, clock):
    for hours in (1, 3, 16, 20):
        ended(timedelta(hours=hours))
    clock(NOW - timedelta(hours=2))
    metrics.roll_up()
    CountedRuns.objects.filter(step=Step.DAY).delete()
    assert metrics.last(7, Step.DAY, NOW).all.ended == 4


def test_page_reads_kept_counts_in_few_queries(ended, clock, django_assert_num_queries):
    ended(timedelta(days=20))
    ended(timedelta(minutes=1))
    metrics.roll_up()
    # Days, hours of today, and eight of the hour that is not over.
    with django_assert_num_queries(10):
        metrics.last(30, Step.DAY, NOW)


def test_what_waits_is_counted_and_the_oldest_timed(start, work, monkeypatch):
    assert waiting() == Waiting(0, 0, 0.0)
    for _ in range(2):
        start(fresh=True)
    Run.objects.update(created_at=NOW)
    monkeypatch.setattr("generation.waiting.database_now", lambda: NOW + timedelta(seconds=90))
    assert waiting() == Waiting(2, 0, 90.0)


def test_run_that_waits_on_purpose_is_late_only_after_that(start):
    run = start()
    soon = NOW + timedelta(days=3650)
    Run.objects.filter(pk=run.pk).update(run_after=soon)
    assert waiting() == Waiting(1, 0, 0.0)


def test_what_has_just_ended_is_counted_by_class(ended, monkeypatch):
    monkeypatch.setattr("generation.waiting.database_now", lambda: NOW)
    ended(timedelta(minutes=1))
    ended(timedelta(minutes=1), cached=True)
    ended(timedelta(minutes=1), "failed", "upstream_auth")
    ended(timedelta(minutes=1), "failed", "upstream_credits")
    ended(timedelta(minutes=20), "failed", "upstream_timeout")
    assert just_ended(timedelta(minutes=15)) == {"succeeded": 1, "reused": 1, "auth": 2}
