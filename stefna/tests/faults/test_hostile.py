"""Files of a stranger, sent to a real server: no answer is worse than a refusal, and nobody else notices."""

import contextlib
import itertools
import json
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from conftest import small
from generation.long_polls import MAX_WAITING
from generation.tests.images.files import CRASH, lossless_webp, many_scans
from generation.tests.images.mutations import mutations
from stefna.tests.faults import files
from stefna.tests.faults.web import BEHIND_PROXY, Web, signed_in
from stefna.tests.waiting import WAIT_SECONDS, wait_until

MUTATIONS = 200
INNOCENT = small("coffee")
REFUSED = {413, 415, 422}
ANONYMOUS = {"Cookie": f"csrftoken={'c' * 32}", "X-CSRFToken": "c" * 32, "Referer": "https://stefna.example/"}


@pytest.fixture(scope="module")
def web(install, tmp_path_factory):
    made = Web(install, tmp_path_factory.mktemp("web"), ALLOW_GUESTS="1", DAILY_RUN_LIMIT="0", MAX_ACTIVE_RUNS="0")
    yield made
    made.end()


@pytest.fixture
def sender(web):
    """Send a photo to the API, as several members in turn: each may send only so many a minute."""
    members = itertools.cycle([web.server.call("member") for _ in range(4)])

    def send(data):
        headers = signed_in(next(members)) | {"Content-Type": files.FORM}
        return web.ask("POST", "/api/v1/photos", files.form(files.file(data)), **headers)

    def send_until_there_is_room(data):
        """Come back after 503, as Retry-After says: on a busy machine a photo may wait too long for its turn."""
        return wait_until(lambda: (answer := send(data)).status != 503 and answer)

    return send_until_there_is_room


def test_no_file_ends_the_server_or_fails_another_request(web, sender):
    worker = web.worker
    costly = [CRASH, many_scans(2000), lossless_webp((6300, 6300))]
    sent = [INNOCENT if number % 4 == 0 else costly[number % 4 - 1] for number in range(24)]
    with ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(sender, sent))
    for number, answer in enumerate(answers):
        expected = {200, 201} if number % 4 in (0, 3) else {422}
        assert answer.status in expected, (number, answer.text)
    assert web.status("/healthz/live") == 200
    assert web.worker == worker


def test_no_mutation_is_an_error_of_ours(web, sender):
    worker = web.worker

    def send(mutation):
        name, data = mutation
        return name, sender(data)

    with ThreadPoolExecutor(4) as threads:
        for name, answer in threads.map(send, mutations(MUTATIONS, seed=11)):
            assert answer.status in REFUSED | {200, 201}, name
        assert sender(INNOCENT).status in (200, 201)
    assert web.worker == worker


def test_picture_without_a_place_is_refused_before_it_is_sent(web):
    """Previews that never arrive: others are told to come back, without waiting for their own body."""
    with contextlib.ExitStack() as slow:
        # Nothing of a body is sent, so only a server that does not read it can answer.
        refusal = wait_until(lambda: answer_after_another(slow, web, "/sketches"))
        assert refusal.startswith("HTTP/1.1 503")
        assert "Retry-After: " in refusal
        # Uploads, pages and forms without a picture have places of their own.
        member = web.server.call("member")
        headers = signed_in(member) | {"Content-Type": files.FORM}
        assert web.ask("POST", "/api/v1/photos", files.form(files.file(INNOCENT)), **headers).status == 201
        assert web.status("/healthz/live") == web.status("/") == 200
    # Who hangs up leaves a place.
    headers = ANONYMOUS | {"Content-Type": files.FORM}
    preview = files.form(files.file(INNOCENT))
    wait_until(lambda: web.ask("POST", "/sketches", preview, **headers).status == 200)


def test_requests_that_wait_leave_threads_to_those_that_do_not(web):
    """Seventy long polls of twelve members: a quarter of the threads waits, and the order of events shows the rest."""
    members = [web.server.call("member") for _ in range(12)]
    runs = [web.server.call("run", email=member["email"], state="running") for member in members]
    polls = [(members[at % 12], f"/api/v1{runs[at % 12]}".rstrip("/")) for at in range(70)]
    answered = []

    def poll(member, path):
        answer = web.ask("GET", path, Prefer="wait=25", **signed_in(member))
        answered.append(answer)
        return answer

    with ThreadPoolExecutor(len(polls)) as threads:
        answers = [threads.submit(poll, *one) for one in polls]
        wait_until(lambda: len(answered) >= len(polls) - MAX_WAITING)
        at_once = list(answered)
        assert {answer.status for answer in at_once} == {200}
        assert not [answer for answer in at_once if "Preference-Applied" in answer.headers]
        # Other requests while the rest waits; that it still waits is seen by what it is answered.
        other = signed_in(web.server.call("member"))
        assert web.status("/healthz/live") == web.status("/") == web.status("/runs/", **other) == 200
        for path in runs:
            web.server.call("advance", path=path)
        waited = [answer for answer in (one.result(WAIT_SECONDS) for one in answers) if answer not in at_once]
    assert len(waited) == MAX_WAITING
    assert {answer.headers["Preference-Applied"] for answer in waited} == {"wait=25"}
    assert {json.loads(answer.text)["phase"] for answer in waited} == {"storing"}


@contextlib.contextmanager
def half_sent(web, path):
    """Send the head of a request with a picture, and keep the connection."""
    lines = {"Content-Type": files.FORM, "Content-Length": "100000"} | BEHIND_PROXY | ANONYMOUS
    head = f"POST {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items()) + "\r\n"
    with socket.create_connection(("127.0.0.1", web.port), WAIT_SECONDS) as connection:
        connection.sendall(head.encode())
        yield connection


def answer_after_another(slow, web, path):
    """Leave one more half-sent request, and return what the next is answered before its body; empty for nothing."""
    slow.enter_context(half_sent(web, path))
    with half_sent(web, path) as connection, contextlib.suppress(TimeoutError):
        connection.settimeout(2)
        return connection.recv(65536).decode()
    return ""


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain; charset=rot13"},
        {"Content-Type": "application/x-www-form-urlencoded; charset=zip"},
        {"Content-Type": "text/plain; charset=\\x00"},
        {"Content-Type": "text/plain; x*=foo''%41"},
        {"Content-Type": "multipart/form-data; boundary*=foo''%41"},
        {"Content-Type": "text/plain; charset*=rot13''%41"},
        {"SCRIPT_NAME": "/sketches"},
        {"Script-Name": "/x"},
    ],
)
def test_no_header_is_an_error_of_the_server(web, headers):
    assert web.ask("GET", "/healthz/live?x=1", **headers).status == 200
    for path in ("/", "/nothing", "/sketches", "/x/sketches", "/api/v1/ping", "/_allauth/app/v1/auth/login"):
        for method, body in (("GET", None), ("POST", b"x=1")):
            assert web.ask(method, f"{path}?x=1", body, **headers).status < 500, (path, method)
