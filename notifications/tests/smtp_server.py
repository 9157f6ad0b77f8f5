"""A mail server on a real socket, as small as it can be: one that works, one that says no, and one that drips."""

from __future__ import annotations

import contextlib
import socketserver
import threading


class _Talk(socketserver.StreamRequestHandler):
    server: MailServer

    def handle(self) -> None:
        # Whoever hangs up in the middle is what some of the tests are about.
        with contextlib.suppress(OSError):
            self._drip() if self.server.drips else self._talk()

    def _drip(self) -> None:
        """Begin to greet, a byte now and then, and never come to an end."""
        while not self.server.over.wait(0.05):
            self.wfile.write(b"2")

    def _talk(self) -> None:
        self._say("220 here")
        while line := self.rfile.readline():
            word = line.split()[0].upper()
            if word == b"DATA":
                self._say("354 go on")
                lines = iter(self.rfile.readline, b".\r\n")
                self.server.mails.append(b"".join(lines))
            if word == b"RCPT" and self.server.refuses:
                self.server.refuses -= 1
                self._say(f"550 no {line.decode().strip()}")
                continue
            self._say("221 bye" if word == b"QUIT" else "250 fine")

    def _say(self, line: str) -> None:
        self.wfile.write(f"{line}\r\n".encode())


class MailServer(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def __init__(self, *, drips: bool = False, refuses: int = 0) -> None:
        super().__init__(("127.0.0.1", 0), _Talk)
        self.drips, self.refuses = drips, refuses
        self.mails: list[bytes] = []
        self.over = threading.Event()
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def stop(self) -> None:
        self.over.set()
        self.shutdown()
        self.server_close()
