"""The metrics page: who may see it, what it says, and its tables as files."""

import csv
import io
import re
import uuid
from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from accounts.models import User
from generation import charts, figures, metrics
from generation.models import CountedRuns, Run
from generation.providers.endpoints import Outcome, call, configured

pytestmark = [pytest.mark.django_db, pytest.mark.rows_by_hand]
PAGE = reverse("metrics_page")


def csv_of(client, table, span="24h"):
    answer = client.get(reverse("metrics_csv", args=[table]), {"span": span})
    assert answer.status_code == 200
    return list(csv.DictReader(io.StringIO(answer.content.decode())))


@pytest.fixture
def ended(alice, photo, catalogue):
    def write(status="succeeded", code="", slug="duotone", user=None, ago=timedelta(minutes=1), **facts):
        at = timezone.now() - ago
        return Run.objects.create(
            id=uuid.uuid4(), user=user or alice, photo=photo, preset_slug=slug, preset_name=slug, preset_tag="",
            strength=0.5, seed=1, provider="embedded", fingerprint="f", status=status, phase="done", error_code=code,
            result="x.jpg" if status == "succeeded" else "", created_at=at, finished_at=at, **facts,
        )  # fmt: skip

    return write


@pytest.mark.parametrize("address", [PAGE, reverse("metrics_csv", args=["runs"])])
def test_page_is_for_staff_who_may_see_runs(client, alice, staff, address):
    assert reverse("account_login") in client.get(address, follow=True).redirect_chain[-1][0]
    client.force_login(alice)
    assert client.get(address, follow=True).status_code == 403
    assert staff("view_preset").get(address).status_code == 403
    assert staff("view_run").get(address).status_code == 200
    assert staff("view_run").post(address).status_code == 405


def test_page_without_runs_says_so_in_words(owner):
    page = owner.get(PAGE).content.decode()
    assert "No run has ended in the last 24 hours." in page
    assert 'viewBox="0 0 1000' not in page


def test_page_says_how_it_is_going(owner, ended):
    for _ in range(3):
        ended(total_ms=2000, model_ms=1500)
    ended("failed", "upstream_timeout")
    ended("failed", "content_filtered", slug="")
    ended(cached=True, total_ms=0)
    page = owner.get(PAGE)
    assert page.context["tiles"][:2] == [
        ("Success rate", "60.0 %", "2 of 5 failed"),
        ("Runs ended", "6", "1 of them reused a result"),
    ]
    text = page.content.decode()
    assert text.count('<svg viewBox="0 0 1000 200"') == 5  # no queue, upload or store time is known
    for words in ("Duotone", "Own words", "alice@example.com", "upstream_timeout", "content_filtered", "No run"):
        assert (words in text) == (words != "No run"), words


@pytest.mark.parametrize("span", ["24h", "7d", "30d"])
def test_page_shows_nothing_that_the_policy_forbids(owner, ended, span):
    ended(total_ms=10)
    text = owner.get(PAGE, {"span": span}).content.decode()
    assert not re.findall(r"<style|\sstyle=|<script(?![^>]*src=)|\son\w+=", text)


def test_span_that_is_none_is_not_found(owner):
    assert owner.get(PAGE, {"span": "1y"}).status_code == 404
    assert owner.get(reverse("metrics_csv", args=["nothing"])).status_code == 404


def test_span_decides_what_is_counted(owner, ended):
    for days in (0, 5, 25):
        ended(ago=timedelta(days=days, minutes=1))
    counted = {span: owner.get(PAGE, {"span": span}).context["numbers"].ended for span in ("24h", "7d", "30d")}
    assert counted == {"24h": 1, "7d": 2, "30d": 3}


def test_page_needs_as_many_queries_for_many_as_for_one(owner, ended, bob):
    from conftest import asked_for

    ended()
    one = asked_for(owner, PAGE)
    for number in range(10):
        ended(
            "failed", f"code_{number}", slug=f"slug_{number}", user=User.objects.create_user(f"u{number}@example.com")
        )
    assert asked_for(owner, PAGE) == one


def test_files_hold_every_table_with_plain_figures(owner, ended):
    ended(total_ms=2000, model_ms=1500)
    ended("failed", "upstream_auth")
    (preset,) = csv_of(owner, "presets")
    assert (preset["Preset"], preset["Runs"], preset["Success rate"], preset["Auth"]) == ("Duotone", "2", "0.5", "1")
    assert float(preset["Total p50"]) == pytest.approx(2000, rel=0.05)
    assert csv_of(owner, "codes") == [
        {"Error code": "upstream_auth", "Class": "Auth", "Runs": "1", "Of all failures": "1.0"}
    ]
    assert [len(csv_of(owner, key, "7d")) for key in ("runs", "failures", "times", "users")] == [7, 7, 7, 1]
    assert csv_of(owner, "runs", "30d")[0]["Runs"] == "2"


def test_file_starts_no_formula(owner, ended, catalogue):
    catalogue.filter(slug="duotone").update(name="=HYPERLINK(1)")
    ended(user=User.objects.create_user("+1@example.com"))
    assert csv_of(owner, "presets")[0]["Preset"] == "'=HYPERLINK(1)"
    assert csv_of(owner, "users")[0]["User"] == "'+1@example.com"


def test_users_are_named_by_what_is_known_of_them(owner, ended, alice):
    guest = User.objects.guest("key-of-a-guest")
    ended(user=guest)
    ended()
    ended()
    gone = Run.objects.filter(user=guest)
    assert [row["User"] for row in csv_of(owner, "users")] == ["alice@example.com", f"guest {guest.pk}"]
    span = metrics.last(24, CountedRuns.Step.HOUR)
    gone.delete()
    guest_pk = guest.pk
    guest.delete()
    table = figures.tables(span, CountedRuns.Step.HOUR)["users"]
    assert [row[0] for row in table.rows] == ["alice@example.com", f"deleted account {guest_pk}"]


def test_page_shows_the_circuits(owner, settings):
    assert "the built-in engine makes the pictures" in owner.get(PAGE).content.decode()
    settings.AIML_ENDPOINTS = [("https://one.example", "secret-1", 1.0)]
    with call(configured()) as made:
        made.outcome = Outcome.REFUSED
    page = owner.get(PAGE).content.decode()
    assert "one.example" in page
    assert "Open for 30 s more" in page
    assert "secret" not in page


def test_times_and_shares_read_well():
    assert [figures.milliseconds(value) for value in (3.4, 999, 1000, 61_000, 600_000)] == [
        "3 ms", "999 ms", "1.0 s", "61.0 s", "10.0 min",
    ]  # fmt: skip
    assert [figures.share(value) for value in (0, 0.5, 0.9999, 1)] == ["0.0 %", "50.0 %", "99.9 %", "100 %"]


def test_bars_stand_on_each_other_up_to_the_highest():
    chart = charts.bars("Runs", ["1", "2"], {"good": [3, 0], "bad": [1, 0]})
    assert [(bar.name, bar.y, bar.height) for bar in chart.bars] == [("good", 50.0, 150.0), ("bad", 0.0, 50.0)]
    assert chart.heights == ["4", "2", "0"]
    assert [slot.sentence for slot in chart.slots] == ["1: good 3, bad 1", "2: nothing"]


def test_lines_break_where_nothing_happened():
    chart = charts.lines("Time", ["1", "2", "3", "4"], {"p50": [1, 2, None, 1]}, str)
    assert [line.path for line in chart.lines] == ["M0.0 100.0H250.0V0.0H500.0M750.0 100.0H1000.0"]
