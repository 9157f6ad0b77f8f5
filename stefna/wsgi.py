"""The web process: serves pages and, without a queue engine, works on the runs as well."""

import os

from django.core.wsgi import get_wsgi_application

from stefna.encodings import readable

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "stefna.settings")
application = readable(get_wsgi_application())

from django.conf import settings  # noqa: E402  (read only once the application is set up)

from accounts import database  # noqa: E402
from generation import tasks  # noqa: E402
from stefna import counters  # noqa: E402

counters.fold()
database.limit_process(database.for_pages())

if not settings.CELERY_BROKER_URL:
    tasks.start_worker()
