"""Public corpora of odd and broken pictures, sent to the door: each is a photo, or is refused in our own words.

The corpora are the test pictures of other projects, from the registries that `pip` and `apt-get` are set up for; what
was downloaded once is kept in `.stefna/corpora`. Each file is posted to the API, where `photos.accept` is watched; one
that is too small for a photo goes through `accept_result` too, since only that decodes it. All in a child process whose
address space is limited, so that a crash, a hang or a bomb is the child's end and not ours.

Run it as `python -m benchmarks.corpus [NAME…]`; it ends with 1 when something broke or nothing could be downloaded.
"""

import ctypes
import itertools
import json
import os
import re
import resource
import select
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

folder = tempfile.mkdtemp(prefix="corpus")
os.environ |= {"ENV_FILE": os.devnull, "STATE_DIR": folder, "SECRET_KEY": "bench", "DEBUG": "0", "LOG_FORMAT": "text"}
os.environ |= {"DJANGO_SETTINGS_MODULE": "stefna.settings", "ALLOWED_HOSTS": "testserver", "CLOUDINARY_URL": ""}
os.environ |= {"DATABASE_URL": f"sqlite:///{folder}/db.sqlite3", "REDIS_URL": ""}

import django  # noqa: E402

django.setup()

from django.core.files.uploadedfile import SimpleUploadedFile  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connections  # noqa: E402
from django.test import Client  # noqa: E402

from accounts.models import User  # noqa: E402
from benchmarks import report  # noqa: E402
from generation import photos  # noqa: E402
from generation.exceptions import PhotoError, ResultInvalid  # noqa: E402
from generation.images import provenance  # noqa: E402
from generation.models import Photo  # noqa: E402

# The largest photo that we take has 40 MP of 4 bytes, and is there twice while its pixels are converted: 320 MB. A HEIC
# of 33 MP and 10 bits, which a camera makes, takes nearly twice that in libheif. Nothing else may need so much.
ROOM_BYTES = 640 * 2**20
LIMIT_SECONDS = 30
# What a file may cost that is refused for its size alone.
BOMB_MILLISECONDS, BOMB_MEGABYTES = 1000, 50
# A child for each would take twice as long.
FILES_PER_CHILD = 40
LIBC = ctypes.CDLL(None)
M_ARENA_MAX = -8
KEPT = Path(__file__).parents[1] / ".stefna" / "corpora"
# Where in each package its pictures are.
PYPI = {"pillow": "Tests/images/", "pi-heif": "tests/images/"}
DEBIAN = {
    "libheif": "fuzzing/corpus/|examples/",
    "libpng1.6": "contrib/(pngsuite|testpngs)/",
    "exiv2": "test/data/",
    "gdk-pixbuf": "tests/",
    "vips": "test/test-suite/images/",
}
NO_PICTURE = re.compile(r"\.(c|h|py|sh|cmake|txt|am|in|md|html|cmd|out|rst|exv|xmp|build|diff)$|/[A-Z]+$|/\.")


@dataclass
class Outcome:
    """What became of one file."""

    code: str = ""
    milliseconds: float = 0.0
    grown: float = 0.0
    status: int = 0
    # Not our own refusal, or the API disagrees.
    unexpected: list[str] = field(default_factory=list)
    # The process did not say what became of the file.
    crash: str = ""

    @property
    def broken(self) -> bool:
        return bool(self.unexpected or self.crash or self.status >= 500)


def main(names: list[str]) -> int:
    call_command("prepare", verbosity=0)
    door = Door()
    rows, notes, broken = [], [], 0
    for name, inside in (PYPI | DEBIAN).items():
        if names and name not in names:
            continue
        archive = download(name)
        if not archive:
            notes.append(f"{name} could not be downloaded.")
            continue
        outcomes = {}
        for path, outcome in door.show_all(pictures(archive, inside)):
            outcomes[path] = outcome
            if outcome.broken:
                broken += 1
                print(path, outcome, sep="\n", file=sys.stderr, flush=True)
        rows.append([archive.name.split(".orig.")[0].removesuffix(".tar.gz"), *summary(outcomes)])
        print(*rows[-1], file=sys.stderr, flush=True)
    shutil.rmtree(folder) if not broken else print("The log is", f"{folder}/log", file=sys.stderr)
    report.write("Corpus: odd and broken pictures", text(rows, notes))
    return 1 if broken or not rows else 0


