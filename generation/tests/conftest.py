"""The production path in tests: the real SDK and requests, talking over a socket to a stand-in for both services."""

import os

import cloudinary
import pytest

from stefna.tests.standin import Upstreams


@pytest.fixture(scope="session")
def standin():
    made = Upstreams().start()
    yield made
    made.stop()


@pytest.fixture
def upstreams(standin, settings, monkeypatch):
    """Cloudinary keeps the pictures and AIML makes them, with pauses that a test can wait for."""
    standin.reset()
    environment = standin.environment()
    monkeypatch.setitem(os.environ, "CLOUDINARY_URL", environment["CLOUDINARY_URL"])
    cloudinary.reset_config()
    settings.STORAGES = settings.STORAGES | {
        "default": {"BACKEND": "generation.providers.cloudinary.CloudinaryStorage"}
    }
    settings.UPSTREAM_PRIVATE_HOSTS = [standin.host]
    # A key of its own for each test: circuits are remembered by endpoint.
    key = f"key-{os.urandom(8).hex()}"
    settings.AIML_API_KEY, settings.AIML_API_BASE, settings.AIML_ENDPOINTS = key, standin.url, []
    settings.AIML_RETRY_BASE_MS, settings.AIML_RETRY_CAP_MS = 10, 40
    yield standin
    monkeypatch.undo()
    cloudinary.reset_config()
