"""What every provider takes and gives: plain data. A provider knows no rows, users or requests."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class UpstreamAnswer:
    """What a service said when it had made a picture, and where the picture is to be fetched."""

    result_url: str
    seed: int | None = None
    request_id: str = ""
    endpoint: str = ""


@dataclass(frozen=True)
class TransformRequest:
    """A photo (its bytes, or an address for a provider that `fetches_photo`) and what to make of it.

    `strength` is 0.05–1, `seed` 1–2147483647, `seconds` what is left of the run's time. `answer` is what an earlier
    attempt was already told: its picture is fetched, and not made again. `answered` is called with a new answer before
    the picture is fetched, so that the row knows of it however this process ends. `unanswered` is called after a call
    that may have made a picture nobody gets, when the run goes on elsewhere.
    """

    request_id: str
    photo: bytes
    photo_url: str
    prompt: str
    negative_prompt: str
    strength: float
    seed: int
    recipe: Mapping[str, Any] | None
    model: str
    steps: int | None
    guidance: float | None
    seconds: float
    answer: UpstreamAnswer | None
    answered: Callable[[UpstreamAnswer], None]
    unanswered: Callable[[], None]


@dataclass(frozen=True)
class TransformResult:
    """A picture (its bytes, never a foreign URL) and the IPTC source type that it is to be marked with."""

    data: bytes
    source_type: str


class ImageProvider(Protocol):
    """Makes a picture or raises ProviderError."""

    name: str
    fetches_photo: bool

    def transform(self, request: TransformRequest) -> TransformResult: ...
