"""gunicorn as it serves an installation, in a process whose limits a test sets."""

import contextlib
import http.client
import resource
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

from stefna.tests.conftest import ROOT
from stefna.tests.faults import files
from stefna.tests.waiting import WAIT_SECONDS, wait_until

PRODUCTION = {
    "DEBUG": "0",
    "ALLOWED_HOSTS": "stefna.example",
    "TRUSTED_PROXIES": "1",
    "DJANGO_SETTINGS_MODULE": "stefna.tests.faults.production",
}
BEHIND_PROXY = {"Host": "stefna.example", "X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.9"}


class Web:
    """gunicorn on an installation of its own, as production serves it behind a proxy."""

    def __init__(self, install, state, **environment):
        self.server = server = install(state, **PRODUCTION | environment)
        self.port = server.port
        environment = server.environment | {"PORT": str(server.port)}
        with (server.state / "web.log").open("ab") as log:
            command = [sys.executable, "-m", "gunicorn", "stefna.wsgi"]
            self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        wait_until(lambda: self.status("/healthz/live") == 200)

    @property
    def worker(self):
        """The number of the process that answers: gunicorn puts another in its place when it has ended."""
        return children_of(self.process.pid)[0]

    @property
    def image_processes(self):
        return [process for template in children_of(self.worker) for process in children_of(template)]

    @contextlib.contextmanager
    def limited(self, what, most):
        """Set a limit of the process that answers, for a while."""
        worker = self.worker
        before = resource.prlimit(worker, what)
        resource.prlimit(worker, what, (most, before[1]))
        try:
            yield
        finally:
            # It may have ended of it.
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(worker, what, before)

    def ask(self, method, path, body=None, *, timeout=WAIT_SECONDS, **headers):
        """Send a request as the proxy hands it on. Raises OSError where there is no answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        with contextlib.closing(connection):
            # Who is refused before they have sent everything hears so only if they go on to listen.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.request(method, path, body, BEHIND_PROXY | headers)
            answer = connection.getresponse()
            return SimpleNamespace(status=answer.status, headers=answer.headers, text=answer.read().decode())

    def status(self, path, **headers):
        """Return how a page is answered; 0 for not at all."""
        try:
            return self.ask("GET", path, **headers).status
        except OSError:
            return 0

    def post_photo(self, member, data, key="k"):
        ours = {"Idempotency-Key": key, "Content-Type": files.FORM}
        return self.ask("POST", "/api/v1/runs", form(data), **signed_in(member) | ours)

    def log(self):
        return (self.server.state / "web.log").read_text()

    def end(self):
        self.process.terminate()
        self.process.wait(WAIT_SECONDS)


def children_of(pid):
    """Return the processes that any thread of a process has started."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def form(data):
    """Return what asks for a run of a photo."""
    return files.form(files.file(data), files.part("preset", b"duotone"))


def signed_in(member):
    """Return the headers of a member's browser that sends a form of ours."""
    token = "c" * 32
    cookies = f"{member['cookie']}={member['session']}; csrftoken={token}"
    return {"Cookie": cookies, "X-CSRFToken": token, "Referer": "https://stefna.example/"}
