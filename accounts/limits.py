"""How much one client address may ask for, whoever it says it is: the one function that pages and API count with.

The counts are kept by the cache: in Redis for all processes, without it for each process by itself.
"""

from __future__ import annotations

import ipaddress
import time
from enum import Enum

import structlog
from django.conf import settings
from django.core.cache import cache
from django.http import HttpRequest
from rest_framework.request import Request

from accounts.exceptions import LimitReached

log = structlog.get_logger("accounts")

MINUTE, HOUR, DAY = 60, 3600, 86_400
IPV6_PREFIX = 64
# Clients of a socket without addresses share one count.
UNKNOWN = "0.0.0.0"  # noqa: S104  (no address to listen on)


class Limit(Enum):
    """What is limited: the name of its setting, and for how many seconds a count is kept. Days are days of UTC."""

    GUESTS = ("GUESTS_PER_ADDRESS_DAILY", DAY)
    UPLOADS = ("UPLOADS_PER_ADDRESS_HOURLY", HOUR)
    PREVIEWS = ("PREVIEWS_PER_ADDRESS_MINUTE", MINUTE)
    RUNS = ("RUNS_PER_ADDRESS_DAILY", DAY)

    def __init__(self, setting: str, seconds: int) -> None:
        self.setting = setting
        self.seconds = seconds


def hit(request: HttpRequest | Request, limit: Limit, *, amount: int = 1) -> None:
    """Count a request of an address. Raises LimitReached, and then counts nothing."""
    most: int = getattr(settings, limit.setting)
    if not most:
        return
    now = time.time()
    key = _key(request, limit, now)
    cache.add(key, 0, limit.seconds)
    if _increase(key, amount) > most:
        _increase(key, -amount)
        log.warning("limit_hit", code=limit.setting.lower())
        raise LimitReached(retry_after=limit.seconds - now % limit.seconds)


def give_back(request: HttpRequest | Request, limit: Limit) -> None:
    """Uncount a request that was then not served."""
    if getattr(settings, limit.setting):
        _increase(_key(request, limit, time.time()), -1)


def _key(request: HttpRequest | Request, limit: Limit, now: float) -> str:
    return f"limit:{limit.name.lower()}:{int(now // limit.seconds)}:{client_network(request)}"


def _increase(key: str, amount: int) -> int:
    try:
        return cache.incr(key, amount)
    except ValueError:  # it has expired since it was made
        return amount


def client_network(request: HttpRequest | Request) -> str:
    """Return the client's address; of IPv6 its network, because the rest is the client's own choice.

    `TRUSTED_PROXIES` says which entry of X-Forwarded-For is the client's: what comes before it anybody may have sent.
    """
    entries = [entry.strip() for entry in request.META.get("HTTP_X_FORWARDED_FOR", "").split(",")]
    proxies: int = settings.TRUSTED_PROXIES
    given = entries[-proxies] if 0 < proxies <= len(entries) else ""
    try:
        address = ipaddress.ip_address(_without_port(given or request.META.get("REMOTE_ADDR", "")))
    except ValueError:
        return UNKNOWN
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address.packed, IPV6_PREFIX), strict=False).network_address)


def _without_port(address: str) -> str:
    """Some proxies name the client with its port."""
    if address.startswith("["):
        return address[1:].partition("]")[0]
    return address.partition(":")[0] if address.count(":") == 1 else address
