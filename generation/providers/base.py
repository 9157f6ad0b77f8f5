"""What every provider takes and gives: plain data. A provider knows no rows, users or requests."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class TransformRequest:
    """A photo (its bytes, normalised) and what to make of it; strength 0.05-1, seed 1-2147483647."""

    photo: bytes
    prompt: str
    negative_prompt: str
    strength: float
    seed: int
    recipe: Mapping[str, Any] | None


@dataclass(frozen=True)
class TransformResult:
    """A picture (its bytes, never a foreign URL) and the IPTC source type that it is to be marked with."""

    data: bytes
    source_type: str


class ImageProvider(Protocol):
    """Makes a picture or raises ProviderError."""

    name: str

    def transform(self, request: TransformRequest) -> TransformResult: ...
