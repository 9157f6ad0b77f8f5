"""The product as it is run: a server process of its own, with a database and pictures of its own, and a browser."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import font_roboto
import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from rest_framework.throttling import SimpleRateThrottle

from conftest import small
from stefna.tests.app import App
from stefna.tests.waiting import WAIT_MS, WAIT_SECONDS, wait_until

ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


PER_ADDRESS = (
    "GUESTS_PER_ADDRESS_DAILY",
    "PREVIEWS_PER_ADDRESS_MINUTE",
    "RUNS_PER_ADDRESS_DAILY",
    "SIGNUPS_PER_ADDRESS_DAILY",
    "UPLOADS_PER_ADDRESS_HOURLY",
)


class Server:
    """One installation. `start` and `kill` leave its data where it is."""

    def __init__(self, state: Path, **environment: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.state = state
        # Its database is a file of its own, unless it is told of another one.
        kept = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
        # All clients of all servers have one address here, and with Redis one count.
        unlimited = dict.fromkeys(PER_ADDRESS, "0")
        self.environment = kept | {"STATE_DIR": str(state)} | unlimited | environment
        self.process: subprocess.Popen[bytes] | None = None
        self.stage: subprocess.Popen[str] | None = None

    def manage(self, *arguments: str) -> str:
        command = [sys.executable, "manage.py", *arguments]
        done = subprocess.run(command, cwd=ROOT, env=self.environment, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def shell(self, code: str) -> str:
        return self.manage("shell", "--no-imports", "-c", code)

    def call(self, function: str, **arguments: Any) -> Any:
        """Call a function of stefna.tests.stage in a process of this installation."""
        if self.stage is None:
            command = [sys.executable, "manage.py", "shell", "--no-imports", "-c"]
            self.stage = subprocess.Popen(
                [*command, "from stefna.tests import stage; stage.listen()"],
                cwd=ROOT,
                env=self.environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=(self.state / "stage.log").open("ab"),
                text=True,
            )
        self.stage.stdin.write(json.dumps([function, arguments]) + "\n")
        self.stage.stdin.flush()
        answer = json.loads(self.stage.stdout.readline())
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["answer"]

    def start(self) -> None:
        command = [sys.executable, "manage.py", "runserver", "--noreload", f"127.0.0.1:{self.port}"]
        log = (self.state / "server.log").open("ab")
        self.process = subprocess.Popen(command, cwd=ROOT, env=self.environment, stdout=log, stderr=log)
        wait_until(self._answers, describe=lambda error: (self.state / "server.log").read_text())

    def _answers(self) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError((self.state / "server.log").read_text())
        with urllib.request.urlopen(self.url, timeout=WAIT_SECONDS):
            return True

    def kill(self) -> None:
        if self.process:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def end(self) -> None:
        self.kill()
        if self.stage:
            self.stage.stdin.close()
            self.stage.wait()
            self.stage = None


@pytest.fixture(scope="session")
def install(tmp_path_factory):
    """Make installations: the first takes a while, all others are copies of it."""
    ready = Server(tmp_path_factory.mktemp("installation"))
    ready.manage("migrate", "-v0")
    ready.manage("load_presets", "-v0")
    made = []

    def install_one(state: Path, **environment: str) -> Server:
        shutil.copytree(ready.state, state, dirs_exist_ok=True)
        made.append(Server(state, **environment))
        return made[-1]

    yield install_one
    for one in made:
        one.end()


@pytest.fixture
def server(install, tmp_path):
    """An installation that is one test's alone, not started yet."""
    made = install(tmp_path)
    yield made
    made.end()


@pytest.fixture(scope="session")
def site(install, tmp_path_factory):
    """The product as it is, for all tests that only bring visitors of their own."""
    made = install(tmp_path_factory.mktemp("site"), DAILY_RUN_LIMIT="0")
    made.start()
    return made


@pytest.fixture(scope="session")
def still(install, tmp_path_factory):
    """A place where nobody works on runs, so that each stands where the test has put it; and without guests."""
    made = install(tmp_path_factory.mktemp("still"), RUN_WORKER_THREADS="0", ALLOW_GUESTS="0")
    made.start()
    return made


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=WAIT_MS)
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(
            executable_path=CHROMIUM,
            env=os.environ | {"FONTCONFIG_FILE": str(_only_roboto(tmp_path_factory.mktemp("fonts")))},
            args=["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking",
                  "--disable-component-update", "--disable-sync", "--no-first-run"],
        )  # fmt: skip
        yield launched
        launched.close()


def _only_roboto(folder: Path) -> Path:
    """Write a fontconfig file for one font: the fonts of the machine must not decide how wide a page is."""
    config = folder / "fonts.conf"
    fonts = Path(font_roboto.__file__).parent
    config.write_text(f"<fontconfig><dir>{fonts}</dir><cachedir>{folder}</cachedir></fontconfig>")
    return config


@pytest.fixture
def open_page(browser):
    """Open pages of a new visitor, or of a member; none may have said anything on the console that was not expected."""
    opened = []

    def open_one(width=1280, height=800, member=None, expected=None, **options):
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        context.set_default_timeout(WAIT_MS)
        if member:
            sign_in(context, member)
        complaints = []

        def complain(words):
            if not (expected and re.search(expected, words)):
                complaints.append(words)

        context.on("console", lambda message: complain(message.text))
        context.on("weberror", lambda error: complain(str(error.error)))
        page = context.new_page()
        page.complaints = complaints
        opened.append(page)
        return page

    yield open_one
    said = [page.complaints for page in opened]
    for page in opened:
        page.context.close()
    assert said == [[] for _ in opened]


def sign_in(context, member):
    context.add_cookies([{"name": member["cookie"], "value": member["session"], "domain": "127.0.0.1", "path": "/"}])


# -- Clients of the API ----------------------------------------------------------------------------------------


@pytest.fixture
def app(client, catalogue, settings, monkeypatch):
    # Every test signs in anew, as the first user of a database; what the last one did does not count.
    settings.ACCOUNT_RATE_LIMITS = False
    rates = dict.fromkeys(("upload", "change", "poll"), "9999/min")
    monkeypatch.setattr(SimpleRateThrottle, "THROTTLE_RATES", rates)
    return App(client)


@pytest.fixture
def alices(app, alice):
    assert app.sign("login", "alice@example.com", "a-password-of-alice").status_code == 200
    return app


@pytest.fixture
def bobs(client, bob):
    made = App(type(client)())
    made.sign("login", "bob@example.com", "a-password-of-bob")
    return made


@pytest.fixture
def sent(alices):
    answer = alices("post", "photos", files={"photo": SimpleUploadedFile("me.jpg", small("portrait"))})
    assert answer.status_code == 201
    return answer.json()
