"""The product as production serves it: gunicorn, no DEBUG, a proxy in front; talked to over a socket."""

import json
import re
import socket
import subprocess
import sys

import pytest

from stefna.tests.conftest import ROOT
from stefna.tests.faults.web import Web
from stefna.tests.waiting import WAIT_SECONDS

SECRETS = {
    "SECRET_KEY": "canary-secret-key-" + "0" * 40,
    "APP_KEYS": "phone=canary-app-key",
    "METRICS_TOKEN": "canary-of-the-token",
}
# What only the inside of the product knows.
INSIDE = ["canary", "Traceback", "RuntimeError", "Exception", str(ROOT), "site-packages", "urlpatterns", ".py", "DEBUG"]


@pytest.fixture(scope="module")
def served(install, tmp_path_factory):
    made = Web(
        install, tmp_path_factory.mktemp("served"), ACCOUNT_EMAIL_VERIFICATION="none", WEB_CONCURRENCY="1",
        RUN_WORKER_THREADS="0", MAX_PHOTO_SIDE="320", **SECRETS,
    )  # fmt: skip
    yield made
    made.end()


def talk(served, *lines):
    """Send what no client would, byte by byte as it stands here, and return all that comes back."""
    with socket.create_connection(("127.0.0.1", served.port), timeout=WAIT_SECONDS) as connection:
        connection.sendall("\r\n".join(lines).encode("latin-1"))
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b"")).decode()


def test_head_has_the_headers_of_get_and_nobody_complains(served):
    for path in ("/", "/healthz/live", "/nothing", "/api/v1/presets", "/static/manifest.webmanifest"):
        got, head = served.ask("GET", path), served.ask("HEAD", path)
        assert (head.status, head.text) == (got.status, "")
        assert head.headers["Content-Type"] == got.headers["Content-Type"]
        assert int(head.headers["Content-Length"]) > 0
    assert "no-body" not in (served.server.state / "web.log").read_text()


# -- S10: what every answer says to the browser --------------------------------------------------------------


def test_every_answer_carries_the_defences(served):
    page = served.ask("GET", "/account/signup/")
    token = re.search(r'csrfmiddlewaretoken" value="(\w+)', page.text)[1]
    cookie = page.headers["Set-Cookie"].partition(";")[0]
    form = {"Cookie": cookie, "Referer": "https://stefna.example/", "Content-Type": "application/x-www-form-urlencoded"}
    sent = f"email=new@example.com&password1=a-password-of-mine&csrfmiddlewaretoken={token}"
    signed_up = served.ask("POST", "/account/signup/", sent, **form)
    assert signed_up.status == 302
    others = [served.ask("GET", path) for path in ("/", "/nothing", "/api/v1/ping")]
    for answer in [page, signed_up, *others]:
        policy = dict(part.split(" ", 1) for part in answer.headers["Content-Security-Policy"].split("; "))
        assert {policy[name] for name in ("default-src", "object-src", "base-uri", "frame-ancestors")} == {"'none'"}
        # Stricter than nonces: no script or style of a page's own is run at all.
        assert policy["script-src"] == policy["style-src"] == "'self'"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert answer.headers["Referrer-Policy"] == "same-origin"
        assert answer.headers["Strict-Transport-Security"] == "max-age=31536000; includeSubDomains; preload"
    cookies = {}
    for answer in (page, signed_up, *others):
        for cookie in answer.headers.get_all("Set-Cookie", []):
            name, *attributes = re.split("; ?|=", cookie)
            cookies[name] = set(attributes)
    assert set(cookies) >= {"csrftoken", "sessionid"}
    assert all({"Secure", "HttpOnly", "SameSite", "Lax"} <= attributes for attributes in cookies.values())


def test_without_tls_nothing_is_served(served):
    plain = served.ask("GET", "/account/login/", **{"X-Forwarded-Proto": "http"})
    assert (plain.status, plain.headers["Location"]) == (301, "https://stefna.example/account/login/")


# -- S18: nothing of the inside is shown ---------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/nothing", "/api/v1/nothing", "/with-a-bug", "/api/v1/with-a-bug"])
def test_error_shows_no_settings_and_no_stack(served, path):
    answer = served.ask("GET", path)
    status = 500 if "bug" in path else 404
    assert answer.status == status
    assert [word for word in [*INSIDE, str(served.server.state)] if word in answer.text] == []
    if path.startswith("/api/"):
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert json.loads(answer.text)["status"] == status
    else:
        assert answer.headers["Content-Type"].startswith("text/html")


# -- S19: requests that are none -----------------------------------------------------------------------------

