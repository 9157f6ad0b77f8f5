"""One guarded call to somebody else's server: a deadline on the clock, a cap on size, no address that is not public.

`requests` and the Cloudinary SDK limit single socket operations only, so a server that sends a byte a second holds them
for ever. Here every read and write also respects the deadline of the call, through the connections that both use.
"""

import http.client
import io
import ipaddress
import re
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
import structlog
import urllib3
from django.conf import settings
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, NewConnectionError
from urllib3.util.connection import create_connection
from urllib3.util.url import parse_url

log = structlog.get_logger("generation")

REDIRECTS = (301, 302, 303, 307, 308)
MAX_REDIRECTS = 3
# Letters, digits and signs that an address may have as they are; no blanks, backslashes, quotes or other scripts.
PLAIN_ADDRESS = re.compile(r"https?://[a-z0-9.:-]+([/?][A-Za-z0-9\-._~!$&'()*+,;=:@/?%]*)?")
ESCAPE = re.compile("%[0-9A-Fa-f]{2}")
# A name of the domain name system whose last part is no number: addresses have no name, however they are written.
NAME = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?")
_deadline: ContextVar[float] = ContextVar("deadline")


class CallFailed(Exception):
    """A call did not give an answer. `sent` says whether the server may have acted on it."""

    def __init__(self, reason: str, *, sent: bool) -> None:
        super().__init__(reason)
        self.sent = sent


class TooLarge(Exception):
    """The answer is larger than allowed."""


class AddressBlocked(Exception):
    """The address is not one that we fetch from: wrong scheme, host or port, or not public."""


@dataclass(frozen=True)
class Limits:
    """Seconds to connect, between two bytes, and for the whole call; the most bytes of an answer."""

    connect: float
    read: float
    whole: float
    most_bytes: int = 5_000_000


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


def post_json(url: str, payload: Mapping[str, Any], *, headers: Mapping[str, str], limits: Limits) -> Answer:
    """Post once. Raises CallFailed and TooLarge; any status is an answer."""
    return _call("POST", url, limits, json=payload, headers=headers)


def get(url: str, *, limits: Limits) -> Answer:
    """Get once from an address that the owner configured. Raises CallFailed and TooLarge."""
    return _call("GET", url, limits)


def fetch_public(url: str, *, hosts: list[str], limits: Limits) -> Answer:
    """Get a picture from an address that somebody else chose; redirects are followed only to addresses as good.

    Raises AddressBlocked before any connection, CallFailed and TooLarge.
    """
    until = time.monotonic() + limits.whole
    for _ in range(MAX_REDIRECTS + 1):
        _check_url(url, hosts)
        rest = Limits(limits.connect, limits.read, until - time.monotonic(), limits.most_bytes)
        answer = _call("GET", url, rest, to_anybody=True)
        if answer.status not in REDIRECTS:
            return answer
        url = _next(url, answer.headers.get("Location", ""))
    raise CallFailed("too many redirects", sent=True)


