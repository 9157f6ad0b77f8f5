"""A whole installation on loopback: nginx as docs/operations.md sets it up, gunicorn, workers, beat, and stand-ins.

Run it as `python -m benchmarks.installation [NAME…]`: without names, every part. Besides the services that
`benchmarks.production` needs, it needs nginx and openssl.
"""

import http.client
import io
import itertools
import re
import secrets
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, Self

import requests
from django.db.models import Max, Sum
from PIL import Image, ImageStat

from benchmarks import report
from benchmarks.production import BROKER, ROOT, Engine, Owner, endings, run, standin, wait_until_ended

# isort: split
# Django is set up by then.
from accounts.models import User
from generation.models import Photo, Run

PEOPLE, PHOTOS_EACH = 10, 50
MODEL_SECONDS, KILL_EVERY_SECONDS, RESTART_SECONDS = 5.0, 20, 2
THREADS = 10
BITS, SQUARE = 12, 24
SLOW = 72
APP_KEY = secrets.token_hex()
PASSWORD = secrets.token_hex()


# -- What runs -----------------------------------------------------------------------------------------------------


class Installation(Engine):
    """Pages behind nginx, beside what an Engine has; the limits are those of an installation that sets none."""

    def __init__(self, *, web: int = 2, **environment: str) -> None:
        self.web_port, self.http_port, self.https_port = free_port(), free_port(), free_port()
        self.url = f"https://localhost:{self.https_port}"
        theirs = {
            "PORT": str(self.web_port),
            "WEB_CONCURRENCY": str(web),
            "TRUSTED_PROXIES": "1",
            "APP_KEYS": f"bench={APP_KEY}",
            "MAX_ACTIVE_RUNS": "10",
            "DAILY_RUN_LIMIT": "50",
        }
        super().__init__(**theirs | environment)
        self.certificate = self.folder / "certificate.pem"

    def __enter__(self) -> Self:
        super().__enter__()
        subprocess.run([sys.executable, "manage.py", "prepare"], cwd=ROOT, env=self.environment, check=True)
        self.gunicorn("stefna.wsgi", self.web_port)
        self.celery("beat")
        self.nginx()
        until_it_listens(self.web_port)
        until_it_listens(self.https_port)
        return self

    def __exit__(self, *error: object) -> None:
        # Their children would be left behind by a kill.
        for process in self.processes:
            process.terminate()
        time.sleep(1)
        super().__exit__(*error)

    def gunicorn(self, application: str, port: int, **environment: str) -> None:
        self.start(
            [sys.executable, "-m", "gunicorn", application],
            "web",
            self.environment | {"PORT": str(port)} | environment,
        )

    def nginx(self) -> None:
        """Start nginx with the example of docs/operations.md, at addresses and paths of this installation."""
        key = self.folder / "key.pem"
        made = (
            "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
        )
        command = [*made.split(), "-keyout", str(key), "-out", str(self.certificate)]
        subprocess.run(command, check=True, capture_output=True)
        (example,) = re.findall(r"(?s)```nginx\n(.+?)```", (ROOT / "docs" / "operations.md").read_text())
        here = {
            r" *listen \[::\].*\n": "",
            # All clients have one address here.
            r" *limit_(req|conn) .*\n": "",
            r"listen 80;": f"listen 127.0.0.1:{self.http_port};",
            r"listen 443 ": f"listen 127.0.0.1:{self.https_port} ",
            r"127\.0\.0\.1:8000": f"127.0.0.1:{self.web_port}",
            r"stefna\.example;": "localhost;",
            r"/etc/.*/fullchain\.pem": str(self.certificate),
            r"/etc/.*/privkey\.pem": str(key),
            r"/var/log/nginx": str(self.folder),
        }
        for pattern, value in here.items():
            example, count = re.subn(pattern, value, example)
            assert count, f"docs/operations.md has no {pattern}"
        folders = "".join(
            f"{kind}_temp_path {self.folder}/{kind};\n" for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        )
        (self.folder / "nginx.conf").write_text(
            f"daemon off; user root; pid {self.folder}/nginx.pid; events {{ worker_connections 1024; }}\n"
            f"http {{\n{folders}{example}}}\n"
        )
        self.start(
            [
                "nginx",
                "-p",
                str(self.folder),
                "-e",
                str(self.folder / "nginx.log"),
                "-c",
                str(self.folder / "nginx.conf"),
            ],
            "nginx",
            self.environment,
        )


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def until_it_listens(port: int) -> None:
    until = time.monotonic() + 30
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


