"""`manage.py check` as an owner runs it, in a process and an environment of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PRODUCTION = {
    "SECRET_KEY": "k" * 25 + "0123456789abcdefghijklmnopqrstuvwxyz",
    "ALLOWED_HOSTS": "stefna.example",
    "CSRF_TRUSTED_ORIGINS": "https://stefna.example",
    "TRUSTED_PROXIES": "1",
    "DATABASE_URL": "postgres://stefna@127.0.0.1/stefna",
    "REDIS_URL": "redis://127.0.0.1:6379/0",
    "CELERY_BROKER_URL": "amqp://guest:guest@127.0.0.1/",
    "CLOUDINARY_URL": "cloudinary://key:secret@cloud",
    "AIML_API_KEY": "aiml-key",
    "EMAIL_URL": "smtp://mail.example:25",
    "SITE_URL": "https://stefna.example",
}


def check(tmp_path, **changes):
    """Run the checks of a deployment with some variables changed, or left out by None."""
    environment = {name: value for name, value in (PRODUCTION | changes).items() if value is not None}
    environment |= {"STATE_DIR": str(tmp_path), "ENV_FILE": "/dev/null", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout + done.stderr


def test_production_environment_is_clean(tmp_path):
    assert check(tmp_path) == (0, "System check identified no issues (0 silenced).\n")


HALF_SET = {
    "left out": {
        "CLOUDINARY_URL": (None, "AIML is set and Cloudinary is not."),
        "REDIS_URL": (None, "Each process counts throttles"),
        "EMAIL_URL": (None, "Nobody receives e-mails"),
        "DATABASE_URL": (None, "Workers of a queue engine share an SQLite file."),
    },
    "incomplete": {
        "CLOUDINARY_URL": ("cloudinary://key@cloud", "CLOUDINARY_URL is incomplete."),
        "AIML_ENDPOINTS": ("https://one.example|key|2,https://two.example", "AIML_ENDPOINTS entry 2 is incomplete."),
        "SITE_URL": ("stefna.example", "Links in e-mails lead to stefna.example."),
        "GOOGLE_CLIENT_ID": ("id", "Sign-in with Google is set by halves."),
        "APPLE_CLIENT_ID": ("id", "Set APPLE_TEAM_ID, APPLE_KEY_ID, APPLE_PRIVATE_KEY as well"),
        "METRICS_TOKEN": ("short", "METRICS_TOKEN is short enough to be guessed."),
        "SECRET_KEY": ("short", "Your SECRET_KEY has less than 50 characters"),
    },
    "not for production": {
        "CLOUDINARY_CLOUD_NAME": ("cloud", "CLOUDINARY_CLOUD_NAME is set beside CLOUDINARY_URL."),
        "UPSTREAM_PRIVATE_HOSTS": ("127.0.0.1:9", "UPSTREAM_PRIVATE_HOSTS opens addresses"),
        "SITE_URL": (None, "Links in e-mails lead to http://127.0.0.1:8000."),
        "AIML_API_BASE": ("http://aiml.example", "The AIML key would travel without encryption."),
    },
    "another's name": {"ALLOWED_HOSTS": ("other.example", "Pages at https://stefna.example would be refused.")},
    "a developer's": {"DEBUG": ("1", "You should not have DEBUG set to True")},
}


@pytest.mark.parametrize("kind", HALF_SET)
def test_half_set_installation_is_told(tmp_path, kind):
    code, said = check(tmp_path, **{name: value for name, (value, _) in HALF_SET[kind].items()})
    assert code == 1
    assert [sentence for _, sentence in HALF_SET[kind].values() if sentence not in said] == []
    assert (
        "secret"
        not in said.replace("cloudinary://KEY:SECRET@CLOUD", "")
        .replace("SECRET_KEY", "")
        .replace("CLIENT_SECRET", "")
        .lower()
    )


def test_environment_file_that_is_not_there_is_named(tmp_path):
    environment = {"ENV_FILE": str(tmp_path / "no-such-file")}
    done = subprocess.run(
        [sys.executable, "manage.py", "check"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.endswith(f"ENV_FILE is {tmp_path}/no-such-file, which cannot be read.\n")
