"""The cache while Redis is away, or so slow that it might as well be."""

import socket
from pathlib import Path

import pytest
from django.core.cache import caches
from django.test import override_settings
from django.urls import reverse

from generation import showing
from generation.models import Preset
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


# -- Previews -------------------------------------------------------------------------------------------------


@pytest.fixture
def previews(tmp_path):
    """A cache of previews, with room for a hundred."""
    return steady.PreviewCache(str(tmp_path / "small"), {"OPTIONS": {"MAX_ENTRIES": 100}})


def test_previews_evict_no_counter_of_sign_ins(client, alice, settings):
    def sign_in(password):
        client.post(reverse("account_login"), {"login": "alice@example.com", "password": password})
        return "_auth_user_id" in client.session

    assert not any(sign_in(f"wrong-{number}") for number in range(6))
    for number in range(5000):
        caches[showing.PREVIEWS].set(f"sketch:{number}", b"x" * 1000, showing.SKETCH_SECONDS)
    assert not sign_in("a-password-of-alice"), "the limit was forgotten"
    most = settings.CACHES["previews"]["OPTIONS"]["MAX_ENTRIES"]
    assert len(list(Path(settings.CACHES["previews"]["LOCATION"]).iterdir())) <= most


@pytest.mark.django_db
def test_pages_put_no_pictures_among_the_counters(client, catalogue, settings):
    assert client.post(reverse("sketch"), {"sample": "coffee"}).getvalue()
    assert client.get(reverse("preset_sheet")).status_code == 200
    folder = Path(settings.CACHES["previews"]["LOCATION"])
    assert len(list(folder.iterdir())) > Preset.objects.active().count()
    # Redis aside, whose entries nobody can list: nothing large is in the other cache.
    prefix = settings.CACHES["default"]["KEY_PREFIX"]
    entries = getattr(caches["default"], "_cache", None)
    mine = [value for key, value in entries.items() if prefix in key] if isinstance(entries, dict) else []
    assert all(len(value) < 1000 for value in mine)


def test_size_on_disk_is_bounded(previews, tmp_path):
    for number in range(1000):
        previews.set(f"sketch:{number}", bytes(1000))
        assert len(list((tmp_path / "small").iterdir())) <= 100
    assert previews.get("sketch:999") == bytes(1000)


def test_files_of_previews_are_their_owners(previews, tmp_path):
    previews.set("sketch", b"x")
    (file,) = (tmp_path / "small").iterdir()
    assert [oct(path.stat().st_mode & 0o777) for path in (tmp_path / "small", file)] == ["0o700", "0o600"]


@pytest.mark.parametrize("damage", [b"", b"x", b"\x80\x05\x95", bytes(100), None])
def test_damaged_file_is_no_entry(previews, tmp_path, damage):
    previews.set("sketch", b"x" * 100)
    (file,) = (tmp_path / "small").iterdir()
    # None: the disk was full before the end.
    file.write_bytes(file.read_bytes()[:-8] if damage is None else damage)
    assert previews.get_many(["sketch"]) == {}


@pytest.mark.django_db
def test_disk_that_fails_is_no_error_of_the_page(client, catalogue, settings, caplog, monkeypatch):
    monkeypatch.setattr(steady.PreviewCache, "_logged_at", float("-inf"))
    folder = Path(settings.CACHES["previews"]["LOCATION"])
    folder.write_bytes(b"a file where the folder should be")
    try:
        for _ in range(2):
            answer = client.post(reverse("sketch"), {"sample": "coffee"})
            assert len(answer.getvalue().splitlines()) == Preset.objects.active().count()
        assert client.get(reverse("preset_sheet")).status_code == 200
        assert caplog.text.count("preview_cache_failed") == 1
    finally:
        folder.unlink()


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
