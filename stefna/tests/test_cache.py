"""The cache while Redis is away, or so slow that it might as well be."""

import socket

import pytest
from django.test import override_settings
from django.urls import reverse

from stefna import cache as steady


@pytest.fixture(autouse=True)
def forgotten(monkeypatch):
    monkeypatch.setattr(steady._Absence, "until", 0.0)
    monkeypatch.setattr(steady._Absence, "logged_at", float("-inf"))


@pytest.fixture
def away():
    """A cache whose Redis nobody runs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return made(free.getsockname()[1])


def made(port):
    options = {"socket_timeout": 0.25, "socket_connect_timeout": 0.25}
    return steady.SteadyRedisCache(f"redis://127.0.0.1:{port}/0", {"OPTIONS": options})


def test_everything_works_while_redis_is_away(away, caplog):
    assert away.get("a") is None
    assert away.add("a", 1)
    assert not away.add("a", 2)
    assert away.incr("a") == 2
    assert away.get_or_set("b", 5) == 5
    away.set_many({"c": 1, "d": 2})
    assert away.get_many(["a", "c", "d", "e"]) == {"a": 2, "c": 1, "d": 2}
    assert away.has_key("c")
    assert away.touch("c", 100)
    away.delete_many(["c", "d"])
    assert away.delete("a")
    with pytest.raises(ValueError, match="a"):
        away.incr("a")
    away.clear()
    assert away.get("b") is None
    assert caplog.text.count("cache_away") == 1


def test_slow_redis_is_waited_for_once():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        slow = made(silent.getsockname()[1])
        for number in range(20):
            slow.set(f"key-{number}", number)
        assert slow.get("key-7") == 7
        silent.setblocking(False)
        silent.accept()
        with pytest.raises(BlockingIOError):
            silent.accept()


def test_pages_and_sign_in_limits_hold_without_redis(client, alice):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    caches = {
        "default": {
            "BACKEND": "stefna.cache.SteadyRedisCache",
            "LOCATION": f"redis://127.0.0.1:{port}/0",
            "OPTIONS": {"socket_timeout": 0.25, "socket_connect_timeout": 0.25},
        }
    }
    with override_settings(CACHES=caches):
        assert client.get("/").status_code == 200
        for number in range(6):
            wrong = {"login": "alice@example.com", "password": f"wrong-{number}"}
            assert client.post(reverse("account_login"), wrong).status_code < 500
        right = {"login": "alice@example.com", "password": "a-password-of-alice"}
        client.post(reverse("account_login"), right)
        assert "_auth_user_id" not in client.session
