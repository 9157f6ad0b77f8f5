"""Where benchmarks write what they found: sections of results.md, each with the machine it came from."""

import os
import platform
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

RESULTS = Path(__file__).parent / "results.md"
HEAD = """# Benchmarks

A ratio below 1 means that ours is faster. `make bench` makes most of them in a quarter of an hour. Some are made by
their own, because they take long or download: `python -m benchmarks.` and `engine large`, `production kills flush
outage`, `installation proof`, `corpus`, `mutations`, `hostile`, `chaos`, `single REVISION`.
"""


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def machine() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    cpu = found[1] if found else platform.processor()
    return f"{cpu}, {os.cpu_count()} cores, Python {platform.python_version()}"


def write(section: str, text: str) -> None:
    """Replace one section of the results, or add it."""
    body = f"## {section}\n\n{datetime.now(UTC):%Y-%m-%d}, {machine()}.\n\n{text.strip()}\n"
    head, *sections = re.split(r"(?m)^(?=## )", RESULTS.read_text() if RESULTS.exists() else HEAD)
    kept = [one for one in sections if not one.startswith(f"## {section}\n")]
    RESULTS.write_text("\n".join(part.rstrip() + "\n" for part in [head, *kept, body]))
    print(body)
