"""The files of an installation are its own user's, whatever the umask, and one of before is repaired."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from stefna import private

ROOT = Path(__file__).parents[2]
UPLOAD = """
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
print(default_storage.save("photos/ab/one.jpg", ContentFile(b"x")))
"""


def manage(state, *arguments):
    kept = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    done = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT,
        env=kept | {"STATE_DIR": str(state)},
        umask=0o022,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout


def modes(folder):
    """Return the rights of a folder and of all that is in it."""
    return {path: stat.S_IMODE(path.stat().st_mode) for path in [folder, *folder.rglob("*")]}


def test_new_installation_is_private_whatever_the_umask(tmp_path):
    state = tmp_path / "installation"
    manage(state, "migrate", "-v0")
    manage(state, "shell", "--no-imports", "-c", UPLOAD)
    found = modes(state)
    assert {mode for path, mode in found.items() if path.is_dir()} == {0o700}
    assert found[state / "db.sqlite3"] == found[state / "media/photos/ab/one.jpg"] == 0o600


def test_installation_of_before_is_repaired(tmp_path):
    state = tmp_path / "installation"
    manage(state, "migrate", "-v0")
    (state / "secret").write_text("x" * 50)
    (state / "media/photos/ab").mkdir(parents=True)
    (state / "media/photos/ab/one.jpg").write_bytes(b"x")
    for path in [state, *state.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    said = manage(state, "prepare")
    assert "Took the rights of others away" in said
    assert {mode for path, mode in modes(state).items() if path.is_dir()} == {0o700}
    assert modes(state)[state / "db.sqlite3"] == modes(state)[state / "secret"] == 0o600
    assert modes(state)[state / "media/photos/ab/one.jpg"] == 0o600
    assert "Took the rights" not in manage(state, "prepare")


@pytest.mark.parametrize("shared", [True, False])
def test_folder_that_is_everybodys_and_links_are_left_alone(tmp_path, shared):
    outside = tmp_path / "outside"
    outside.write_text("x")
    outside.chmod(0o644)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "link").symlink_to(outside)
    (folder / "file").write_text("x")
    (folder / "file").chmod(0o644)
    folder.chmod(0o1777 if shared else 0o755)
    assert private.repair(folders=[folder], files=[folder, tmp_path / "nothing"]) == (0 if shared else 2)
    assert modes(outside)[outside] == 0o644
