"""What an upload and a run of the built-in engine cost beside another revision, in turns, and an idle server takes.

Run it as `python -m benchmarks.single REVISION`: it makes a git worktree of that revision in a temporary folder.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import report

ROOT = Path(__file__).parent.parent
ROUNDS = 15
PRESETS = ("express_enhance", "noir_classic", "oil_painting")
PROGRAM = """
import hashlib, io, json, os, random, sys, time, uuid
from pathlib import Path
import django
django.setup()
from django.core.management import call_command
from PIL import Image
from accounts.models import User
from generation import photos, services, tasks
from generation.models import Preset

call_command("migrate", verbosity=0)
call_command("load_presets", verbosity=0)
user = User.objects.create_user("bench@example.com")

def descendants(pid):
    yield pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from descendants(child)

def cpu():
    ticks = 0
    for pid in descendants(os.getpid()):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += sum(int(field) for field in fields[11:15])
    return ticks * 1000 / os.sysconf("SC_CLK_TCK")

def picture(seed, size):
    noise = Image.frombytes("RGB", (64, 48), random.Random(seed).randbytes(64 * 48 * 3))
    out = io.BytesIO()
    noise.resize(size, Image.Resampling.BICUBIC).save(out, "JPEG", quality=90)
    return out.getvalue()

print("ready", flush=True)
for line in sys.stdin:
    what, slug, seed = json.loads(line)
    data = picture(seed, (4000, 3000))
    wall, spent = time.monotonic(), cpu()
    photo = photos.accept(user, photos.Upload(data))
    digest = ""
    if what == "run":
        wall, spent = time.monotonic(), cpu()
        preset = Preset.objects.get(slug=slug)
        run = services.start_run(user=user, photo=photo, preset=preset, seed=7, key=uuid.uuid4().hex)
        assert tasks.process(run.pk)
        run.refresh_from_db()
        assert run.status == "succeeded", run.error_code
        digest = hashlib.sha256(photos.read(run.result)).hexdigest()
    print(json.dumps([(time.monotonic() - wall) * 1000, cpu() - spent, digest]), flush=True)
"""


class Tree:
    """A revision at work: one process that does what it is told over its standard input."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.state = folder, tempfile.mkdtemp(prefix="single")
        settings = {"ENV_FILE": os.devnull, "STATE_DIR": self.state, "SECRET_KEY": "bench", "DEBUG": "0"}
        settings |= {"DJANGO_SETTINGS_MODULE": "stefna.settings", "DAILY_RUN_LIMIT": "0", "MAX_ACTIVE_RUNS": "0"}
        self.environment = os.environ | settings
        self.log = Path(self.state) / "log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM],
                cwd=folder,
                env=self.environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        while self._line() != "ready\n":
            pass

    def do(self, what: str, slug: str, seed: int) -> tuple[float, float, str]:
        self.process.stdin.write(json.dumps([what, slug, seed]) + "\n")  # type: ignore[union-attr]
        self.process.stdin.flush()  # type: ignore[union-attr]
        wall, cpu, digest = json.loads(self._line())
        return wall, cpu, digest

    def _line(self) -> str:
        line = self.process.stdout.readline()  # type: ignore[union-attr]
        if not line:
            raise RuntimeError(self.log.read_text())
        return str(line)

    def end(self) -> None:
        self.process.stdin.close()  # type: ignore[union-attr]
        self.process.wait()


def compare(before: Tree, after: Tree) -> list[list[Any]]:
    """Return a row for an upload and for each preset: medians of wall and processor time, in turns."""
    rows = []
    for what, slug in [("upload", ""), *(("run", slug) for slug in PRESETS)]:
        figures: dict[Tree, list[tuple[float, float, str]]] = {before: [], after: []}
        for number in range(ROUNDS + 1):
            for tree in (before, after) if number % 2 else (after, before):
                figures[tree].append(tree.do(what, slug, hash((what, slug)) % 1000 * 100 + number))
        old, new = figures.values()
        walls = [statistics.median(wall for wall, _, _ in one[1:]) for one in (old, new)]
        cpus = [statistics.median(cpu for _, cpu, _ in one[1:]) for one in (old, new)]
        same = [one[2] == other[2] for one, other in zip(old, new, strict=True)]
        rows.append(
            [
                slug or what,
                f"{walls[0]:.0f} ms, {walls[1]:.0f} ms",
                f"{walls[1] / walls[0]:.2f} x",
                f"{cpus[0]:.0f} ms, {cpus[1]:.0f} ms",
                f"{cpus[1] / cpus[0]:.2f} x",
                "all" if all(same) else f"{sum(same)} of {len(same)}",
            ]
        )
    return rows


def idle(tree: Tree) -> tuple[float, float]:
    """Return the seconds until a started server answers, and the megabytes (PSS) that it takes after its first page."""
    port = "8765"
    command = [sys.executable, "manage.py", "runserver", "--noreload", f"127.0.0.1:{port}"]
    started = time.monotonic()
    with tree.log.open("ab") as log:
        server = subprocess.Popen(
            command, cwd=tree.folder, env=tree.environment | {"DEBUG": "1"}, stdout=log, stderr=log
        )
    try:
        while subprocess.run(["curl", "-sf", "-o", os.devnull, f"http://127.0.0.1:{port}/"], check=False).returncode:
            time.sleep(0.02)
        seconds = time.monotonic() - started
        return seconds, memory(server.pid)
    finally:
        server.kill()
        server.wait()


def memory(pid: int) -> float:
    rows = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(row.split()[1]) for row in rows if row.startswith("Pss:")) / 1000


def main(revision: str) -> None:
    folder = Path(tempfile.mkdtemp(prefix="before")) / "tree"
    subprocess.run(["git", "worktree", "add", "-q", "--detach", str(folder), revision], cwd=ROOT, check=True)
    try:
        before, after = Tree(folder), Tree(ROOT)
        rows = compare(before, after)
        before.end()
        after.end()
        starts = {tree: [idle(tree) for _ in range(3)] for tree in (before, after)}
    finally:
        subprocess.run(["git", "worktree", "remove", "--force", str(folder)], cwd=ROOT, check=True)
    columns = ["12 megapixels", "wall before, after", "ratio", "processor before, after", "ratio", "same bytes"]
    text = f"Beside revision {revision}, medians of {ROUNDS} in turns; processor time with all child processes.\n\n"
    text += report.table(columns, rows) + "\n\n`runserver`, until the first page and the memory (PSS) then: "
    found = [[statistics.median(one[part] for one in starts[tree]) for part in (0, 1)] for tree in starts]
    text += f"before {found[0][0]:.2f} s and {found[0][1]:.0f} MB, after {found[1][0]:.2f} s and {found[1][1]:.0f} MB."
    report.write("Single: one run", text)


if __name__ == "__main__":
    main(sys.argv[1])
