"""gunicorn as it serves an installation, in a process whose limits a test sets."""

import contextlib
import http.client
import resource
import subprocess
import sys
import time

from stefna.tests.conftest import ROOT

PRODUCTION = {
    "DEBUG": "0",
    "ALLOWED_HOSTS": "stefna.example",
    "TRUSTED_PROXIES": "1",
    "DJANGO_SETTINGS_MODULE": "stefna.tests.faults.production",
}
BEHIND_PROXY = {"Host": "stefna.example", "X-Forwarded-Proto": "https", "Referer": "https://stefna.example/"}


class Web:
    """gunicorn on an installation of its own, as production serves it behind a proxy."""

    def __init__(self, install, state, **environment):
        self.server = server = install(state, **PRODUCTION | environment)
        self.port = server.port
        environment = server.environment | {"PORT": str(server.port)}
        with (server.state / "web.log").open("ab") as log:
            command = [sys.executable, "-m", "gunicorn", "stefna.wsgi"]
            self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        until(lambda: self.get("/healthz/live") == 200)
        children = f"/proc/{self.process.pid}/task/{self.process.pid}/children"
        with open(children) as pids:
            self.worker = int(pids.read().split()[0])

    def limit(self, what, most):
        """Set a limit of the process that answers; None takes it away."""
        _, hard = resource.prlimit(self.worker, what)
        resource.prlimit(self.worker, what, (hard if most is None else most, hard))

    def ask(self, method, path, body=None, timeout=60, **headers):
        asked = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            # Who is refused before they have sent everything hears so only if they go on to listen.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                asked.request(method, path, body, BEHIND_PROXY | headers)
            answer = asked.getresponse()
            self.body = answer.read()
            self.headers = answer.headers
            return answer.status
        finally:
            asked.close()

    def get(self, path, **headers):
        try:
            return self.ask("GET", path, **headers)
        except OSError:
            return 0

    def post_photo(self, member, data, key="k", path="/api/v1/runs"):
        body = b"\r\n".join(
            [
                b'--x\r\nContent-Disposition: form-data; name="photo"; filename="a.jpg"',
                b"Content-Type: image/jpeg\r\n",
                data,
                b'--x\r\nContent-Disposition: form-data; name="preset"\r\n',
                b"duotone\r\n--x--\r\n",
            ]
        )
        headers = signed_in(member) | {"Idempotency-Key": key, "Content-Type": "multipart/form-data; boundary=x"}
        return self.ask("POST", path, body, **headers)

    def end(self):
        self.process.terminate()
        self.process.wait(60)


def signed_in(member):
    token = "c" * 32
    return {"Cookie": f"{member['cookie']}={member['session']}; csrftoken={token}", "X-CSRFToken": token}


def until(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)
