"""Fix the environment of the test run before Django reads it: no key, no .env, nothing in the checkout.

A pytest plugin, named in pyproject.toml, because settings are read before any conftest.py is.
"""

import os
import re
import tempfile
from pathlib import Path

STATE_DIR = tempfile.mkdtemp(prefix="stefna-tests-")

# Of the machine's services, tests use the database and the cache as everything does. A worker would take the runs of
# tests that work on them themselves, so the broker is for those alone that start one. Processes that pytest starts
# find it under its other name.
TEST_BROKER_URL = os.environ.setdefault("TEST_BROKER_URL", os.environ.pop("CELERY_BROKER_URL", ""))
SERVICES = bool(TEST_BROKER_URL) and os.environ.get("DATABASE_URL", "").startswith("postgres")
os.environ.setdefault("DATABASE_URL", f"sqlite:///{STATE_DIR}/db.sqlite3")
kept = {"DATABASE_URL", "REDIS_URL"}
ours = (Path(__file__).parents[2] / ".env.example").read_text()
for name in set(re.findall(r"^#?([A-Z_]+)=", ours, re.MULTILINE)) - kept:
    os.environ.pop(name, None)
os.environ.update(
    ENV_FILE=os.devnull,
    STATE_DIR=STATE_DIR,
    DEBUG="1",
    SECRET_KEY="only-for-tests-" + "0" * 40,
    ALLOW_GUESTS="1",
    EMAIL_URL="memorymail://",
)
