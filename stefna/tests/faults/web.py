"""gunicorn as it serves an installation, in a process whose limits a test sets."""

import http.client
import resource
import subprocess
import sys
import time

from stefna.tests.conftest import ROOT


class Web:
    """gunicorn on an installation of its own, as it is served."""

    def __init__(self, server, **environment):
        self.server = server
        self.port = server.port
        environment = server.environment | {"GUNICORN_CMD_ARGS": f"--bind 127.0.0.1:{self.port}"} | environment
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
            asked.request(method, path, body, headers)
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