# -- People --------------------------------------------------------------------------------------------------------


class Person:
    """Somebody with an account and an app, who sends photos through nginx."""

    def __init__(self, installation: Installation, name: str) -> None:
        self.url = installation.url
        self.user = User.objects.create_user(f"{name}@example.com", PASSWORD)
        self.user.emailaddress_set.create(email=self.user.email, verified=True, primary=True)  # type: ignore[attr-defined]
        self.session = requests.Session()
        self.session.verify = str(installation.certificate)
        self.session.trust_env = False
        self.session.headers["X-App-Key"] = APP_KEY
        answer = self.call("POST", "/_allauth/app/v1/auth/login", json={"email": self.user.email, "password": PASSWORD})
        self.token = answer.json()["meta"]["session_token"]
        self.session.headers["Authorization"] = f"Bearer {self.token}"

    def call(self, method: str, path: str, **options: Any) -> requests.Response:
        return self.session.request(method, self.url + path, timeout=60, **options)

    def send(self, picture: bytes, key: str) -> requests.Response:
        files = {"photo": ("photo.jpg", picture)}
        headers = {"Idempotency-Key": key}
        return self.call("POST", "/api/v1/runs", data={"preset": "express_enhance"}, files=files, headers=headers)

    def runs(self) -> list[dict[str, Any]]:
        return self.call("GET", "/api/v1/runs?page_size=100").json()["results"]

    def quota(self) -> dict[str, Any]:
        return self.call("GET", "/api/v1/profile").json()["quota"]


def people(installation: Installation, count: int) -> list[Person]:
    User.objects.all().delete()
    standin.reset()
    return [Person(installation, f"person{number}") for number in range(count)]


def photo(number: int) -> bytes:
    """Return the sample photo with a number on it, in black and white squares."""
    with Image.open(ROOT / "static" / "img" / "samples" / "coffee.jpg") as picture:
        for bit in range(BITS):
            picture.paste((255 * (number >> bit & 1),) * 3, (bit * SQUARE, 0, (bit + 1) * SQUARE, SQUARE))
        made = io.BytesIO()
        picture.save(made, "JPEG", quality=90)
    return made.getvalue()


def number_on(picture: Image.Image) -> int:
    """Read the number of the photo that a picture was made of: the stand-in inverts photos."""
    grey = picture.convert("L")
    squares = [grey.crop((bit * SQUARE, 0, (bit + 1) * SQUARE, SQUARE)) for bit in range(BITS)]
    return sum((ImageStat.Stat(square).mean[0] < 160) << bit for bit, square in enumerate(squares))


# -- 500 photos, while workers die ----------------------------------------------------------------------------------


def proof() -> str:
    """Send photos through everything, kill a worker again and again, and count what came of it."""
    seen = Seen()
    with Installation(WORKER_THREADS=str(THREADS)) as installation:
        everybody = people(installation, PEOPLE)
        standin.defaults(aiml_delay=MODEL_SECONDS)
        with killing(installation) as kills, ThreadPoolExecutor(PEOPLE) as pool:
            started = time.monotonic()
            list(pool.map(seen.use_up_the_day, everybody, itertools.count()))
            seconds = time.monotonic() - started
        rows = balance(installation, everybody, seen)
    worst = Run.objects.aggregate(worst=Max("total_ms"))["worst"] / 1000
    half, most = percentiles(seen.seconds)
    return (
        f"nginx, gunicorn with 2 processes, 2 workers of {THREADS} threads, beat, PostgreSQL, Redis, and"
        f" {BROKER.split(':')[0]} as the broker; default limits. {PEOPLE} people sent {PHOTOS_EACH} photos each; the"
        f" model takes {MODEL_SECONDS:.0f} s. Every {KILL_EVERY_SECONDS} s one of the workers was killed (`kill -9`,"
        f" {len(kills)} times) and started again {RESTART_SECONDS} s later. It took {seconds:.0f} s; the longest run"
        f" {worst:.0f} s; sending a photo {half:.0f} ms (p50) and {most:.0f} ms (p95).\n\n"
        + report.table(["counted", "value", "should be"], rows)
    )