HOST = "Host: stefna.example\r\nX-Forwarded-Proto: https\r\nX-Forwarded-For: 203.0.113.9\r\nConnection: close"


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["TRACE / HTTP/1.1", HOST, "X-Canary: echo"], 405),
        (["TRACE /api/schema/ HTTP/1.1", HOST, "X-Canary: echo"], 405),
        (["CONNECT elsewhere.example:443 HTTP/1.1", HOST], 4),
        (["GET /healthz/live HTTP/1.1", HOST, "X-Huge: " + "x" * 9000], 431),
        (["GET /healthz/live HTTP/1.1", HOST, *[f"X-{n}: x" for n in range(99)]], 431),
        (["GET /" + "x" * 5000 + " HTTP/1.1", HOST], 414),
        (["POST /api/v1/ping HTTP/1.1", HOST, "Content-Length: 5", "Content-Length: 6"], 400),
        (["POST /api/v1/ping HTTP/1.1", HOST, "Content-Length: 5, 6"], 400),
        (["POST /api/v1/ping HTTP/1.1", HOST, "Content-Length: 5", "Transfer-Encoding: chunked"], 400),
        (["POST /api/v1/ping HTTP/1.1", HOST, "Content-Length: -5"], 400),
        (["POST /api/v1/ping HTTP/1.1", HOST, "Content-Length: +5"], 400),
        (["POST /api/v1/ping HTTP/1.1", HOST, "Transfer-Encoding: xchunked"], 501),
        (["GET /healthz/live HTTP/1.1", HOST, "X-Name : x"], 400),
        (["GET /healthz/live HTTP/1.1", HOST, "X-Folded: a", " b: c"], 400),
        (["GET /healthz/live HTTP/1.1", HOST, "X-Bare: a\rb: c"], 400),
    ],
)
def test_odd_request_is_refused_and_nothing_is_smuggled(served, lines, status):
    smuggled = "0\r\n\r\nGET /healthz/live HTTP/1.1\r\n" + HOST + "\r\n\r\n"
    said = talk(served, *lines, "", smuggled if lines[0].startswith("POST") else "")
    assert said.startswith(f"HTTP/1.1 {status}")
    assert said.count("HTTP/1.1 ") == 1
    assert '"ok"' not in said
    assert "echo" not in said


@pytest.mark.parametrize("how", ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"])
def test_method_is_the_one_that_was_sent(served, how):
    assert served.ask("POST", "/api/v1/presets/duotone", **{how: "GET"}).status in (401, 405)
    assert served.ask("POST", "/runs/?_method=GET", "_method=GET", **{how: "GET"}).status in (403, 405)
    assert served.ask("GET", "/account/login/?_method=DELETE", **{how: "DELETE"}).status == 200


# -- S17: whatever is sent, an event is a line ---------------------------------------------------------------


def lines_of(served):
    """Return the log's own lines, each of which has to be JSON; gunicorn has a few of its own, for its operator."""
    lines = served.log().split("\n")
    return [json.loads(line) for line in lines if line and not re.match(r"\[\d{4}-\d\d-\d\d .*\] \[[A-Z]+\] ", line)]


def assert_nothing_is_forged(written):
    events = [line["event"] for line in written]
    assert "forged" not in events
    # It was written, as a part of something else.
    assert [event for event in events if "forged" in event]
    assert not [line for line in written if re.search(r"[^\w-]", line.get("request_id", ""))]


def test_line_breaks_over_the_wire_make_no_line_of_their_own(served):
    forged = '%0A%0D%0B%C2%85%E2%80%A8{"event": "forged"}'.replace(" ", "%20").replace('"', "%22")
    before = len(lines_of(served))
    served.ask("GET", f"/nothing{forged}?{forged}")
    served.ask("GET", f"/api/v1/nothing{forged}", **{"X-Request-ID": "a\tb%0Ac", "User-Agent": forged})
    served.ask("POST", "/account/login/", f"login={forged}&password={forged}", Referer=f"https://{forged}/")
    served.ask("GET", "/", Host=f"stefna.example{forged}")
    served.ask("GET", "/with-a-bug", **{"X-Request-ID": forged, "User-Agent": "\x85forged"})
    written = lines_of(served)[before:]
    assert len(written) >= 5
    assert_nothing_is_forged(written)
    assert "canary" not in json.dumps(written).replace("canary-of-the-error", "")


INSIDE_THE_PRODUCT = """
import uuid
from django.test import Client
from accounts.models import Profile, User
from generation import photos, services, tasks
from generation.models import Preset, Run
forged = "\\n\\r\\x0b\\x85\\u2028" + '{"event": "forged"}'
user = User.objects.create_user("one@example.com")
Profile.objects.filter(user=user).update(display_name=forged[:80])
Preset.objects.filter(slug="duotone").update(name=forged)
client = Client(raise_request_exception=False, headers={"User-Agent": forged, "Accept-Language": forged,
    "X-Forwarded-For": forged, "X-Request-ID": forged, "X-Forwarded-Proto": "https", "Host": "stefna.example"})
client.get("/nothing" + forged)
client.post("/account/login/", {"login": forged, "password": forged})
client.force_login(user)
photo = photos.accept(user, photos.Upload.sample("coffee"))
photo.name = forged
for look in ("duotone", "noir_classic"):
    run = services.start_run(user=user, photo=photo, preset=Preset.objects.get(slug=look), key=uuid.uuid4().hex)
    if look == "noir_classic":
        Run.objects.filter(pk=run.pk).update(recipe=None, preset_name=forged)
    tasks.process(run.pk)
client.post("/api/v1/runs", {"photo_id": str(photo.pk), "preset": forged, "prompt": forged},
    content_type="application/json", headers={"Idempotency-Key": forged})
client.get("/with-a-bug" + forged)
client.get("/with-a-bug", headers={"Referer": forged})
"""


def test_line_breaks_in_names_and_headers_make_no_line_of_their_own(served):
    done = subprocess.run(
        [sys.executable, "manage.py", "shell", "--no-imports", "-c", INSIDE_THE_PRODUCT],
        cwd=ROOT, env=served.server.environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    written = [json.loads(line) for line in done.stderr.split("\n") if line]
    assert {line["event"] for line in written} >= {"generation_succeeded", "generation_failed"}
    assert_nothing_is_forged(written)
