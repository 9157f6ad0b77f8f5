"""What lists cost when there is much in them: `GET /api/v1/runs` with 200 runs and with 100,000, and the history page.

It makes a database of its own in a temporary folder (SQLite), or uses the one that DATABASE_URL names, which must be
empty. Run it as `python -m benchmarks.growth`.
"""

import os
import statistics
import tempfile
import time
import uuid
from datetime import timedelta

folder = tempfile.mkdtemp(prefix="growth")
os.environ |= {"ENV_FILE": os.devnull, "STATE_DIR": folder, "SECRET_KEY": "bench", "DEBUG": "0", "LOG_FORMAT": "text"}
os.environ |= {"DJANGO_SETTINGS_MODULE": "stefna.settings", "ALLOWED_HOSTS": "testserver"}
os.environ.setdefault("DATABASE_URL", f"sqlite:///{folder}/db.sqlite3")

import django  # noqa: E402

django.setup()

from django.core.management import call_command  # noqa: E402
from django.db import connection  # noqa: E402
from django.test import Client  # noqa: E402
from django.utils import timezone  # noqa: E402

from accounts.models import User  # noqa: E402
from benchmarks import report  # noqa: E402
from generation.models import Photo, Run  # noqa: E402


def main() -> None:
    call_command("prepare")
    user = User.objects.create_user("bench@example.com", "bench")
    photo = Photo.objects.create(user=user, sha256="x", file="x.jpg", thumbnail="x.jpg", width=1, height=1, bytes=1)
    client = Client()
    client.force_login(user)
    write_history(client, user, photo)
    rows = []
    first = 0.0
    for total in (200, 10_000, 100_000):
        fill(user, photo, total)
        milliseconds = cost(client, "/api/v1/runs")
        first = first or milliseconds
        rows.append([f"{total:,}", "first", f"{milliseconds:.1f}", f"{milliseconds / first:.2f}"])
    deep = "/api/v1/runs"
    for _ in range(1000):
        deep = client.get(deep, secure=True).json()["next"]
    milliseconds = cost(client, deep)
    rows.append(["100,000", "1,000th", f"{milliseconds:.1f}", f"{milliseconds / first:.2f}"])
    columns = ["runs", "page", "ms (median of 25)", "÷ with 200"]
    report.write("Growth: the list of runs", f"On {connection.vendor}.\n\n" + report.table(columns, rows))


def write_history(client: Client, user: User, photo: Photo) -> None:
    """Compare the history page with an empty one: what its 24 pictures cost, however many there are."""
    rows = []
    empty = 0.0
    for total in (0, 3, 200):
        fill(user, photo, total)
        milliseconds = cost(client, "/runs/")
        empty = empty or milliseconds
        rows.append([total, f"{milliseconds:.1f}", f"{milliseconds / empty:.2f}"])
    table = report.table(["runs", "ms (median of 25)", "÷ empty"], rows)
    report.write("Growth: the history", f"On {connection.vendor}. The page shows 24 at once.\n\n{table}")


def fill(user: User, photo: Photo, total: int) -> None:
    """Add ended runs until there are so many."""
    there = Run.objects.count()
    now = timezone.now()
    made = (
        Run(
            id=uuid.uuid4(), user=user, photo=photo, status="succeeded", phase="done", preset_slug="duotone",
            preset_name="Duotone", preset_tag="Art", strength=0.7, seed=1, provider="embedded", fingerprint="f",
            result="x.jpg", thumbnail="x.jpg", width=1, height=1, bytes=1, content_type="image/jpeg", total_ms=500,
            created_at=now - timedelta(seconds=number), finished_at=now,
        )
        for number in range(there, total)
    )  # fmt: skip
    Run.objects.bulk_create(made, batch_size=2000)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")


def cost(client: Client, address: str) -> float:
    """Median milliseconds of a GET."""
    times = []
    for _ in range(25):
        started = time.perf_counter()
        assert client.get(address, secure=True).status_code == 200
        times.append((time.perf_counter() - started) * 1000)
    return statistics.median(times)


if __name__ == "__main__":
    main()
