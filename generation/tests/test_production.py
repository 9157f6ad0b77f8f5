"""A photo through Cloudinary and AIML, while both do everything that upstreams do."""

import base64
import contextlib
import io
import itertools
import time
import zipfile
from datetime import timedelta

import pytest
from django.core.files.storage import default_storage
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse
from django.utils import timezone
from PIL import Image

from conftest import in_parallel, small
from generation import exports, photos, services, sweep, tasks
from generation.images import provenance
from generation.models import Run
from generation.providers import endpoints, http
from generation.providers.endpoints import configured
from generation.tests.images.files import CRASH
from notifications.models import Notification
from stefna.tests.waiting import wait_until

pytestmark = pytest.mark.django_db

LONG_AGO = timedelta(hours=2)


@pytest.fixture
def run_once(upstreams, start, work):
    """Script the service, make one run and work on it; return the run as its row has it."""

    def go(*steps, repeat_last=False, target="aiml", **changes):
        run = start(**changes)
        upstreams.script(target, *steps, repeat_last=repeat_last)
        work()
        run.refresh_from_db()
        return run

    return go


def calls(upstreams):
    return upstreams.counts()["aiml"]["calls"]


# -- The straight line ---------------------------------------------------------------------------------------


def test_photo_goes_through_cloudinary_and_aiml(upstreams, run_once, alice):
    run = run_once(strength=0.6, seed=77)
    assert (run.status, run.provider, run.error_code) == ("succeeded", "aiml", "")
    assert (run.model, run.steps, run.guidance) == ("flux/dev/image-to-image", 36, 7.5)
    assert run.endpoint
    assert run.upstream_request_id
    assert run.result_url == ""
    assert (run.width, run.height) == (run.photo.width, run.photo.height)
    assert run.possible_cost == 0
    assert run.model_ms is not None
    assert run.store_ms is not None

    (sent,) = upstreams.calls("aiml")
    assert set(sent["fields"]) == {
        "model", "prompt", "image_url", "strength", "seed", "num_images", "num_inference_steps", "guidance_scale",
    }  # fmt: skip
    assert sent["fields"]["strength"] == 0.6
    assert sent["fields"]["seed"] == 77
    assert sent["fields"]["prompt"].endswith("without blurry, hazy, soft, distorted.")
    assert sent["headers"]["x-client-request-id"] == f"{run.pk}.1"
    # No key of ours travels to where results are kept.
    (fetched,) = upstreams.calls("result")
    assert "authorization" not in fetched["headers"]

    data = photos.read(run.result)
    assert provenance.read(data) == "compositeWithTrainedAlgorithmicMedia"
    assert {entry["type"] for entry in upstreams.stored()} == {"authenticated"}
    assert Notification.objects.get().kind == "run_succeeded"


@pytest.mark.parametrize("shape", ["openapi", "fal", "both", "b64"])
@pytest.mark.parametrize("status", [200, 201])
def test_every_documented_answer_is_understood(upstreams, run_once, shape, status):
    run = run_once({"shape": shape} if status == 200 else {"shape": shape, "status": status})
    assert (run.status, calls(upstreams)) == ("succeeded", 1)


def test_page_sends_the_reader_to_a_signed_address(upstreams, run_once, client, alice):
    run = run_once()
    client.force_login(alice)
    answer = client.get(reverse("result", args=[run.pk, "picture"]))
    assert answer.status_code == 302
    assert "/authenticated/s--" in answer["Location"]


# -- Every row of the table in the design (calls, and what the run gets) -------------------------------------

OK = {}
AGAIN = {"repeat_last": True}


