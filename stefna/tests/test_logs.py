"""What stands in the log when something breaks: where, but not what the variables held."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = """
import structlog
def sign_in(password):
    raise ValueError("no")
try:
    sign_in("canary-password")
except ValueError:
    structlog.get_logger("generation").exception("generation_crashed", run_id="r1")
"""


@pytest.mark.parametrize("form", ["json", "text"])
def test_traceback_names_places_and_no_values(form, tmp_path):
    done = subprocess.run(
        [sys.executable, "manage.py", "shell", "--no-imports", "-c", CODE],
        cwd=ROOT,
        env=os.environ | {"LOG_FORMAT": form, "STATE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    said = done.stdout + done.stderr
    assert "generation_crashed" in said
    assert "sign_in" in said
    assert "ValueError" in said
    # The line that called it is shown by the text form, as written in the code; the value of a variable never is.
    assert said.count("canary-password") == 0
