"""Thousands of broken pictures through one pool of image processes: each is decoded or refused, and costs nobody else.

Run it as `python -m benchmarks.mutations [COUNT]`; without a count it takes 20,000.
"""

import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

folder = tempfile.mkdtemp(prefix="mutations")
os.environ |= {"ENV_FILE": os.devnull, "STATE_DIR": folder, "SECRET_KEY": "bench", "DEBUG": "0"}
os.environ |= {"DJANGO_SETTINGS_MODULE": "stefna.settings"}

import django  # noqa: E402

django.setup()

from benchmarks import report  # noqa: E402
from conftest import small  # noqa: E402
from generation.engine.exceptions import DecodeError  # noqa: E402
from generation.exceptions import ImageProcessingBusy  # noqa: E402
from generation.images import processing  # noqa: E402
from generation.tests.images.mutations import mutations  # noqa: E402

KINDS = ("JPEG", "PNG", "WebP", "HEIC", "innocent")


def main(count: int) -> None:
    with ThreadPoolExecutor(4) as threads:
        outcomes = Counter(threads.map(outcome, files(count)))
    assert {result for kind, result in outcomes if kind == "innocent"} == {"accepted"}
    results = sorted({result for _, result in outcomes})
    rows = [(kind, *(outcomes[kind, result] for result in results)) for kind in KINDS]
    text = (
        f"{count:,} broken pictures and an innocent one after every 50, from 4 threads through one pool; nothing else"
    )
    text += " was raised. `too_costly` are those that ended their process twice, or took too much memory or time.\n\n"
    report.write("Hostile: mutations", text + report.table(["format", *results], rows))


def files(count: int) -> Iterator[tuple[str, bytes]]:
    innocent = small("portrait")
    for number, mutation in enumerate(mutations(count, seed=1)):
        if number % 50 == 0:
            yield "innocent", innocent
        yield mutation


def outcome(mutation: tuple[str, bytes]) -> tuple[str, str]:
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