def balance(installation: Installation, everybody: list[Person], seen: "Seen") -> list[list[object]]:
    """Compare what people sent, what rows, logs and stand-ins say, and what people have."""
    wanted, runs = PEOPLE * PHOTOS_EACH, list(Run.objects.all())
    errors = Counter(one.error_code for one in runs if one.error_code)
    log = (installation.folder / "worker.log").read_text()
    logged = Counter(re.findall(r'(?m)^(?=.*"generation_(?:succeeded|failed)").*"run_id": "(.+?)"', log))
    columns = Run.objects.values_list("result", "thumbnail"), Photo.objects.values_list("file", "thumbnail")
    known = {name.rpartition(".")[0] for rows in columns for names in rows for name in names if name}
    stored = {file["public_id"] for file in standin.stored()}
    calls = standin.counts()["aiml"]["calls"]
    possible = Run.objects.aggregate(sum=Sum("possible_cost"))["sum"]
    used = Counter(str(person.quota()["used"]) for person in everybody)
    pictures = sum(fetched(person, seen.sent) for person in everybody)
    more = Counter(person.send(photo(4_000), "one-more").json().get("code", "accepted") for person in everybody)
    return [
        ["photos accepted", len(seen.sent), wanted],
        ["runs, and how they ended", f"{len(runs)}: {endings(runs)} {in_words(errors)}", "all ended, all told once"],
        ["runs whose ending is logged twice", sum(times > 1 for times in logged.values()), 0],
        ["pictures fetched through nginx, of what was sent", pictures, "as many as succeeded"],
        ["used today: people", in_words(used), "what succeeded"],
        ["one photo more: people", in_words(more), "quota_exceeded, or what failed again"],
        ["runs that were killed and taken over", sum(one.attempts > 1 for one in runs), ""],
        ["calls of the model beyond one a run", calls - len(runs), "≤ the next"],
        ["possible cost on the rows", possible, ""],
        ["stored pictures that no row knows", len(stored - known), "few; the clean-up takes them an hour later"],
        ["rows whose picture is not stored", len(known - stored), 0],
        ["what people met besides their limits", in_words(seen.troubles) or "nothing", "nothing"],
    ]


class Seen:
    """What people met."""

    def __init__(self) -> None:
        self.sent: dict[str, int] = {}
        self.seconds: list[float] = []
        self.troubles: Counter[str] = Counter()
        self._lock = threading.Lock()

    def use_up_the_day(self, person: Person, place: int) -> None:
        """Send photos as fast as the limits allow, each until it is accepted, and wait until all have ended."""
        for which in range(PHOTOS_EACH):
            while not self._accepted(person, place * PHOTOS_EACH + which):
                time.sleep(1)
        while any(one["finished_at"] is None for one in person.runs()):
            time.sleep(2)

    def _accepted(self, person: Person, number: int) -> bool:
        picture, started = photo(number), time.monotonic()
        try:
            answer = person.send(picture, f"photo-{number}")
        except requests.RequestException as error:
            trouble = type(error).__name__
        else:
            if answer.status_code == 202:
                with self._lock:
                    self.sent[answer.json()["id"]] = number
                    self.seconds.append(time.monotonic() - started)
                return True
            trouble = answer.json()["code"] if "json" in answer.headers["Content-Type"] else str(answer.status_code)
        if trouble != "too_many_active_runs":
            with self._lock:
                self.troubles[trouble] += 1
        return False


def fetched(person: Person, sent: dict[str, int]) -> int:
    """Count the pictures that the person can fetch, and that are made of what was sent."""
    pictures = 0
    for one in person.runs():
        if one["status"] == "succeeded":
            answer = person.call("GET", f"/api/v1/runs/{one['id']}/download")
            with Image.open(io.BytesIO(answer.content)) as picture:
                pictures += number_on(picture) == sent[one["id"]]
    return pictures


def in_words(counted: Counter[str]) -> str:
    return ", ".join(f"{what}: {count}" for what, count in counted.items())


