"""Thousands of broken pictures through one pool of image processes: each is decoded or refused, and costs nobody else.

Run it as `python -m benchmarks.mutations [COUNT]`; without a count it takes 20,000. Importing it loads no Django.
"""

import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from generation.tests.images.mutations import mutations

__all__ = ["main", "mutations"]

KINDS = ("JPEG", "PNG", "WebP", "HEIC", "innocent")
INNOCENT_EVERY = 50


def main(count: int) -> None:
    with tempfile.TemporaryDirectory(prefix="mutations") as folder:
        set_up(folder)
        from benchmarks import report  # noqa: PLC0415  (Django is set up by then)

        outcomes, killed = send(count)
        innocent = {result for kind, result in outcomes if kind == "innocent"}
        assert innocent == {"accepted"}, f"innocent photos were answered {innocent}"
        results = sorted({result for _, result in outcomes})
        rows = [(kind, *(outcomes[kind, result] for result in results)) for kind in KINDS]
        ended = ", ".join(f"{code}: {number}" for code, number in sorted(killed.items())) or "none"
        text = (
            f"{count:,} broken pictures and an innocent one before every {INNOCENT_EVERY}, from 4 threads through one"
            " pool; nothing else was raised. `too_costly` are those that ended their process twice, or took too much"
            f" memory or time. Image processes that were killed: {ended}.\n\n"
        )
        report.write("Hostile: mutations", text + report.table(["format", *results], rows))


def set_up(folder: str) -> None:
    """Set up Django with a state of its own, and no services."""
    os.environ |= {"ENV_FILE": os.devnull, "STATE_DIR": folder, "SECRET_KEY": "bench", "DEBUG": "0"}
    os.environ |= {"DJANGO_SETTINGS_MODULE": "stefna.settings"}
    import django  # noqa: PLC0415

    django.setup()


def send(count: int) -> tuple[Counter[tuple[str, str]], Counter[str]]:
    """Return how often each kind of picture ended how, and how often image processes were killed by what."""
    from structlog.testing import capture_logs  # noqa: PLC0415

    with capture_logs() as events, ThreadPoolExecutor(4) as threads:
        outcomes = Counter(threads.map(outcome, files(count)))
    killed = Counter(event["code"] for event in events if event["event"] == "image_process_killed")
    return outcomes, killed


def files(count: int) -> Iterator[tuple[str, bytes]]:
    from conftest import small  # noqa: PLC0415

    innocent = small("portrait")
    for number, mutation in enumerate(mutations(count, seed=1)):
        if number % INNOCENT_EVERY == 0:
            yield "innocent", innocent
        yield mutation


def outcome(mutation: tuple[str, bytes]) -> tuple[str, str]:
    from generation.engine.exceptions import DecodeError  # noqa: PLC0415
    from generation.exceptions import ImageProcessingBusy  # noqa: PLC0415
    from generation.images import processing  # noqa: PLC0415

    name, data = mutation
    limits, share = {"pixels": 40_000_000}, processing.Share.UPLOAD
    result = "accepted"
    try:
        processing.normalise(data, limits, share=share, max_side=2048, thumbnail_side=480)
    except DecodeError as error:
        result = error.reason
    except ImageProcessingBusy:
        result = "busy"
    return name.split()[0], result


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000)
