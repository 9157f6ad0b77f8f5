"""Waking whoever works on runs. What there is to do is in the rows; this only says that one has been written."""

import threading


class Bell:
    """A bell that no ring of is lost: a sleeper says which ring it heard last."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self.rings = 0

    def ring(self) -> None:
        with self._condition:
            self.rings += 1
            self._condition.notify_all()

    def wait(self, heard: int, seconds: float) -> None:
        """Return at the first ring after number `heard`, or when the time is up."""
        with self._condition:
            self._condition.wait_for(lambda: self.rings != heard, seconds)


bell = Bell()


def wake() -> None:
    """Tell the workers of this process that a run is due; others find it at their next look."""
    bell.ring()