def text(rows: list[list[object]], notes: list[str]) -> str:
    columns = ["corpus", "files", "accepted", "refused", "unexpected", "5xx", "crashes"]
    columns += ["slowest accepted, ms", "refused, ms", "accepted grows by MB", "refused, MB"]
    said = (
        f"Each file may take {LIMIT_SECONDS} s and {ROOM_BYTES >> 20} MB of addresses. Unexpected is whatever is not"
        " our own refusal, runs out of room, is refused otherwise by the API, or is refused for its size and costs more"
        f" than {BOMB_MILLISECONDS} ms or {BOMB_MEGABYTES} MB; it, 5xx and crashes must be 0."
    )
    return "\n\n".join([said, report.table(columns, rows), *notes])


def summary(outcomes: dict[str, Outcome]) -> list[object]:
    ours: dict[bool, list[Outcome]] = {True: [], False: []}
    for outcome in outcomes.values():
        ours[outcome.code == "accepted"].append(outcome)
    refused = Counter(outcome.code.removeprefix("photo_") for outcome in ours[False] if outcome.code)
    return [
        len(outcomes),
        len(ours[True]),
        ", ".join(f"{code} {number}" for code, number in refused.most_common()) or "–",
        sum(bool(outcome.unexpected) for outcome in outcomes.values()),
        sum(outcome.status >= 500 for outcome in outcomes.values()),
        sum(bool(outcome.crash) for outcome in outcomes.values()),
        *(f"{max((one.milliseconds for one in ours[kind]), default=0):.0f}" for kind in (True, False)),
        *(f"{max((one.grown for one in ours[kind]), default=0):.0f}" for kind in (True, False)),
    ]


# -- The corpora -------------------------------------------------------------------------------------------


def download(name: str) -> Path | None:
    """Return a package's source archive, from what is kept or from its registry."""
    KEPT.mkdir(parents=True, exist_ok=True)
    pattern = f"{name}_*.orig.tar.*z" if name in DEBIAN else f"{name.replace('-', '_')}-*.tar.gz"
    if not any(KEPT.glob(pattern)):
        fetch = debian_source if name in DEBIAN else pypi_source
        try:
            fetch(name)
        except (OSError, subprocess.SubprocessError) as error:
            print(error, getattr(error, "stderr", ""), file=sys.stderr)
    return max(KEPT.glob(pattern), default=None)


def pypi_source(name: str) -> None:
    call = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", name, "-d", str(KEPT), name]
    subprocess.run(call, check=True, timeout=120, stdout=sys.stderr)


def debian_source(name: str) -> None:
    """Ask for the source of what this machine's packages are made from, without a change to the machine's own lists."""
    apt = KEPT / "apt"
    options = [f"Dir::Etc::SourceParts={apt}", "Dir::Etc::SourceList=/dev/null", f"Dir::State::Lists={apt}/lists"]
    call = ["apt-get", "-q", *(f"-o{option}" for option in [*options, f"Dir::Cache={apt}/cache"])]
    if not apt.exists():
        (apt / "lists" / "partial").mkdir(parents=True)
        (apt / "cache" / "archives" / "partial").mkdir(parents=True)
        for path in [Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("debian.*")]:
            if path.exists():
                lines = re.sub(r"(?m)^(Types: )?deb(?=\s)", r"\1deb-src", path.read_text())
                (apt / f"{path.stem}{path.suffix}").write_text(lines)
        subprocess.run([*call, "update"], check=True, timeout=120, stdout=sys.stderr)
    fetch = [*call, "source", "--tar-only", "--only-source", name]
    subprocess.run(fetch, check=True, timeout=120, stdout=sys.stderr, cwd=KEPT)


def pictures(archive: Path, inside: str) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(archive) as tar:
        for member in tar:
            path = member.name.partition("/")[2]
            if member.isfile() and re.match(inside, path) and not NO_PICTURE.search(path):
                content = tar.extractfile(member)
                yield path, content.read() if content else b""


# -- The door ----------------------------------------------------------------------------------------------