@pytest.mark.parametrize(
    ("steps", "options", "status", "code", "retryable", "count"),
    [
        ([{"status": 401}], {}, "failed", "upstream_auth", True, 1),
        ([{"status": 403}], {}, "failed", "upstream_credits", True, 1),
        ([{"status": 400}], {}, "failed", "upstream_rejected", False, 1),
        ([{"status": 404}], {}, "failed", "upstream_rejected", False, 1),
        ([{"status": 413}], {}, "failed", "upstream_rejected", False, 1),
        ([{"status": 422}], {}, "failed", "upstream_rejected", False, 1),
        ([{"status": 429}, {"status": 429}], {}, "succeeded", "", True, 3),
        ([{"status": 429}], AGAIN, "failed", "upstream_rate_limited", True, 4),
        *[([{"status": s}], AGAIN, "failed", "upstream_unavailable", True, 4) for s in (500, 502, 503, 504)],
        ([{"status": 502, "shape": "html"}], {}, "succeeded", "", True, 2),
        ([{"shape": "html"}], AGAIN, "failed", "upstream_malformed", True, 4),
        ([{"shape": "broken"}], AGAIN, "failed", "upstream_malformed", True, 4),
        ([{"json": {}}], AGAIN, "failed", "upstream_malformed", True, 4),
        ([{"json": []}], AGAIN, "failed", "upstream_malformed", True, 4),
        ([{"shape": "empty"}], AGAIN, "failed", "upstream_empty", True, 4),
        ([{"shape": "null"}], AGAIN, "failed", "upstream_empty", True, 4),
        ([{"shape": "null"}], {}, "succeeded", "", True, 2),
        ([{"shape": "nsfw"}], {}, "failed", "content_filtered", False, 1),
        ([{"shape": "black"}], {}, "failed", "content_filtered", False, 1),
        ([{"reset": True}], {}, "failed", "upstream_timeout", True, 1),
        ([{"close": True}], {}, "failed", "upstream_timeout", True, 1),
        ([{"short": True}], {}, "failed", "upstream_timeout", True, 1),
        ([{"result_url": "http://127.0.0.1:1/x.png"}], {}, "failed", "result_invalid", True, 1),
        ([{"result_url": "https://169.254.169.254/latest"}], {}, "failed", "result_invalid", True, 1),
        ([{"result_url": "https://evil.test\\.aimlapi.com/"}], {}, "failed", "result_invalid", True, 1),
        ([{"result_url": "file:///etc/passwd"}], {}, "failed", "result_invalid", True, 1),
        ([{"result_url": "https://cdn.aimlapi.com:8443/x.png"}], {}, "failed", "result_invalid", True, 1),
        ([{"result_url": "https://cdn.aimlapi.com.evil.example/x.png"}], {}, "failed", "result_invalid", True, 1),
        ([{"result_url": "https://user@cdn.aimlapi.com/x.png"}], {}, "failed", "result_invalid", True, 1),
        ([{"result_url": "not an address"}], {}, "failed", "result_invalid", True, 1),
    ],
)
def test_upstream_trouble_ends_as_the_table_says(upstreams, run_once, steps, options, status, code, retryable, count):
    run = run_once(*steps, **options)
    assert (run.status, run.error_code, calls(upstreams)) == (status, code, count)
    assert run.error_retryable is retryable
    assert run.possible_cost == (code == "upstream_timeout")
    assert Notification.objects.filter(subject=run.pk).count() == 1
    # What the safety filter hid was made, and is paid.
    assert run.counted is (status == "succeeded" or code == "content_filtered")


@pytest.mark.parametrize(
    ("steps", "code", "fetches"),
    [
        ([{"status": 404}], "result_unavailable", 4),
        ([{"status": 500}], "result_unavailable", 4),
        ([{"reset": True}], "result_unavailable", 4),
        ([{"result_bytes": "not-an-image"}], "result_invalid", 1),
        ([{"result_bytes": "huge"}], "result_invalid", 1),
        ([{"redirect": "http://127.0.0.1:1/x"}], "result_invalid", 1),
        ([{"redirect": "https://169.254.169.254/"}], "result_invalid", 1),
    ],
)
def test_result_that_cannot_be_had_is_not_made_again(upstreams, run_once, steps, code, fetches):
    run = run_once(*steps, repeat_last=True, target="result")
    assert (run.status, run.error_code) == ("failed", code)
    assert (calls(upstreams), upstreams.counts()["result"]["calls"]) == (1, fetches)


@pytest.mark.django_db(transaction=True)
def test_poison_result_fails_its_own_run_and_no_other(upstreams, start):
    poison = {"data": [{"b64_json": base64.b64encode(CRASH).decode()}]}
    runs = [start(seed=seed) for seed in range(1, 11)]
    upstreams.script("aiml", {}, {}, {}, {"json": poison})
    assert in_parallel(10, lambda number: tasks.process(runs[number].pk)) == [True] * 10
    ended = sorted(Run.objects.values_list("status", "error_code", "attempts", "crashes", "possible_cost"))
    assert ended == [("failed", "result_invalid", 1, 0, 0)] + [("succeeded", "", 1, 0, 0)] * 9
    assert calls(upstreams) == 10
    assert Notification.objects.count() == 10


