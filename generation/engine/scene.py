"""What a step may know when it is prepared, and what it leaves behind."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from generation.engine.raster import Band, Bytes, Floats, as_floats, resized


@dataclass(frozen=True, slots=True)
class Step:
    """One prepared op: `change` gets a band of the picture as floats 0..1 and gives it changed.

    `reach` says how far it looks around a pixel, as a fraction of the long side. A step that `covers` replaces the
    picture, so whatever was done before need not be done again at full size.
    """

    change: Callable[[Floats, Band], Floats]
    reach: float = 0.0
    covers: bool = False


class Scene:
    """The picture on its proxy, brought up to date only when a step looks at it; its noise; the seed's chance."""

    def __init__(self, proxy: Bytes, noise: float) -> None:
        self.noise = noise
        self.rng = np.random.default_rng(0)
        self._picture: Floats | Bytes = proxy
        self._waiting: list[Callable[[Floats | Bytes, Band], Floats | Bytes]] = []
        self._band = Band(proxy.shape[1], proxy.shape[0], 0, proxy.shape[0], 1)

    @property
    def shape(self) -> tuple[int, int]:
        return self._picture.shape[0], self._picture.shape[1]

    @property
    def picture(self) -> Floats:
        """The proxy after every step so far (h×w×3, 0..1)."""
        return as_floats(self.pixels)

    @property
    def pixels(self) -> Floats | Bytes:
        """The same, as the last step left it."""
        for change in self._waiting:
            self._picture = change(self._picture, self._band)
        self._waiting.clear()
        return self._picture

    def fit(self, plane: Floats) -> Floats:
        """Bring a map to the proxy's cells; maps are often made on a smaller copy."""
        height, width = self.shape
        return plane if plane.shape[:2] == (height, width) else resized(plane, width, height)

    def add(self, change: Callable[[Floats | Bytes, Band], Floats | Bytes]) -> None:
        self._waiting.append(change)