class Door:
    """Our entrances. Files stand before them in forks of this process."""

    def __init__(self) -> None:
        self.client = Client(raise_request_exception=False)
        self.client.force_login(User.objects.create_user("corpus@example.com", "bench"))
        # What is loaded with the first photo is nobody's growth.
        self.log = os.open(f"{folder}/log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.knock("sample.jpg", photos.Upload.sample("coffee").data)
        connections.close_all()

    def show_all(self, files: Iterator[tuple[str, bytes]]) -> Iterator[tuple[str, Outcome]]:
        while some := list(itertools.islice(files, FILES_PER_CHILD)):
            yield from self.show(some)

    def show(self, files: list[tuple[str, bytes]]) -> Iterator[tuple[str, Outcome]]:
        """Yield what becomes of each file. The one that a child dies of is blamed, and the next child goes on."""
        while files:
            reader, writer = os.pipe()
            child = os.fork()
            if not child:
                self.in_child(files, writer)
            os.close(writer)
            with open(reader, "rb", buffering=0) as said:
                while files and select.select([said], [], [], LIMIT_SECONDS)[0] and (line := said.readline()):
                    yield files[0][0], Outcome(**json.loads(line))
                    files = files[1:]
            if files:
                os.kill(child, signal.SIGKILL)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            if files:
                yield files[0][0], Outcome(crash=f"the process ended with {code}")
                files = files[1:]

    def in_child(self, files: list[tuple[str, bytes]], writer: int) -> None:
        try:
            # Each thread of a decoder would reserve 64 MB of addresses for itself, and use next to none of it.
            LIBC.mallopt(M_ARENA_MAX, 1)
            os.dup2(self.log, 1)
            os.dup2(self.log, 2)
            for path, data in files:
                print(path, flush=True)
                limit_room()
                os.write(writer, json.dumps(vars(self.knock(path, data))).encode() + b"\n")
            os._exit(0)
        except BaseException:  # noqa: BLE001
            traceback.print_exc()
        finally:
            os._exit(70)

    def knock(self, path: str, data: bytes) -> Outcome:
        outcome = Outcome()
        with watched(outcome):
            response = self.client.post("/api/v1/photos", {"photo": SimpleUploadedFile(path, data)}, secure=True)
        outcome.status = response.status_code
        said = "accepted" if outcome.status in (200, 201) else response.json()["code"]
        outcome.code = outcome.code or said
        if said != outcome.code:
            outcome.unexpected.append(f"the door says {outcome.code}, the API {said}")
        costly = outcome.milliseconds > BOMB_MILLISECONDS or outcome.grown > BOMB_MEGABYTES
        if costly and outcome.code in ("photo_dimensions", "photo_too_many_pixels"):
            outcome.unexpected.append("refused for its size, and costs as if it was not")
        if outcome.code == "photo_dimensions":
            self.try_accept_result(data, outcome.unexpected)
        return outcome

    def try_accept_result(self, data: bytes, unexpected: list[str]) -> None:
        try:
            photos.accept_result(data, provenance.ALGORITHMICALLY_ENHANCED, name="corpus")
        except ResultInvalid as error:
            if out_of_room(error):
                unexpected.append(f"out of room as a result: {error.detail}")
        except Exception:  # noqa: BLE001
            unexpected.append(traceback.format_exc())


@contextmanager
def watched(outcome: Outcome) -> Iterator[None]:
    """See what the view sees of `photos.accept`: what it raises, how long it takes, and how far memory grows."""
    accept = photos.accept

    def watched_accept(user: User, upload: photos.Upload, *, check_room: Callable[[int], None] | None = None) -> Photo:
        before, started = peak_megabytes(), time.perf_counter()
        try:
            photo = accept(user, upload, check_room=check_room)
            outcome.code = "accepted"
            return photo
        except PhotoError as error:
            outcome.code = error.code
            if out_of_room(error):
                outcome.unexpected.append(f"out of room: {error.detail}")
            raise
        except Exception:
            outcome.unexpected.append(traceback.format_exc())
            raise
        finally:
            outcome.milliseconds = (time.perf_counter() - started) * 1000
            outcome.grown = peak_megabytes() - before

    photos.accept = watched_accept
    try:
        yield
    finally:
        photos.accept = accept


def out_of_room(error: BaseException | None) -> bool:
    """Tell whether the bound refused a file: a decoder that gets no memory says that the picture is broken."""
    while error:
        if isinstance(error, MemoryError) or re.search(r"Allocating .* failed", str(error)):
            return True
        error = error.__cause__
    return False


def limit_room() -> None:
    """Give back what the last file left, so that this one is measured from the ground, and bound what it may take."""
    LIBC.malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    addresses = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (addresses + ROOM_BYTES, resource.RLIM_INFINITY))


def peak_megabytes() -> float:
    found: Any = re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