def _next(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError as error:
        raise AddressBlocked("not an address") from error


def is_private_allowed(host: str, port: int) -> bool:
    """Say whether the owner allows this exact host and port on a private network (tests do)."""
    return f"{host}:{port}" in settings.UPSTREAM_PRIVATE_HOSTS


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Bound all that is sent and received inside, over connections of this module, by the clock."""
    token = _deadline.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _deadline.reset(token)


def _call(method: str, url: str, limits: Limits, *, to_anybody: bool = False, **options: Any) -> Answer:
    with deadline(limits.whole):
        try:
            with _session(to_anybody).request(
                method, url, timeout=(limits.connect, limits.read), stream=True, allow_redirects=False, **options
            ) as response:
                return Answer(response.status_code, response.headers, _body(response, limits.most_bytes))
        except (requests.RequestException, HTTPError, OSError, http.client.HTTPException) as error:
            raise CallFailed(_reason(error), sent=not _is_unsent(error)) from error


def _body(response: requests.Response, most_bytes: int) -> bytes:
    chunks, size = [], 0
    for chunk in response.iter_content(65_536):
        size += len(chunk)
        if size > most_bytes:
            raise TooLarge
        chunks.append(chunk)
    return b"".join(chunks)


def _is_unsent(error: BaseException) -> bool:
    """Say whether the trouble came while connecting: then nothing can have been done, or billed."""
    if isinstance(error, requests.exceptions.SSLError | requests.exceptions.InvalidURL | requests.ConnectTimeout):
        return True
    cause = error.args[0] if error.args else None
    return isinstance(getattr(cause, "reason", cause), NewConnectionError | urllib3.exceptions.ConnectTimeoutError)


def _reason(error: BaseException) -> str:
    """Name the kind of trouble; messages of libraries may hold addresses with signatures."""
    cause = error.args[0] if error.args else None
    return type(getattr(cause, "reason", None) or error).__name__


def _check_url(url: str, hosts: list[str]) -> None:
    """Raise AddressBlocked unless this is exactly how a picture's address is written that we fetch from.

    Libraries read odd addresses in different ways, and one that two of them read differently leads where nobody has
    looked. So only what urllib3, which connects, reads and writes as it stands is an address at all.
    """
    if not PLAIN_ADDRESS.fullmatch(url):
        raise AddressBlocked("not an address")
    try:
        parts, other = parse_url(url), urlsplit(url)
        seen = (other.scheme, other.hostname, other.port)
    except (HTTPError, ValueError) as error:
        raise AddressBlocked("not an address") from error
    host = parts.host or ""
    # Some write %2f where urllib3 writes %2F; that is the same.
    if (
        parts.url != ESCAPE.sub(lambda found: found[0].upper(), url)
        or seen != (parts.scheme, host, parts.port)
        or parts.auth is not None
    ):
        raise AddressBlocked("not an address")
    if is_private_allowed(host, parts.port or 443):
        return
    if parts.scheme != "https" or parts.port not in (None, 443):
        raise AddressBlocked("scheme or port")
    if not NAME.fullmatch(host) or not any(_is_of(host, suffix) for suffix in hosts):
        raise AddressBlocked("host")


def _is_of(host: str, suffix: str) -> bool:
    domain = suffix.strip(".").lower()
    return host == domain or host.endswith(f".{domain}")


# -- Connections that know the deadline of their call ---------------------------------------------------------


def _left(most: float | None) -> float:
    """Seconds that the next operation may take. Raises TimeoutError when the deadline has passed."""
    left = _deadline.get(float("inf")) - time.monotonic()
    if left <= 0:
        raise TimeoutError("the deadline of the call has passed")
    return min(left, most) if most else left


class _TimedReader(io.RawIOBase):
    """Reads from a socket, each time for no longer than the call has left."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket) -> None:
        self._raw, self._sock, self._most = raw, sock, sock.gettimeout()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = _left(self._most)
        self._sock.settimeout(None if left == float("inf") else left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _TimedResponse(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self.fp = io.BufferedReader(_TimedReader(self.fp.detach(), sock))


class _TimedConnection(HTTPConnection):
    response_class = _TimedResponse

    def send(self, data: Any) -> None:
        if self.sock is not None:
            left = _left(self.timeout)
            self.sock.settimeout(None if left == float("inf") else left)
        super().send(data)


class _TimedHTTPSConnection(_TimedConnection, HTTPSConnection):
    pass


class _PublicConnection(_TimedConnection):
    """Connects only to public addresses, and to the very address that was looked up and found public."""

    def _new_conn(self) -> socket.socket:
        port = self.port or 443
        try:
            found = socket.getaddrinfo(self._dns_host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise NewConnectionError(self, "the name does not resolve") from error
        addresses = [str(entry[4][0]) for entry in found]
        if not is_private_allowed(self.host, port) and not all(_is_public(address) for address in addresses):
            raise AddressBlocked("address")
        for number, address in enumerate(addresses, start=1):
            try:
                return create_connection((address, port), self.timeout, socket_options=self.socket_options)
            except OSError as error:
                if number == len(addresses):
                    raise NewConnectionError(self, "no connection") from error
        raise NewConnectionError(self, "no address")


class _PublicHTTPSConnection(_PublicConnection, HTTPSConnection):
    pass


def _is_public(address: str) -> bool:
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        # Addresses that only wrap an IPv4 one are as public as that is.
        ip = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None) or ip
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


Connections = tuple[type[HTTPConnection], type[HTTPConnection]]
_TIMED: Connections = (_TimedConnection, _TimedHTTPSConnection)
_PUBLIC: Connections = (_PublicConnection, _PublicHTTPSConnection)


def pool_manager(connections: Connections = _TIMED, **options: Any) -> urllib3.PoolManager:
    """Make a urllib3 pool whose connections respect `deadline`."""
    manager = urllib3.PoolManager(**options)
    manager.pool_classes_by_scheme = {
        "http": type("HTTPPool", (urllib3.HTTPConnectionPool,), {"ConnectionCls": connections[0]}),
        "https": type("HTTPSPool", (urllib3.HTTPSConnectionPool,), {"ConnectionCls": connections[1]}),
    }
    return manager


class _Adapter(HTTPAdapter):
    """Hands a pool's connections to requests, and leaves all retrying to us."""

    def __init__(self, connections: Connections = _TIMED) -> None:
        self._connections = connections
        super().__init__(pool_maxsize=64, max_retries=0)

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **options: Any) -> None:
        self.poolmanager = pool_manager(self._connections, maxsize=maxsize, block=block, **options)


@cache
def _session(to_anybody: bool) -> requests.Session:
    """Make one session for all threads; `to_anybody` connects to public addresses only."""
    session = requests.Session()
    # Neither a proxy nor a .netrc of the machine may change where a call goes or with which key; and no answer may
    # leave a cookie for the next call, which is somebody else's.
    session.trust_env = False
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    for scheme in ("http://", "https://"):
        session.mount(scheme, _Adapter(_PUBLIC if to_anybody else _TIMED))
    return session