@contextmanager
def killing(installation: Installation) -> Iterator[list[float]]:
    """Run two workers, and kill one after the other; as a supervisor does, start each again."""
    over, kills = threading.Event(), []
    workers = [installation.worker(THREADS) for _ in range(2)]

    def kill() -> None:
        for turn in itertools.cycle(range(2)):
            if over.wait(KILL_EVERY_SECONDS):
                return
            workers[turn].kill()
            workers[turn].wait()
            kills.append(time.monotonic())
            over.wait(RESTART_SECONDS)
            workers[turn] = installation.worker(THREADS)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        yield kills
    finally:
        over.set()
        killer.join()


def percentiles(seconds: list[float]) -> tuple[float, float]:
    """Return p50 and p95 in milliseconds."""
    return statistics.median(seconds) * 1000, statistics.quantiles(seconds, n=20)[-1] * 1000


# -- Sending a photo while many runs are in flight ------------------------------------------------------------------


def submit() -> str:
    rows = []
    idle = 0.0
    for count in (0, 200, 500):
        sent, half, most = submitted_beside(count)
        idle = idle or half
        rows.append([count, sent, f"{half:.0f}", f"{most:.0f}", f"{half / idle:.2f}"])
    return (
        "One photo after another is sent through nginx while one worker makes so many pictures at once, of a model that"
        " takes 5 s: from their start to their last end. Decoding the photo, two uploads and the row are"
        " part of it; web process, worker, PostgreSQL, Redis and the stand-ins share the machine.\n\n"
        + report.table(["runs at once", "photos sent", "p50 ms", "p95 ms", "p50 ÷ idle"], rows)
    )


