"""What pages cost with 1,000 runs and with 1,000,000: lists, and the metrics page with kept counts and without.

It makes a database of its own on the PostgreSQL server of DATABASE_URL, and drops it then. BENCH_RUNS is another number
than a million.
"""

import os
import statistics
import sys
import tempfile
import time
from urllib.parse import urlsplit, urlunsplit

import psycopg

folder = tempfile.mkdtemp(prefix="numbers")
given = urlsplit(os.environ.get("DATABASE_URL", "postgres://postgres@127.0.0.1:5432/postgres"))
name = f"stefna_numbers_{os.getpid()}"
os.environ |= {"ENV_FILE": os.devnull, "STATE_DIR": folder, "SECRET_KEY": "bench", "DEBUG": "0", "LOG_FORMAT": "text"}
os.environ |= {"DJANGO_SETTINGS_MODULE": "stefna.settings", "ALLOWED_HOSTS": "testserver"}
os.environ["DATABASE_URL"] = urlunsplit(given._replace(path=f"/{name}"))
if not given.scheme.startswith("postgres"):
    sys.exit("DATABASE_URL is not PostgreSQL's.")

import django  # noqa: E402

django.setup()

from django.core.management import call_command  # noqa: E402
from django.db import connection, connections  # noqa: E402
from django.test import Client  # noqa: E402

from accounts.models import User  # noqa: E402
from benchmarks import report  # noqa: E402
from generation import metrics  # noqa: E402
from generation.models import CountedRuns, Photo, Run  # noqa: E402

METRICS, SPANS = "/admin/metrics/?span=", ["24h", "7d", "30d"]
# Of whom has the most runs.
THEIRS = {"history": "/runs/", "API, a page of 25": "/api/v1/runs", "API, a poll": "/api/v1/runs/{run}"}
STAFF = {"admin, runs": "/admin/generation/run/", "admin, users": "/admin/accounts/user/"}
USERS = 5_000
MANY = int(os.environ.get("BENCH_RUNS", 1_000_000))

# As many runs as are wanted, evenly over 30 days: nine of ten succeed, users and presets are not equally busy, times
# are spread over two powers of ten.
FILL = """
INSERT INTO generation_run (
    id, user_id, photo_id, mode, status, phase, attempts, crashes, error_code, error_message, error_retryable, worker,
    preset_slug, preset_name, preset_tag, prompt, negative_prompt, strength, seed, recipe, provider, model, fingerprint,
    result_url, endpoint, upstream_request_id, possible_cost, result, thumbnail, content_type, source_type, cached,
    favourite, language, created_at, started_at, finished_at, queue_ms, upload_ms, model_ms, store_ms, total_ms
)
SELECT
    gen_random_uuid(), %(first)s + floor(power(random(), 2) * %(users)s)::int, %(photo)s, 'preset',
    CASE WHEN luck < 0.9 THEN 'succeeded' WHEN luck < 0.93 THEN 'cancelled' ELSE 'failed' END, 'done', 1, 0,
    CASE WHEN luck < 0.93 THEN '' ELSE (ARRAY['upstream_timeout', 'upstream_auth', 'upstream_unavailable',
        'upstream_rate_limited', 'content_filtered', 'internal_error'])[1 + floor(random() * 6)::int] END,
    '', true, 'worker', presets.slug, presets.name, presets.tag, presets.prompt, presets.negative_prompt, 0.7, 1,
    presets.recipe, 'aiml', 'flux/dev/image-to-image', md5(n::text), '', 'api.example#123456', md5(n::text), 0,
    CASE WHEN luck < 0.9 THEN 'results/' || md5(n::text) || '.jpg' ELSE '' END, '', 'image/jpeg', '',
    luck < 0.05, false, 'en', ended - interval '10 seconds', ended - interval '9 seconds', ended,
    exp(random() * 5), exp(5 + random() * 3), exp(7 + random() * 3), exp(5 + random() * 2), exp(8 + random() * 2)
FROM (
    SELECT n, random() AS luck, floor(power(random(), 2) * 37)::int AS look,
        now() - interval '30 days' * (%(number)s - n) / %(number)s AS ended
    FROM generate_series(1, %(number)s) AS n
) AS drawn
JOIN (SELECT *, row_number() OVER (ORDER BY id) - 1 AS place FROM generation_preset) AS presets ON place = look
ORDER BY n
"""


