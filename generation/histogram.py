"""Times in buckets that grow by a tenth of a factor e: two hours can be added, and asked what half took.

A bucket is answered with its harmonic middle, which is less than 5 % off whatever in the bucket is true.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping

from django.db.models import F, IntegerField, Value
from django.db.models.expressions import Combinable
from django.db.models.functions import Cast, Floor, Greatest, Ln

BUCKETS_PER_E = 10
MAX_ERROR = math.tanh(1 / (2 * BUCKETS_PER_E))

Histogram = Counter[str]


def bucket_of(column: str) -> Combinable:
    """Name the bucket of a column of milliseconds, in the database. Nothing is faster than one."""
    at_least_one = Greatest(F(column), Value(1))
    return Cast(Floor(Ln(at_least_one) * BUCKETS_PER_E), IntegerField())


def histogram(milliseconds: Iterable[int]) -> Histogram:
    """Count times in the buckets that `bucket_of` names."""
    return Counter(str(math.floor(math.log(max(1, one)) * BUCKETS_PER_E)) for one in milliseconds)


def percentile(counts: Mapping[str, int], share: float) -> float | None:
    """Return the milliseconds that this share of all took at most, or None when there are none."""
    rank = share * sum(counts.values())
    passed = 0
    for bucket in sorted(counts, key=int):
        passed += counts[bucket]
        if passed >= rank:
            return _middle(int(bucket))
    return None


def _middle(bucket: int) -> float:
    low, high = math.exp(bucket / BUCKETS_PER_E), math.exp((bucket + 1) / BUCKETS_PER_E)
    return 2 * low * high / (low + high)
