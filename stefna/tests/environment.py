"""Fix the environment of the test run before Django reads it: no key, no .env, nothing in the checkout.

A pytest plugin, named in pyproject.toml, because settings are read before any conftest.py is.
"""

import os
import tempfile

STATE_DIR = tempfile.mkdtemp(prefix="stefna-tests-")

os.environ.update(
    ENV_FILE=os.devnull,
    STATE_DIR=STATE_DIR,
    DEBUG="1",
    SECRET_KEY="only-for-tests-" + "0" * 40,
    ALLOW_GUESTS="1",
    EMAIL_URL="memorymail://",
    DATABASE_URL=f"sqlite:///{STATE_DIR}/db.sqlite3",
)
for name in ("MEDIA_ROOT", "DAILY_RUN_LIMIT", "MAX_ACTIVE_RUNS", "MAX_PHOTO_BYTES", "ALLOWED_HOSTS"):
    os.environ.pop(name, None)
