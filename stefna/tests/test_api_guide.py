"""docs/api-guide.md, done as it says: every command of it, in one shell, against a server of its own."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from stefna.tests.waiting import WAIT_SECONDS

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not (shutil.which("curl") and shutil.which("jq")), reason="the guide needs curl and jq")
def test_every_command_of_the_guide_works(server, tmp_path):
    server.start()
    guide = (ROOT / "docs" / "api-guide.md").read_text()
    script = "\n".join(re.findall(r"^```sh\n(.*?)^```", guide, re.MULTILINE | re.DOTALL))
    # -e ends the shell at the first command that fails, and so does a failing part of a pipe.
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-x", "-c", script],
        cwd=ROOT,
        env=os.environ | {"BASE": server.url, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (result,) = tmp_path.rglob("result.webp")
    assert result.read_bytes()[8:12] == b"WEBP"
