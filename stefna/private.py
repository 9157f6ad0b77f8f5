"""Files that only the service's own user may read: the database, the secret, photos and results."""

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

FOLDER_MODE, FILE_MODE = 0o700, 0o600
# SQLite keeps these beside its database, with the rights that the database had when they were made.
BESIDE = ("", "-wal", "-shm", "-journal")


def make_folder(path: Path) -> None:
    """Make a folder that nobody else may enter. One that is there keeps its rights until `repair`."""
    path.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)


def make_file(path: Path) -> None:
    """Make an empty file that nobody else may read, before a library makes it with the rights that it likes."""
    if not path.exists() and os.access(path.parent, os.W_OK):
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, FILE_MODE))


def repair(*, folders: Iterable[Path], files: Iterable[Path]) -> int:
    """Take the rights of others away, in folders with all that is in them; return how many were changed.

    Left alone are folders that are everybody's, like /tmp, and what belongs to another user.
    """
    found = [path for folder in folders if not _is_shared(folder) for path in _with_contents(folder)]
    return sum(_restrict(path) for path in [*found, *files])


def _with_contents(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        return
    yield folder
    for parent, names, files in os.walk(folder):
        yield from (Path(parent, name) for name in [*names, *files])


def _is_shared(folder: Path) -> bool:
    return folder.is_dir() and bool(folder.stat().st_mode & stat.S_ISVTX)


def _restrict(path: Path) -> bool:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return False  # ended between the look and now, as a log of SQLite does
    if stat.S_ISLNK(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & stat.S_ISVTX:
        return False
    mode = FOLDER_MODE if stat.S_ISDIR(status.st_mode) else FILE_MODE
    if stat.S_IMODE(status.st_mode) == mode:
        return False
    path.chmod(mode)
    return True