def test_result_that_is_late_is_fetched_again(upstreams, run_once):
    run = run_once({"status": 503}, {"close": True}, target="result")
    assert (run.status, calls(upstreams), upstreams.counts()["result"]["calls"]) == ("succeeded", 1, 3)


def test_hanging_and_dripping_services_are_cut_off_by_the_clock(upstreams, run_once, settings):
    settings.AIML_READ_TIMEOUT_SECONDS, settings.AIML_CALL_SECONDS = 0.3, 1.0
    for step in ({"hang": True}, {"drip": 0.1}, {"drip_body": 0.1}):
        upstreams.reset()
        # A call that is not cut off ends well at last, byte by byte.
        run = run_once(step)
        assert (run.status, run.error_code, run.possible_cost) == ("failed", "upstream_timeout", 1), step
        assert calls(upstreams) == 1


def test_retries_wait_as_documented(upstreams, run_once, settings, caplog):
    settings.AIML_RETRY_BASE_MS, settings.AIML_RETRY_CAP_MS = 250, 1000
    run_once({"status": 503}, repeat_last=True)
    seen = upstreams.calls("aiml")
    gaps = [later["at"] - earlier["ended"] for earlier, later in itertools.pairwise(seen)]
    events = [record.msg for record in caplog.records if isinstance(record.msg, dict)]
    pauses = [event["duration_ms"] / 1000 for event in events if event["event"] == "upstream_retry"]
    for gap, pause, seconds in zip(gaps, pauses, (0.25, 0.5, 1.0), strict=True):
        assert seconds <= pause <= 1.1 * seconds
        assert seconds <= gap


@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after_frees_the_worker_and_is_kept(upstreams, run_once, work, as_date):
    before = timezone.now()
    when = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 7.9))
    run = run_once({"status": 429, "headers": {"Retry-After": when if as_date else "7"}})
    assert (run.status, run.error_code, calls(upstreams)) == ("queued", "upstream_rate_limited", 1)
    assert (run.run_after - before).total_seconds() >= 6.8
    assert (run.run_after - timezone.now()).total_seconds() <= 8
    assert work() == 0
    Run.objects.update(run_after=None)
    work()
    run.refresh_from_db()
    assert (run.status, calls(upstreams)) == ("succeeded", 2)


def test_retry_after_beyond_the_deadline_ends_the_run(upstreams, run_once):
    run = run_once({"status": 429, "headers": {"Retry-After": "3600"}})
    assert (run.status, run.error_code, calls(upstreams)) == ("failed", "upstream_rate_limited", 1)


# -- Cloudinary ----------------------------------------------------------------------------------------------


def test_upload_that_fails_is_said_and_leaves_nothing(upstreams, alice, settings):
    settings.UPLOAD_TIMEOUT_SECONDS = 0.5
    for step in (
        {"status": 500},
        {"hang": True},
        {"json": {}},
        {"json": []},
        {"json": {"error": "text"}},
        {"reset": True},
    ):
        upstreams.reset()
        upstreams.script("upload", step, repeat_last=True)
        with pytest.raises(photos.StorageUnavailable):
            photos.accept(alice, photos.Upload(small("coffee")))
        assert alice.photos.count() == 0
        assert upstreams.counts()["upload"]["calls"] == 1, step


def test_refused_key_is_critical_and_its_message_is_shown_nowhere(upstreams, alice, caplog):
    text = "Invalid Signature abc. String to sign - 'public_id=secret'."
    upstreams.script("upload", {"status": 401, "json": {"error": {"message": text}}})
    with pytest.raises(photos.StorageUnavailable) as raised:
        photos.accept(alice, photos.Upload(small("coffee")))
    assert upstreams.counts()["upload"]["calls"] == 1
    assert "String to sign" not in caplog.text + str(raised.value) + raised.value.detail
    assert "CRITICAL" in caplog.text


def test_result_waits_in_storing_while_cloudinary_is_down(upstreams, start, work):
    run = start()
    upstreams.down("upload", 503)
    work()
    run.refresh_from_db()
    assert (run.status, run.phase, run.error_code) == ("queued", "storing", "storage_unavailable")
    assert run.result_url
    upstreams.down("upload", None)
    Run.objects.update(run_after=None)
    work()
    run.refresh_from_db()
    assert (run.status, run.attempts, calls(upstreams)) == ("succeeded", 2, 1)
    assert run.result_url == ""


