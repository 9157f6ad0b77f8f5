"""Wait for conditions. One bound for every wait: it only ends a test that would hang, however busy the machine is."""

import time

WAIT_SECONDS = 120
WAIT_MS = WAIT_SECONDS * 1000


def wait_until(condition, describe=str):
    """Call `condition` until it returns something true, and return that. A refused connection counts as not yet."""
    end = time.monotonic() + WAIT_SECONDS
    while True:
        error = None
        try:
            if value := condition():
                return value
        except OSError as refused:
            error = refused
        assert time.monotonic() < end, describe(error)
        time.sleep(0.02)
