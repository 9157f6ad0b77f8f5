"""The alarms and the dashboard name only what is there, and each alarm has something to do about it."""

import json
import re
from pathlib import Path

import pytest
import structlog
import yaml
from prometheus_client.parser import text_string_to_metric_families

from stefna.gauges import OUTCOMES
from stefna.readiness import CHECKS

DOCS = Path(__file__).parents[2] / "docs"
ALERTS = yaml.safe_load((DOCS / "prometheus-alerts.yml").read_text())["groups"][0]["rules"]
DASHBOARD = json.loads((DOCS / "grafana.json").read_text())
EXPRESSIONS = [rule["expr"] for rule in ALERTS] + [
    target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]
]
CODE = "".join(
    path.read_text() for app in ("accounts", "generation", "notifications", "stefna")
    for path in (DOCS.parent / app).rglob("*.py") if "tests" not in path.parts
)  # fmt: skip


@pytest.fixture
def scraped(client, db, settings):
    """The labels of every metric that a scrape of a host has on which something has happened."""
    settings.METRICS_TOKEN = "token"
    settings.AIML_ENDPOINTS = [("https://one.example", "secret-1", 1.0)]
    log = structlog.get_logger("generation")
    log.info("upstream_call", endpoint="one", http_status=200, duration_ms=1)
    log.info("generation_succeeded", duration_ms=1)
    client.get("/healthz/live")
    answer = client.get("/metrics", headers={"authorization": "Bearer token"})
    found = {}
    for family in text_string_to_metric_families(answer.content.decode()):
        for one in family.samples:
            found.setdefault(one.name, set()).update(one.labels)
    return found


def metrics_of(expression):
    """Yield each metric that an expression names, with the labels that it selects by."""
    for name, selector in re.findall(r"\b(stefna_\w+)(?:\{([^}]*)\})?", expression):
        yield name, set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector))


def test_every_metric_that_is_asked_for_is_scraped(scraped):
    asked = [pair for expression in EXPRESSIONS for pair in metrics_of(expression)]
    assert len({name for name, _ in asked}) > 15
    assert [(name, labels) for name, labels in asked if name not in scraped or not labels <= scraped[name]] == []


def test_every_metric_that_is_told_of_is_scraped(scraped):
    table = (DOCS / "operations.md").read_text().partition("| metric | is |")[2].partition("\n\n")[0]
    named = re.findall(r"`(stefna_\w+?)(?:\{([\w,]+)\})?`", table)
    kinds = {re.sub(r"_(bucket|sum|count)$", "", name): labels - {"le"} for name, labels in scraped.items()}
    assert {name: set(filter(None, labels.split(","))) for name, labels in named} == kinds


def test_events_outcomes_and_checks_of_expressions_exist():
    chosen = re.findall(r'(event|outcome)(?:=~|!~|!=|=)\\?"([\w|]+)', "\n".join(EXPRESSIONS))
    words = {(label, word) for label, several in chosen for word in several.split("|")}
    assert {word for label, word in words if label == "outcome"} <= set(OUTCOMES)
    assert [word for label, word in words if label == "event" and f'"{word}"' not in CODE] == []
    assert set(CHECKS) <= set(re.findall(r"`(\w+)`", (DOCS / "operations.md").read_text()))


def test_every_alarm_says_what_is_wrong_and_has_something_to_do():
    text = (DOCS / "operations.md").read_text()
    told = re.findall(r"^\| `(Stefna\w+)` \|", text.partition("### What to do about an alarm")[2], re.MULTILINE)
    assert told == [rule["alert"] for rule in ALERTS]
    for rule in ALERTS:
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["summary"]


def test_dashboard_can_be_imported():
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    assert {panel["datasource"]["uid"] for panel in DASHBOARD["panels"]} == {"${datasource}"}
    assert "id" not in DASHBOARD  # Grafana gives it one
    for panel in DASHBOARD["panels"]:
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
        assert panel["title"]


@pytest.mark.parametrize("code", re.findall(r'shell -c \\\n +"(.+)"', (DOCS / "operations.md").read_text()))
def test_code_that_an_owner_is_given_runs(settings, code):
    settings.AIML_API_KEY = "a-key"
    exec(code, {})