def test_deleting_reaches_the_stored_bytes(upstreams, run_once, django_capture_on_commit_callbacks):
    run = run_once()
    assert len(upstreams.stored()) == 4
    with django_capture_on_commit_callbacks(execute=True):
        services.delete_run(run)
    assert len(upstreams.stored()) == 2
    run.photo.user.delete()
    later = sweep.timezone.now() + LONG_AGO
    assert len(list(photos.stored_before("photos", later))) == 2


def test_picture_is_had_by_its_signed_address_only(upstreams, photo):
    assert Image.open(io.BytesIO(photos.read(photo.file))).size == (photo.width, photo.height)
    unsigned = default_storage.url(photo.file.name).replace("/s--", "/s--X")
    assert http.get(unsigned, limits=http.Limits(1, 1, 2)).status in (401, 404)


def test_export_on_cloudinary_is_had_by_an_address_that_expires(upstreams, client, alice, start, work, monkeypatch):
    client.force_login(alice)
    run = start()
    work()
    run.refresh_from_db()
    # In several parts.
    monkeypatch.setattr("cloudinary.uploader.UPLOAD_LARGE_CHUNK_SIZE", 10_000)
    export = services.request_export(alice)
    assert exports.make_next()
    export.refresh_from_db()
    assert export.state == "ready", export.error_code
    answer = client.get(reverse("export_download", args=[export.pk]))
    assert answer.status_code == 302
    limits = http.Limits(5, 20, 30, 40_000_000)
    fetched = http.get(answer["Location"], limits=limits)
    with zipfile.ZipFile(io.BytesIO(fetched.body)) as archive:
        assert archive.read(run.result.name)
    assert http.get(answer["Location"].replace("expires_at=", "expires_at=1"), limits=limits).status == 401
    later = sweep.timezone.now() + timedelta(hours=2)
    assert default_storage.stored_before("exports", later) == [export.file.name]
    default_storage.delete(export.file.name)
    assert default_storage.stored_before("exports", later) == []


# -- Circuits ------------------------------------------------------------------------------------------------


def test_outage_costs_few_calls_and_every_run_ends_after_it(upstreams, start, work, settings):
    settings.MAX_ACTIVE_RUNS = settings.DAILY_RUN_LIMIT = 0
    settings.CIRCUIT_OPEN_SECONDS = 1
    upstreams.defaults(instant=True)
    runs = [start() for _ in range(12)]
    upstreams.down("aiml", 503)
    work()
    # Ten calls open the circuit: two runs have failed by then, the third sees it and waits with the others.
    assert calls(upstreams) == 10
    assert Run.objects.filter(status="queued").count() == 10
    assert endpoints.circuit(configured()[0]).state == "open"
    upstreams.down("aiml", None)

    def all_ended():
        Run.objects.filter(status="queued").update(run_after=None)
        work()
        return not Run.objects.active().exists()

    wait_until(all_ended)
    assert Run.objects.filter(status="succeeded").count() == 10
    assert endpoints.circuit(configured()[0]).state == "closed"
    assert len(runs) == Notification.objects.count()


def test_refused_key_opens_the_circuit_at_once(upstreams, run_once):
    run = run_once({"status": 401})
    assert run.error_code == "upstream_auth"
    assert endpoints.circuit(configured()[0]).state == "open"


def test_open_circuit_is_probed_by_one_call_and_closed_by_two(upstreams, settings):
    settings.CIRCUIT_OPEN_SECONDS = 1
    (endpoint,) = configured()
    with endpoints.call([endpoint]) as made:
        made.outcome = endpoints.Outcome.REFUSED
    with pytest.raises(endpoints.CircuitsOpen) as waits, endpoints.call([endpoint]):
        pass
    assert waits.value.retry_after >= 1
    time.sleep(1.1)
    with endpoints.call([endpoint]) as probe:
        with pytest.raises(endpoints.CircuitsOpen), endpoints.call([endpoint]):
            pass
        probe.outcome = endpoints.Outcome.GOOD
    assert endpoints.circuit(endpoint).state == "half_open"
    with endpoints.call([endpoint]) as probe:
        probe.outcome = endpoints.Outcome.FAILED
    assert endpoints.circuit(endpoint).state == "open"
    time.sleep(2.1)  # twice as long as the first time
    for _ in range(2):
        with endpoints.call([endpoint]) as probe:
            probe.outcome = endpoints.Outcome.GOOD
    assert endpoints.circuit(endpoint).state == "closed"


