"""How gunicorn serves Stefna behind a buffering proxy. gunicorn reads this file by itself; see docs/operations.md.

`GUNICORN_CMD_ARGS` overrides every line for one installation, as in GUNICORN_CMD_ARGS="--threads 32".
"""

import os

# Only the proxy on this host connects. A socket that systemd hands over takes the place of this one.
bind = f"127.0.0.1:{os.environ.get('PORT') or 8000}"

# `workers` is not set here: gunicorn takes WEB_CONCURRENCY, else 1. One per core is enough, and with more than one
# REDIS_URL is needed, or each counts sign-in failures for itself. Without CELERY_BROKER_URL each of them also works on
# runs in RUN_WORKER_THREADS threads (stefna/wsgi.py); they do not disturb each other, a run is claimed by one update.
worker_class = "gthread"

# Many, because an upload holds one from its first byte until the storage has it, and a thread that waits costs little.
# With as many slow uploads at once nobody else is served: the buffering proxy sees to it that they do not come here.
threads = 72

# A heartbeat of the worker's main thread, not a limit for requests: a gthread worker with a request that hangs for an
# hour is alive to gunicorn. Requests are bounded by the proxy's timeouts and by the deadlines of our own calls.
timeout = 60

# After SIGTERM requests end first. Without a broker the process then, at exit, waits up to 25 s for its runs and hands
# back the rest (generation/tasks.py). What is still there now is killed, and its runs are taken over.
graceful_timeout = 30

# Longer than the proxy keeps a connection idle (60 s for nginx), so that it is never gunicorn that hangs up just when
# a request is on its way, which the visitor would see as a 502. An idle connection costs no thread.
keepalive = 75

# Workers are not replaced after so many requests: nothing is known to leak, and without a broker each replacement
# would wait for its runs, or hand them back at exit and have another attempt made.
max_requests = 0

# The application is imported in each worker. Imported before the fork, the threads that work on runs and the pool of
# database connections would be left behind in the master, and all workers would hold runs under one name.
preload_app = False

# No address of ours is longer than a few hundred bytes; a browser and two proxies send some 30 headers. The
# other two are gunicorn's own limits.
limit_request_line = 4094
limit_request_fields = 64
limit_request_field_size = 8190

# Whose X-Forwarded-Proto gunicorn believes. Django does not ask it: there TRUSTED_PROXIES says what is believed.
forwarded_allow_ips = os.environ.get("FORWARDED_ALLOW_IPS") or "127.0.0.1,::1"

# The heartbeat is a file: in memory, or a disk that stands still for a minute would get all workers killed.
if os.path.isdir("/dev/shm"):  # noqa: S108  (a directory that gunicorn makes a nameless file in)
    worker_tmp_dir = "/dev/shm"  # noqa: S108

# No proxy of ours names a prefix or a user by a header, and what takes one may be a stranger's.
forwarder_headers = ""

# No access log: the proxy writes one, with the request id that our JSON lines carry, and it would mix a second shape
# into them and show the signatures of picture addresses. gunicorn's own few lines go to standard error.
accesslog = None
errorlog = "-"

# Nobody remote-controls gunicorn, and two installations of one account would fight for the socket.
control_socket_disable = True