def main() -> None:
    call_command("migrate", verbosity=0)
    call_command("load_presets", verbosity=0)
    call_command("collectstatic", interactive=False, verbosity=0)
    users = User.objects.bulk_create(User(email=f"user{n}@example.com") for n in range(USERS))
    owner, busiest = Client(), Client()
    owner.force_login(User.objects.create_superuser("bench@example.com", "bench"))
    busiest.force_login(users[0])
    photo = Photo.objects.create(user=users[0], sha256="x", file="x.jpg", thumbnail="x.jpg", width=1, height=1, bytes=1)
    found: dict[int, dict[str, float]] = {1000: {}, MANY: {}}
    kept: dict[int, float] = {}
    for number, ms in found.items():
        fill(number, {"first": users[0].pk, "users": USERS, "photo": str(photo.pk), "number": number})
        run = Run.objects.filter(user=users[0])[0].pk
        ms |= {name: cost(busiest, path.format(run=run)) for name, path in THEIRS.items()}
        ms |= {name: cost(owner, path) for name, path in STAFF.items()}
        # Without kept counts a month of a million would take half a minute, and only once.
        ms |= {f"metrics, {span}, nothing kept": cost(owner, METRICS + span, 1) for span in SPANS[:2]}
        started = time.perf_counter()
        metrics.roll_up()
        kept[number] = time.perf_counter() - started
        ms |= {f"metrics, {span}": cost(owner, METRICS + span) for span in SPANS}
    started = time.perf_counter()
    metrics.roll_up()
    again = time.perf_counter() - started
    few, many = found.values()
    rows = [[name, f"{few[name]:.0f}", f"{many[name]:,.0f}", f"{many[name] / few[name]:.1f}"] for name in many]
    owned = Run.objects.filter(user=users[0]).count()
    report.write(
        "Growth: a million runs",
        f"On PostgreSQL, {USERS:,} users, 37 presets, medians of 5 (where nothing is kept, of one); lists are those of"
        f" the user with the most runs, {owned:,} of them. Keeping the counts of a month at once took"
        f" {kept[MANY]:.1f} s, of 1,000 runs {kept[1000]:.1f} s; the hourly keeping after that {again:.2f} s."
        f" They are {size()} on disk.\n\n"
        + report.table(["page", "ms with 1,000", f"ms with {MANY:,}", "ratio"], rows),
    )


def fill(number: int, values: dict[str, int | str]) -> None:
    Run.objects.all().delete()
    CountedRuns.objects.all().delete()
    with connection.cursor() as cursor:
        cursor.execute(FILL, values)
        cursor.execute("VACUUM ANALYZE generation_run")
    print(f"{number:,} runs are there.")


def cost(client: Client, path: str, times: int = 5) -> float:
    """Median milliseconds of a page, once it was asked for."""
    if times > 1:
        client.get(path, secure=True)
    found = []
    for _ in range(times):
        started = time.perf_counter()
        answer = client.get(path, secure=True)
        assert answer.status_code == 200, f"{path} answered {answer.status_code}"
        found.append((time.perf_counter() - started) * 1000)
    print(f"{path}: {statistics.median(found):,.0f} ms")
    return statistics.median(found)


def size() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_size_pretty(pg_total_relation_size('generation_countedruns'))")
        (said,) = cursor.fetchone()
    return str(said)


if __name__ == "__main__":
    with psycopg.connect(urlunsplit(given), autocommit=True) as server:
        server.execute(f'CREATE DATABASE "{name}"')
        try:
            main()
        finally:
            connections.close_all()
            server.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
