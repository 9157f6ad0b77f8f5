"""The queue engine: it wakes workers up. Nothing is lost with it, because what is to be done is in the rows."""

import os

from celery import Celery
from celery.signals import setup_logging, worker_init, worker_ready

from accounts import database
from stefna import counters

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "stefna.settings")
app = Celery("stefna")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@setup_logging.connect
def keep_our_logging(**signal: object) -> None:
    """Keep Celery from setting up logging of its own: every line of the process has one shape."""


@worker_init.connect
def limit_statements(**signal: object) -> None:
    database.limit_process(database.for_workers())


@worker_ready.connect
def fold_counters(**signal: object) -> None:
    counters.fold()