def test_calls_go_to_the_least_busy_and_fail_over(upstreams, run_once, settings):
    settings.AIML_ENDPOINTS = [("http://127.0.0.1:1", "gone", 5.0), (upstreams.url, "other-key", 1.0)]
    run = run_once()
    assert (run.status, calls(upstreams)) == ("succeeded", 1)
    assert upstreams.host in run.endpoint
    heavy, light = endpoints.Endpoint("http://a", "k1", 2.0), endpoints.Endpoint("http://b", "k2", 1.0)
    with contextlib.ExitStack() as in_flight:
        taken = [in_flight.enter_context(endpoints.call([heavy, light])).endpoint for _ in range(6)]
    assert taken == [heavy, heavy, light, heavy, heavy, light]


# -- The result cache ----------------------------------------------------------------------------------------


def test_same_photo_snapshot_and_seed_cost_one_call(upstreams, run_once):
    first = run_once(seed=5)
    again = run_once(seed=5)
    assert (again.status, again.cached, again.counted, calls(upstreams)) == ("succeeded", True, False, 1)
    assert again.result.name == first.result.name
    fresh = run_once(seed=5, fresh=True)
    assert (fresh.cached, calls(upstreams)) == (False, 2)


# -- What the page says --------------------------------------------------------------------------------------


def test_page_says_why_a_run_waits(upstreams, run_once, client, alice):
    run = run_once({"status": 429, "headers": {"Retry-After": "60"}})
    client.force_login(alice)
    page = client.get(run.get_absolute_url()).content.decode()
    assert "too much to do at the moment" in page
    assert "Cancel" in page


@pytest.mark.parametrize(("step", "offered"), [({"status": 401}, True), ({"shape": "nsfw"}, False)])
def test_page_offers_to_try_again_where_that_may_help(upstreams, run_once, client, alice, step, offered):
    run = run_once(step)
    client.force_login(alice)
    page = client.get(run.get_absolute_url()).content.decode()
    assert ("You were not charged." in page) is offered
    assert ("This counted, because the service had already started." in page) is not offered
    assert ("Try again" in page) is offered


# -- Nothing that is secret is written or answered -------------------------------------------------------------


def test_secrets_are_in_no_log_line_and_no_answer(upstreams, run_once, client, alice, settings, caplog):
    """Canaries in every place that a secret may be, through success, refusal and every kind of trouble."""
    canaries = ["standin-secret", "standin-key", settings.AIML_API_KEY, settings.SECRET_KEY]
    canaries += [
        "canary-file-name",
        alice.email,
        "a-password-of-alice",
        "String to sign",
        "s--",
        "canary-of-the-upstream",
    ]
    client.force_login(alice)
    canaries.append(client.session.session_key)
    written, refused = [], {"error": {"message": "Invalid Signature. String to sign - 'x'. canary-of-the-upstream"}}
    for target, step in [
        ("aiml", {}),
        ("aiml", {"status": 401, "json": {"message": "canary-of-the-upstream"}}),
        ("aiml", {"status": 400, "body": "canary-of-the-upstream"}),
        ("aiml", {"shape": "broken"}),
        ("aiml", {"reset": True}),
        ("aiml", {"result_url": "https://169.254.169.254/canary-of-the-upstream"}),
        ("result", {"status": 500}),
        ("upload", {"status": 401, "json": refused}),
        ("upload", {"status": 500, "body": "canary-of-the-upstream"}),
    ]:
        endpoints.close(configured()[0])
        run = run_once(step, target=target, repeat_last=True)
        upstreams.script(target)
        written += [
            client.get(run.get_absolute_url()).content.decode(),
            client.get(reverse("notification_list")).content.decode(),
        ]
        Run.objects.active().delete()
    upstreams.script("upload", {"status": 401, "json": refused})
    file = SimpleUploadedFile("canary-file-name.jpg", small("coffee"))
    answer = client.post(reverse("create"), {"photo": file, "look": "noir_classic", "key": "canary-form-key"})
    assert answer.status_code == 503
    written.append(answer.content.decode())
    logged = caplog.text
    assert "generation_succeeded" in logged
    assert "storage_refused_key" in logged
    for canary in canaries:
        assert canary not in logged, canary
        # Who is signed in is on every page; nothing else of these is on any.
        assert canary == alice.email or not [page for page in written if canary in page], canary
