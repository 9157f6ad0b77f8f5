"""The hand on the stand-in of Cloudinary and the AIML API (see upstreams.py), for tests and benchmarks."""

import http.client
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

from stefna.tests.waiting import WAIT_SECONDS


class Upstreams:
    """One stand-in process. Targets are aiml, result, upload, destroy, admin (ping and listing) and delivery."""

    process: subprocess.Popen[bytes]
    port: int

    def start(self) -> Self:
        # By path and not by -m, which would import the product and all that it needs.
        command = [sys.executable, "-P", str(Path(__file__).with_name("upstreams.py"))]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout
        # A process that cannot start closes its output: this does not wait for ever.
        self.port = json.loads(self.process.stdout.readline())["port"]
        return self

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    def environment(self) -> dict[str, str]:
        """What to set so that Stefna takes this for Cloudinary and the AIML API."""
        # No `secure=false`: a query value is a string, and "false" is true.
        options = f"upload_prefix={self.url}&cname={self.host}"
        return {
            "CLOUDINARY_URL": f"cloudinary://standin-key:standin-secret@demo?{options}",
            "AIML_API_KEY": "standin-aiml-key",
            "AIML_API_BASE": self.url,
            "UPSTREAM_PRIVATE_HOSTS": self.host,
        }

    def script(self, target: str, *steps: dict[str, Any], repeat_last: bool = False) -> None:
        """Say what the next calls do, a step each; the last one for ever with `repeat_last`. No step: as usual."""
        self._control("POST", "script", target=target, steps=steps, repeat_last=repeat_last)

    def down(self, target: str, status: int | None = 503) -> None:
        """Begin an outage, which uses up no steps, or end it with None."""
        self._control("POST", "down", target=target, status=status)

    def defaults(self, **values: Any) -> None:
        """Set `instant` (a fixed result, no photo fetched) and `<target>_delay` (seconds)."""
        self._control("POST", "defaults", **values)

    def calls(self, target: str) -> list[dict[str, Any]]:
        """Tell of each call: at and ended (as time.monotonic()), path, headers (lower case), fields, and file."""
        return self._control("GET", f"calls?target={target}")

    def counts(self) -> dict[str, dict[str, int]]:
        """Count by target: calls, in_flight, most_in_flight."""
        return self._control("GET", "counts")

    def stored(self) -> list[dict[str, Any]]:
        """List what Cloudinary holds: public_id, type, bytes."""
        return self._control("GET", "stored")

    def reset(self) -> None:
        self._control("POST", "reset")

    def _control(self, method: str, what: str, **values: Any) -> Any:
        # Neither urllib nor requests: a proxy of the machine has no part in this.
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_SECONDS)
        try:
            connection.request(method, f"/_control/{what}", json.dumps(values), {"Connection": "close"})
            response = connection.getresponse()
            answer = json.loads(response.read())
        finally:
            connection.close()
        if response.status != 200:
            raise ValueError(answer["message"])
        return answer