def submitted_beside(count: int) -> tuple[int, float, float]:
    with Installation(web=1, MAX_ACTIVE_RUNS="0", DAILY_RUN_LIMIT="0") as installation:
        owner = Owner()
        # Each may send 120 photos a minute.
        senders = [Person(installation, f"person{number}") for number in range(5)]
        standin.defaults(instant=True, aiml_delay=0)
        installation.worker(count + 64)
        owner.warm_up()
        standin.defaults(aiml_delay=5)
        owner.start(count)
        seconds: list[float] = []
        while len(seconds) < 40 or Run.objects.active().filter(user=owner.user).exists():
            started = time.monotonic()
            sender = senders[len(seconds) // 100]
            assert sender.send(photo(len(seconds)), f"key-{len(seconds)}").status_code == 202
            seconds.append(time.monotonic() - started)
        wait_until_ended(90)
    return len(seconds), *percentiles(seconds)


# -- Lists and polls beside a view that does nothing -----------------------------------------------------------------


def throughput() -> str:
    rows: list[list[object]] = []
    with Installation(web=1) as installation:
        (person,) = people(installation, 1)
        standin.defaults(instant=True)
        installation.worker(8)
        for number in range(9):
            person.send(photo(number), f"key-{number}")
        wait_until_ended()
        standin.defaults(aiml_delay=55)
        made = person.send(photo(9), "key-9").json()["id"]
        bare_port = free_port()
        installation.gunicorn("benchmarks.bare", bare_port, PYTHONPATH=str(ROOT))
        until_it_listens(bare_port)
        bare = best_rate(bare_port, "/bare", {}, 200)
        rows.append(["a bare Django view", f"{bare:.0f}", "1.0"])

        def measure(name: str, path: str, headers: dict[str, str], status: int = 200) -> None:
            found = best_rate(installation.web_port, path, headers | {"X-Forwarded-Proto": "https"}, status)
            rows.append([name, f"{found:.0f}", f"{bare / found:.1f}"])

        signed = {"X-App-Key": APP_KEY, "Authorization": f"Bearer {person.token}"}
        path, known = f"/api/v1/runs/{made}", person.call("GET", f"/api/v1/runs/{made}").headers["ETag"]
        measure("poll, 304: `GET /api/v1/runs/{id}`", path, signed | {"If-None-Match": known}, 304)
        measure("poll, 200", path, signed)
        measure("list of 10: `GET /api/v1/runs`", "/api/v1/runs", signed)
        # By now the page asks every two seconds, and that stays so for a while.
        cookie = {"Cookie": f"sessionid={person.token}", "HX-Request": "true"}
        page = person.call("GET", f"/runs/{made}/", headers=cookie).text
        (state,) = re.findall(r'If-None-Match": "\\("\w+)\\"', page)
        measure("poll of the run's page, 304", f"/runs/{made}/", cookie | {"If-None-Match": f'{state}"'}, 304)
    return (
        "One gunicorn process, four connections that are kept, no proxy; the best of three times two seconds. The run"
        " is being made. Each answer asks PostgreSQL who it is and what there is; the API counts in Redis.\n\n"
        + report.table(["asked", "answers a second", "times the bare view's cost"], rows)
    )


def best_rate(port: int, path: str, headers: dict[str, str], status: int) -> float:
    return max(rate(port, path, headers, status) for _ in range(3))


def rate(port: int, path: str, headers: dict[str, str], status: int, seconds: float = 2, connections: int = 4) -> float:
    """Return how many answers a second come while four ask without a pause."""

    def ask(_: int) -> int:
        connection, count, until = http.client.HTTPConnection("127.0.0.1", port), 0, time.monotonic() + seconds
        while time.monotonic() < until:
            connection.request("GET", path, headers={"Host": "localhost"} | headers)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == status, f"{path} answered {answer.status}"
            count += 1
        connection.close()
        return count

    with ThreadPoolExecutor(connections) as pool:
        return sum(pool.map(ask, range(connections))) / seconds


# -- Slow uploads --------------------------------------------------------------------------------------------------


def slow() -> str:
    rows = []
    with Installation(web=1) as installation:
        trusted = ssl.create_default_context(cafile=str(installation.certificate))
        for name, port, context in (
            ("nginx as documented, then gunicorn", installation.https_port, trusted),
            ("gunicorn alone", installation.web_port, None),
        ):
            while not (idle := answers(port, context)):
                pass  # it listens before it answers
            with slow_uploads(port, context):
                beside = answers(port, context)
            rows.append([name, *(f"{max(found):.0f}" if found else "none within 5 s" for found in (idle, beside))])
    return (
        f"{SLOW} uploads that send ten bytes a second each, as many as gunicorn has threads, and `/healthz/live` beside"
        " them, 20 times.\n\n" + report.table(["asked", "slowest ms, idle", "slowest ms, beside them"], rows)
    )


def connected(port: int, context: ssl.SSLContext | None) -> socket.socket:
    plain = socket.create_connection(("127.0.0.1", port), timeout=5)
    return context.wrap_socket(plain, server_hostname="localhost") if context else plain


def answers(port: int, context: ssl.SSLContext | None) -> list[float]:
    """Return the milliseconds of each of 20 answers, each over a connection of its own; of none if one is missing."""
    found = []
    for _ in range(20):
        started = time.monotonic()
        with connected(port, context) as connection:
            connection.sendall(b"GET /healthz/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            try:
                assert connection.recv(100).split()[1] == b"200"
            except TimeoutError:
                return []
        found.append((time.monotonic() - started) * 1000)
    return found


@contextmanager
def slow_uploads(port: int, context: ssl.SSLContext | None) -> Iterator[None]:
    head = (
        "POST /api/v1/photos HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-Proto: https\r\nX-App-Key: x\r\n"
        "Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 5000000\r\n\r\n--x\r\n"
    )
    uploads, over = [connected(port, context) for _ in range(SLOW)], threading.Event()
    for one in uploads:
        one.sendall(head.encode())

    def drip() -> None:
        while not over.wait(0.1):
            for one in uploads:
                with suppress(OSError):
                    one.sendall(b"x")

    dripping = threading.Thread(target=drip)
    dripping.start()
    time.sleep(1)
    try:
        yield
    finally:
        over.set()
        dripping.join()
        for one in uploads:
            one.close()


PARTS: dict[str, Callable[[], str]] = {"throughput": throughput, "submit": submit, "slow": slow, "proof": proof}

if __name__ == "__main__":
    if missing := [program for program in ("nginx", "openssl") if not shutil.which(program)]:
        sys.exit(f"This needs {' and '.join(missing)}.")
    run("Installation", PARTS, sys.argv[1:])
