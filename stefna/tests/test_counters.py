"""Counting for Prometheus: several processes, dead ones, full disks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import structlog
from prometheus_client.parser import text_string_to_metric_families

from stefna import counters

ROOT = Path(__file__).parents[2]
log = structlog.get_logger("generation")


@pytest.fixture
def folder(monkeypatch, tmp_path):
    """Files of this test alone; those of this process go on where they are."""
    made = tmp_path / "counters"
    made.mkdir()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(made))
    return made


def counted(name, **labels):
    families = text_string_to_metric_families(counters.scrape().decode())
    return sum(
        one.value
        for family in families
        for one in family.samples
        if one.name == name and labels.items() <= one.labels.items()
    )


COUNT = """
import os, sys
from stefna import counters
for _ in range(int(sys.argv[1])):
    counters.count_event(None, "info", {"event": "born", "level": "info", "duration_ms": 300})
print(counters._who(), flush=True)
sys.stdin.read()
os._exit(1)
"""


def counting(folder, times):
    """Start a process that counts, and lives until it is told to die without a word."""
    process = subprocess.Popen(
        [sys.executable, "-c", COUNT, str(times)],
        cwd=ROOT, env=os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(folder)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    process.stdout.readline()
    return process


def end(process):
    process.communicate()


def test_processes_add_up_and_dead_ones_stay_counted(folder):
    first, second = counting(folder, 2), counting(folder, 3)
    assert counted("stefna_events_total", event="born", level="info") == 5
    end(first)
    assert counted("stefna_events_total", event="born") == 5
    third = counting(folder, 4)
    end(second)
    end(third)
    for _ in range(2):
        assert counted("stefna_events_total", event="born") == 9
        assert counted("stefna_event_seconds_bucket", event="born", le="0.5") == 9
        assert counted("stefna_event_seconds_sum", event="born") == pytest.approx(2.7)
    # What three processes left behind is one file of each kind.
    assert sorted(path.name for path in folder.iterdir()) == [
        "counter_all-before.db",
        "histogram_all-before.db",
        "lock",
    ]


def test_process_of_another_host_is_not_taken_for_dead(folder):
    process = counting(folder, 1)
    end(process)
    for path in folder.glob("*.db"):
        path.rename(folder / f"{path.stem.partition('_')[0]}_elsewhere-1.db")
    assert counted("stefna_events_total", event="born") == 1
    assert (folder / "counter_elsewhere-1.db").exists()
    for path in folder.glob("*.db"):
        os.utime(path, (0, 0))
    assert counted("stefna_events_total", event="born") == 1
    assert not (folder / "counter_elsewhere-1.db").exists()


def test_file_that_was_never_filled_harms_nobody(folder):
    (folder / f"counter_{counters._HOST}-999999999.db").write_bytes(b"")
    (folder / f"histogram_{counters._HOST}-999999998.db").write_bytes(bytes(9))
    counters.fold()
    assert counters.scrape() == b""


def test_folder_that_cannot_be_written_stops_nothing(monkeypatch):
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "/dev/null")
    monkeypatch.setattr(counters._Room, "of", "")
    log.info("nobody_counts_this")
    counters.fold()
    assert counters._Room.of == ""
    assert counters._Room.again > 0
    monkeypatch.setattr(counters._Room, "again", 0.0)


def test_files_have_all_their_room_from_the_start(folder):
    process = counting(folder, 1)
    sizes = {path.stat().st_blocks * 512 >= counters.ROOM for path in folder.glob("*.db")}
    end(process)
    assert sizes == {True}


def test_every_event_is_counted_with_level_and_code():
    def now(**labels):
        return counted("stefna_events_total", **labels)

    before = [now(event="circuit_opened", level="error"), now(event="generation_failed", code="upstream_auth")]
    log.error("circuit_opened", endpoint="one")
    log.warning("generation_failed", code="upstream_auth")
    after = [now(event="circuit_opened", level="error"), now(event="generation_failed", code="upstream_auth")]
    assert after == [count + 1 for count in before]


def test_words_that_anybody_could_choose_are_one_name():
    before = counted("stefna_events_total", event="other", code="")
    log.info("Could not reach alice@example.com", code="a reason with spaces")
    assert counted("stefna_events_total", event="other", code="") == before + 1


def test_calls_are_timed_by_endpoint_and_status():
    def now(status):
        return counted("stefna_upstream_call_seconds_count", endpoint="one.example#1", status=status)

    before = [now("401"), now("none")]
    log.info("upstream_call", endpoint="one.example#1", http_status=401, duration_ms=120)
    log.info("upstream_call", endpoint="one.example#1", duration_ms=60_000, code="ReadTimeoutError")
    assert [now("401"), now("none")] == [count + 1 for count in before]


def test_requests_are_counted_by_route_and_not_by_address(client, db):
    def now(**labels):
        return counted("stefna_http_requests_total", **labels)

    wanted = [
        {"method": "GET", "route": "runs/<uuid:pk>/", "status": "302"},
        {"method": "GET", "route": "none", "status": "404"},
        {"method": "GET", "route": "healthz/live", "status": "200"},
        {"method": "other", "route": "/", "status": "405"},
    ]
    before = [now(**labels) for labels in wanted]
    client.get("/runs/00000000-0000-0000-0000-000000000000/")
    client.get("/no/such/address")
    client.get("/healthz/live")
    client.generic("BREW", "/")
    assert [now(**labels) for labels in wanted] == [count + 1 for count in before]
