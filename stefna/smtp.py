"""Django's way to send mail, with a limit on the whole conversation: a server that drips is cut off too."""

from __future__ import annotations

import contextlib
import smtplib
import socket
import threading
from typing import Any

from django.conf import settings
from django.core.mail.backends.smtp import EmailBackend as DjangoBackend


class Limited(smtplib.SMTP):
    """EMAIL_TIMEOUT is for each read; a byte every nine seconds would keep within it for hours."""

    _cutter: threading.Timer | None = None

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        connected: socket.socket = super()._get_socket(host, port, timeout)  # type: ignore[misc]
        # A second handle on the same connection: the first becomes another object when TLS begins.
        handle = connected.dup()
        self._cutter = threading.Timer(settings.EMAIL_CALL_SECONDS, _cut, [handle])
        self._cutter.daemon = True
        self._cutter.start()
        self._handle = handle
        return connected

    def close(self) -> None:
        super().close()
        if self._cutter:
            self._cutter.cancel()
            self._handle.close()


def _cut(handle: socket.socket) -> None:
    # It may have been closed a moment ago.
    with handle, contextlib.suppress(OSError):
        handle.shutdown(socket.SHUT_RDWR)


class LimitedSSL(smtplib.SMTP_SSL, Limited):
    """In this order, so that the limit begins before TLS does."""


class EmailBackend(DjangoBackend):
    @property
    def connection_class(self) -> Any:
        return LimitedSSL if self.use_ssl else Limited
