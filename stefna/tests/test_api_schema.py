"""The API against its own description: whatever is sent, the answer is one that is described."""

import random
import uuid

import pytest
import schemathesis
from django.core.signals import request_finished, request_started
from django.core.wsgi import get_wsgi_application
from django.db import close_old_connections
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from generation import services
from generation.models import Photo, Preset, Run

pytestmark = pytest.mark.django_db
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


schema = schemathesis.openapi.from_wsgi("/api/schema/?format=json", get_wsgi_application())


@pytest.fixture
def alices(app, settings, alice, bob, photo, upload, work):
    """Alice, signed in, with a photo, a run that has ended and one that waits; and Bob, who has some of his own."""
    settings.DAILY_RUN_LIMIT = settings.MAX_ACTIVE_RUNS = 0
    preset = Preset.objects.get(slug="duotone")
    services.start_run(user=alice, photo=photo, preset=preset)
    work()
    services.start_run(user=alice, photo=photo, preset=preset)
    services.start_run(user=bob, photo=upload, preset=preset)
    app.sign("login", "alice@example.com", "a-password-of-alice")
    # As Django's own test client does: a test is one transaction, and its connection outlives a request.
    for signal in (request_started, request_finished):
        signal.disconnect(close_old_connections)
    yield {"Authorization": f"Bearer {app.token}", "X-App-Key": "dev"}
    for signal in (request_started, request_finished):
        signal.connect(close_old_connections)


@schema.include(path_regex="^/api/v1/").parametrize()
@settings(
    max_examples=12, deadline=None, phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck)
)
def test_every_operation_answers_as_described(case, alices, bob):
    # What is sent is made up, but half of the ids are of something that is there.
    if case.path_parameters and "id" in case.path_parameters and random.random() < 0.5:
        kind = Photo if "/photos/" in case.operation.path else Run
        case.path_parameters["id"] = str(kind.objects.values_list("pk", flat=True).order_by("?").first())
    headers = alices | {"Idempotency-Key": uuid.uuid4().hex}
    case.call_and_validate(headers=headers, checks=CHECKS)
    # Whatever Alice sent, Bob's are as they were.
    assert [(run.status, run.favourite) for run in Run.objects.for_user(bob)] == [("queued", False)]
    assert Photo.objects.for_user(bob).count() == 1


@schema.include(path_regex="^/_allauth/").parametrize()
@settings(
    max_examples=12, deadline=None, phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck)
)
def test_no_operation_of_signing_in_is_an_error_of_ours(case, alices):
    """Of allauth's description only that: it says less than is answered."""
    headers = alices if random.random() < 0.7 else {"X-App-Key": "dev"}
    case.call_and_validate(headers=headers, checks=[not_a_server_error])
