"""Settings of every installation that is measured: all clients of a benchmark have one address."""

UNLIMITED_ADDRESSES = dict.fromkeys(
    (
        "GUESTS_PER_ADDRESS_DAILY",
        "PREVIEWS_PER_ADDRESS_MINUTE",
        "RUNS_PER_ADDRESS_DAILY",
        "SIGNUPS_PER_ADDRESS_DAILY",
        "UPLOADS_PER_ADDRESS_HOURLY",
    ),
    "0",
)
