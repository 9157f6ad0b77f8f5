"""Every setting of the installation, read from the environment; an empty one works.

The variables and their defaults are listed in .env.example, and a test holds the two together.
"""

import logging.config
import os
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import environ
import structlog
from django.core.exceptions import ImproperlyConfigured

from stefna import counters, private

env = environ.Env()
BASE_DIR = Path(__file__).resolve().parent.parent
env_file = env("ENV_FILE", default=str(BASE_DIR / ".env"))
if os.environ.get("ENV_FILE") and not os.access(env_file, os.R_OK):
    raise ImproperlyConfigured(f"ENV_FILE is {env_file}, which cannot be read.")
environ.Env.read_env(env_file)

# Where an installation without services keeps its database, pictures and secret.
STATE_DIR = Path(env("STATE_DIR", default=str(BASE_DIR / ".stefna")))

DEBUG = env.bool("DEBUG", default=False)

SECRET_FILE = STATE_DIR / "secret"
SECRET_KEY = env("SECRET_KEY", default="") or (SECRET_FILE.read_text().strip() if SECRET_FILE.exists() else "")
if not SECRET_KEY:
    raise ImproperlyConfigured("Set SECRET_KEY, or start once with `make run`, which makes one in .stefna/secret.")

ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["127.0.0.1", "localhost", "[::1]"])
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[])
TRUSTED_PROXIES = env.int("TRUSTED_PROXIES", default=0)

# -- Applications ------------------------------------------------------------------------------------------

INSTALLED_APPS = [
    "whitenoise.runserver_nostatic",
    "stefna.apps.DeskConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.humanize",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "allauth",
    "allauth.account",
    "allauth.headless",
    "allauth.mfa",
    "allauth.socialaccount",
    "allauth.usersessions",
    "rest_framework",
    "django_filters",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "csp",
    "django_htmx",
    "accounts",
    "notifications",
    "generation",
    "stefna",
]

MIDDLEWARE = [
    "stefna.middleware.request_context",
    "stefna.health.answer_probes",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    # Behind the static files, which say themselves how long they are kept.
    "stefna.middleware.private_by_default",
    "csp.middleware.CSPMiddleware",
    # Behind the static files, which are the same in every language, and before all that says something.
    "django.middleware.locale.LocaleMiddleware",
    "stefna.middleware.limit_body",
    "stefna.middleware.refuse_malformed",
    "stefna.middleware.hold_place",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "stefna.middleware.language_of_the_user",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "accounts.sessions.ActivityMiddleware",
    "accounts.guests.VisitorsAtTheDoor",
    "stefna.middleware.SignInRequired",
    "stefna.middleware.RefusalMiddleware",
    "stefna.input.ReadableInput",
]

ROOT_URLCONF = "stefna.urls"
WSGI_APPLICATION = "stefna.wsgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "notifications.context_processors.unread",
                "generation.context_processors.active",
            ],
        },
    }
]

# -- Data --------------------------------------------------------------------------------------------------

DATABASES: dict[str, dict[str, Any]] = {
    "default": env.db("DATABASE_URL", default=f"sqlite:///{STATE_DIR / 'db.sqlite3'}")
}
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    # Writers queue for the lock when their transaction begins instead of failing when they first write:
    # with deferred transactions two readers that both want to write are a deadlock that no timeout solves.
    DATABASES["default"]["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
    }
    # A file, as in real life: threads share a database in memory in ways that no installation knows.
    DATABASES["default"]["TEST"] = {"NAME": STATE_DIR / "test.sqlite3"}
elif DATABASES["default"]["ENGINE"] == "django.db.backends.postgresql":
    # However many threads a process has, they share these connections: none is held while a service works.
    DATABASES["default"].setdefault("OPTIONS", {}).update(
        connect_timeout=5, pool={"min_size": 1, "max_size": 16, "timeout": 10}
    )
    # A connection that the database has cut is replaced before anybody is given it.
    DATABASES["default"]["CONN_HEALTH_CHECKS"] = True
# How long a statement may take, or wait for a lock, and a transaction may do nothing, on PostgreSQL; 0 is for ever.
# Of what serves pages, and of what works on runs; commands of manage.py have no limits.
PAGE_STATEMENT_SECONDS = env.float("PAGE_STATEMENT_SECONDS", default=10)
PAGE_LOCK_SECONDS = env.float("PAGE_LOCK_SECONDS", default=3)
WORKER_STATEMENT_SECONDS = env.float("WORKER_STATEMENT_SECONDS", default=120)
WORKER_LOCK_SECONDS = env.float("WORKER_LOCK_SECONDS", default=60)
IDLE_TRANSACTION_SECONDS = env.float("IDLE_TRANSACTION_SECONDS", default=60)
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# Cache and throttles: Redis when there is one, which may go away without taking anything along.
REDIS_URL = env("REDIS_URL", default="")
CACHES: dict[str, dict[str, Any]] = {
    # Counters and nothing large: what evicts an entry would reset a limit of sign-ins. As in stefna/cache.py.
    "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "OPTIONS": {"MAX_ENTRIES": 100_000}},
    # Some 10 kB each, so at most some 40 MB; a full cache drops a third. Each write lists the folder.
    "previews": {
        "BACKEND": "stefna.cache.PreviewCache",
        "LOCATION": STATE_DIR / "previews",
        "OPTIONS": {"MAX_ENTRIES": 4000},
    },
}
if REDIS_URL:
    CACHES["default"] = {
        "BACKEND": "stefna.cache.SteadyRedisCache",
        "LOCATION": REDIS_URL,
        "OPTIONS": {"socket_timeout": 0.25, "socket_connect_timeout": 0.25},
    }

# The SDK reads this variable by itself; here it decides where pictures are kept and may be shown from.
CLOUDINARY_URL = env("CLOUDINARY_URL", default="")
_options = dict(parse_qsl(urlsplit(CLOUDINARY_URL).query))
if "cname" in _options:
    PICTURE_HOSTS = [f"http://{_options['cname']}"]
else:
    PICTURE_HOSTS = [f"https://{_options.get('secure_distribution', '*.cloudinary.com')}"] if CLOUDINARY_URL else []
MEDIA_ROOT = Path(env("MEDIA_ROOT", default=str(STATE_DIR / "media")))
STORAGES = {
    "default": {
        "BACKEND": "generation.providers.cloudinary.CloudinaryStorage"
        if CLOUDINARY_URL
        else "django.core.files.storage.FileSystemStorage"
    },
    # A proxy may serve these.
    "staticfiles": {
        "BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage",
        "OPTIONS": {"file_permissions_mode": 0o644, "directory_permissions_mode": 0o755},
    },
}
# Uploads in progress have a directory of their own, so that `sweep` can clear what a killed process left.
FILE_UPLOAD_TEMP_DIR = STATE_DIR / "tmp"
# Whatever the umask: others on this host may read neither photos nor the database. `prepare` repairs what is older.
FILE_UPLOAD_PERMISSIONS, FILE_UPLOAD_DIRECTORY_PERMISSIONS = private.FILE_MODE, private.FOLDER_MODE

STATIC_URL = "/static/"
STATIC_ROOT = BASE_DIR / "staticfiles"
STATICFILES_DIRS = [BASE_DIR / "static"]
WHITENOISE_USE_FINDERS = DEBUG

# Where the processes of this host count for /metrics, each in files of its own.
COUNTERS_DIR = STATE_DIR / "counters"
os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(COUNTERS_DIR)
# Who may read /metrics, and which part is not ready, as Authorization: Bearer …; without one only staff may.
METRICS_TOKEN = env("METRICS_TOKEN", default="")

PRIVATE_FOLDERS = [MEDIA_ROOT, FILE_UPLOAD_TEMP_DIR, COUNTERS_DIR, CACHES["previews"]["LOCATION"]]
PRIVATE_FILES = [SECRET_FILE, *(STATE_DIR / f"beat{end}" for end in ("", "-wal", "-shm", ".db"))]
for directory in (STATE_DIR, *PRIVATE_FOLDERS):
    private.make_folder(directory)
STATIC_ROOT.mkdir(parents=True, exist_ok=True)
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3" and DATABASES["default"]["NAME"] != ":memory:":
    database_file = Path(DATABASES["default"]["NAME"]).absolute()
    private.make_file(database_file)
    PRIVATE_FILES += [database_file.with_name(database_file.name + end) for end in private.BESIDE]

# -- Services that pictures are made with ----------------------------------------------------------------

AIML_API_KEY = env("AIML_API_KEY", default="")
AIML_API_BASE = env("AIML_API_BASE", default="https://api.aimlapi.com")
# Several: base|key|weight,base|key|weight. Replaces the two above.
AIML_ENDPOINTS = [
    (base, key, float(weight or 1))
    for base, key, weight in ([*entry.split("|"), "", ""][:3] for entry in env.list("AIML_ENDPOINTS", default=[]))
]
AIML_MODEL = env("AIML_MODEL", default="flux/dev/image-to-image")
AIML_STEPS = env.int("AIML_STEPS", default=36)
AIML_GUIDANCE = env.float("AIML_GUIDANCE", default=7.5)
AIML_CONNECT_TIMEOUT_SECONDS = env.float("AIML_CONNECT_TIMEOUT_SECONDS", default=5)
AIML_READ_TIMEOUT_SECONDS = env.float("AIML_READ_TIMEOUT_SECONDS", default=60)
AIML_CALL_SECONDS = env.float("AIML_CALL_SECONDS", default=75)
AIML_MAX_RETRIES = env.int("AIML_MAX_RETRIES", default=3)
AIML_RETRY_BASE_MS = env.int("AIML_RETRY_BASE_MS", default=250)
AIML_RETRY_CAP_MS = env.int("AIML_RETRY_CAP_MS", default=1000)
CIRCUIT_WINDOW_SECONDS = env.float("CIRCUIT_WINDOW_SECONDS", default=60)
CIRCUIT_MIN_CALLS = env.int("CIRCUIT_MIN_CALLS", default=10)
CIRCUIT_OPEN_SECONDS = env.float("CIRCUIT_OPEN_SECONDS", default=30)
UPLOAD_TIMEOUT_SECONDS = env.float("UPLOAD_TIMEOUT_SECONDS", default=20)
RESULT_HOSTS = env.list("RESULT_HOSTS", default=[".aimlapi.com", ".fal.media"])
UPSTREAM_PRIVATE_HOSTS = env.list("UPSTREAM_PRIVATE_HOSTS", default=[])

# -- People ------------------------------------------------------------------------------------------------

AUTH_USER_MODEL = "accounts.User"
AUTHENTICATION_BACKENDS = ["accounts.authentication.WithProfile"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("UserAttributeSimilarityValidator", "MinimumLengthValidator", "CommonPasswordValidator")
]
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "studio"
LOGOUT_REDIRECT_URL = "studio"

ACCOUNT_ADAPTER = "stefna.adapter.AccountAdapter"
SOCIALACCOUNT_ADAPTER = "stefna.adapter.SocialAccountAdapter"
ACCOUNT_LOGIN_METHODS = {"email"}
ACCOUNT_SIGNUP_FIELDS = ["email*", "password1*"]
ACCOUNT_FORMS = {
    "change_password": "accounts.forms.NewPasswordForm",
    "request_login_code": "accounts.forms.RequestCodeForm",
    "reset_password": "accounts.forms.RequestResetForm",
}
ACCOUNT_USER_MODEL_USERNAME_FIELD = None
ACCOUNT_USER_DISPLAY = "accounts.models.display_name"
ACCOUNT_EMAIL_VERIFICATION = env("ACCOUNT_EMAIL_VERIFICATION", default="none" if DEBUG else "mandatory")
ACCOUNT_SESSION_REMEMBER = True
ACCOUNT_EMAIL_SUBJECT_PREFIX = ""
# Whoever's password or way of signing in was changed is told, in case it was not them.
ACCOUNT_EMAIL_NOTIFICATIONS = True
# Somebody with a sign-in half done may think again and take another way; accounts.views sends members on.
ACCOUNT_AUTHENTICATED_LOGIN_REDIRECTS = False
ACCOUNT_LOGIN_BY_CODE_ENABLED = True
ACCOUNT_LOGIN_BY_CODE_TIMEOUT = 600
# For changing what one signs in with, export and deletion. A fresh sign-in counts.
ACCOUNT_REAUTHENTICATION_REQUIRED = True
ACCOUNT_REAUTHENTICATION_TIMEOUT = 300
# Counted by allauth; the other limits of a client address are in accounts/limits.py. 0 is no limit.
SIGNUPS_PER_ADDRESS_DAILY = env.int("SIGNUPS_PER_ADDRESS_DAILY", default=20)
# Beside allauth's own: by ip, which is the client's address, and by key, which is the address of the account or mail.
ACCOUNT_RATE_LIMITS = {
    # Here the key is client and account (accounts/password_limits.py); of a second factor it is the account.
    "login_failed": "10/m/ip,5/5m/key",
    "password_failed_account": "50/10m/key",
    "signup": "20/m/ip" + (f",{SIGNUPS_PER_ADDRESS_DAILY}/d/ip" if SIGNUPS_PER_ADDRESS_DAILY else ""),
    "request_login_code": "10/m/ip,30/h/ip,3/m/key,15/h/key",
    "reset_password": "10/m/ip,30/h/ip,3/m/key,15/h/key",
    "confirm_email": "30/h/ip",
    # Here the key is who asks and the address; of a change of address the key of a mail is not that of other mails:
    # who wants an address must not keep its owner from confirming it.
    "confirmation_mail": "1/3m/key",
    "stranger_mail": "20/h/ip,6/h/key",
}
# One address, changed by confirming the new one.
ACCOUNT_CHANGE_EMAIL = True
# Shows when a device was last used; accounts.sessions writes it down, less often than allauth's middleware would.
USERSESSIONS_TRACK_ACTIVITY = True
ALLAUTH_TRUSTED_PROXY_COUNT = TRUSTED_PROXIES

MFA_SUPPORTED_TYPES = ["totp", "webauthn", "recovery_codes"]
MFA_PASSKEY_LOGIN_ENABLED = True
MFA_TOTP_ISSUER = "Stefna"
# The clock of a phone may be a little off.
MFA_TOTP_TOLERANCE = 1
# Browsers allow passkeys on http://localhost; here it has to be allowed as well.
MFA_WEBAUTHN_ALLOW_INSECURE_ORIGIN = DEBUG
# Where addresses are verified, nobody may lock the owner of an address out of an account made with it.
MFA_ALLOW_UNVERIFIED_EMAIL = ACCOUNT_EMAIL_VERIFICATION != "mandatory"

# Their tables are always there, so that accounts can be deleted whatever is set; their buttons only when set.
GOOGLE_CLIENT_ID = env("GOOGLE_CLIENT_ID", default="")
GOOGLE_CLIENT_SECRET = env("GOOGLE_CLIENT_SECRET", default="")
APPLE_CLIENT_ID = env("APPLE_CLIENT_ID", default="")
APPLE_TEAM_ID = env("APPLE_TEAM_ID", default="")
APPLE_KEY_ID = env("APPLE_KEY_ID", default="")
APPLE_PRIVATE_KEY = env.str("APPLE_PRIVATE_KEY", default="", multiline=True)
SOCIALACCOUNT_PROVIDERS: dict[str, dict[str, Any]] = {}
SIGN_IN_HOSTS = []
if GOOGLE_CLIENT_ID and GOOGLE_CLIENT_SECRET:
    INSTALLED_APPS.append("allauth.socialaccount.providers.google")
    SIGN_IN_HOSTS.append("https://accounts.google.com")
    SOCIALACCOUNT_PROVIDERS["google"] = {
        "APPS": [{"client_id": GOOGLE_CLIENT_ID, "secret": GOOGLE_CLIENT_SECRET}],
        "OAUTH_PKCE_ENABLED": True,
    }
if APPLE_CLIENT_ID and APPLE_TEAM_ID and APPLE_KEY_ID and APPLE_PRIVATE_KEY:
    INSTALLED_APPS.append("allauth.socialaccount.providers.apple")
    SIGN_IN_HOSTS.append("https://appleid.apple.com")
    # allauth's names for these are its own: the secret is the key's id, the key is the team's.
    SOCIALACCOUNT_PROVIDERS["apple"] = {
        "APPS": [
            {
                "client_id": APPLE_CLIENT_ID,
                "secret": APPLE_KEY_ID,
                "key": APPLE_TEAM_ID,
                "settings": {"certificate_key": APPLE_PRIVATE_KEY},
            }
        ]
    }
# Both verify addresses, so one that we know as verified is the same person.
SOCIALACCOUNT_EMAIL_AUTHENTICATION = SOCIALACCOUNT_EMAIL_AUTHENTICATION_AUTO_CONNECT = True
# Everybody may try an installation that costs its owner nothing.
ALLOW_GUESTS = env.bool("ALLOW_GUESTS", default=not (AIML_API_KEY or AIML_ENDPOINTS))

EMAIL_CONFIG = env.email("EMAIL_URL", default="consolemail://")
if EMAIL_CONFIG["EMAIL_BACKEND"].endswith("smtp.EmailBackend"):
    EMAIL_CONFIG["EMAIL_BACKEND"] = "stefna.smtp.EmailBackend"
vars().update(EMAIL_CONFIG)
# For each read, and for all of a mail.
EMAIL_TIMEOUT, EMAIL_CALL_SECONDS = 10, 20
# Where links lead that a worker writes into e-mails: it has no request to take the host from.
SITE_URL = env("SITE_URL", default="http://127.0.0.1:8000").rstrip("/")
DEFAULT_FROM_EMAIL = env("DEFAULT_FROM_EMAIL", default="Stefna <stefna@localhost>")

# -- Runs --------------------------------------------------------------------------------------------------

# Threads of this process that make pictures; they have work only where there is no queue engine.
RUN_WORKER_THREADS = env.int("RUN_WORKER_THREADS", default=2)
RUN_LEASE_SECONDS = env.int("RUN_LEASE_SECONDS", default=90)
RUN_HEARTBEAT_SECONDS = env.int("RUN_HEARTBEAT_SECONDS", default=15)
RUN_DEADLINE_SECONDS = env.int("RUN_DEADLINE_SECONDS", default=600)
# Where nothing has to be paid there is no limit by default.
DAILY_RUN_LIMIT = env.int("DAILY_RUN_LIMIT", default=50 if AIML_API_KEY or AIML_ENDPOINTS else 0)
MAX_ACTIVE_RUNS = env.int("MAX_ACTIVE_RUNS", default=10)
# Of one client address, of IPv6 its first half: see accounts/limits.py. 0 is no limit, as everywhere below.
GUESTS_PER_ADDRESS_DAILY = env.int("GUESTS_PER_ADDRESS_DAILY", default=20)
UPLOADS_PER_ADDRESS_HOURLY = env.int("UPLOADS_PER_ADDRESS_HOURLY", default=600)
PREVIEWS_PER_ADDRESS_MINUTE = env.int("PREVIEWS_PER_ADDRESS_MINUTE", default=240)
RUNS_PER_ADDRESS_DAILY = env.int("RUNS_PER_ADDRESS_DAILY", default=500)
# Of one account: pictures that a safety filter hid, which have to be paid.
FILTERED_RUNS_DAILY = env.int("FILTERED_RUNS_DAILY", default=10)
# Of the installation.
DAILY_BILLED_CALLS_LIMIT = env.int("DAILY_BILLED_CALLS_LIMIT", default=0)
MAX_STORED_MB = env.int("MAX_STORED_MB", default=5000)
MAX_STORED_MB_GUEST = env.int("MAX_STORED_MB_GUEST", default=100)
MAX_PHOTO_BYTES = env.int("MAX_PHOTO_BYTES", default=15_000_000)
# No form of ours has two files; another one is refused before it is read.
DATA_UPLOAD_MAX_NUMBER_FILES = 1
MAX_PHOTO_PIXELS = env.int("MAX_PHOTO_PIXELS", default=40_000_000)
MAX_PHOTO_SIDE = env.int("MAX_PHOTO_SIDE", default=2048)

# -- Image processes ---------------------------------------------------------------------------------------

# Of each process that serves or works, started on first use. With one alone an upload would wait for every run.
IMAGE_PROCESSES = env.int("IMAGE_PROCESSES", default=max(2, os.cpu_count() or 1))
# Processor seconds and memory of one job; the estimated memory of all jobs at a time.
IMAGE_JOB_SECONDS = env.int("IMAGE_JOB_SECONDS", default=20)
IMAGE_JOB_MEMORY_MB = env.int("IMAGE_JOB_MEMORY_MB", default=1024)
IMAGE_MEMORY_MB = env.int("IMAGE_MEMORY_MB", default=900)

# -- The queue engine --------------------------------------------------------------------------------------

CELERY_BROKER_URL = env("CELERY_BROKER_URL", default="")
CELERY_TASK_IGNORE_RESULT = True
# A message is done when its run is: one whose worker died is delivered again. The row's lease guards it in any case.
CELERY_TASK_ACKS_LATE = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_ENABLE_REMOTE_CONTROL = False
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None
# A page waits this long for a broker that is away; the run is in its row by then and is found again.
CELERY_BROKER_CONNECTION_TIMEOUT = 2
if CELERY_BROKER_URL.startswith("redis"):
    CELERY_BROKER_TRANSPORT_OPTIONS = {
        "visibility_timeout": 900,
        "socket_connect_timeout": 2,
        "socket_timeout": 15,
        "socket_keepalive": True,
        "health_check_interval": 10,
    }
CELERY_BEAT_SCHEDULE = {"clean_up": {"task": "generation.clean_up", "schedule": 3600}}
CELERY_BEAT_SCHEDULE_FILENAME = str(STATE_DIR / "beat")

# -- Defences ----------------------------------------------------------------------------------------------

CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'none'"],
        "script-src": ["'self'"],
        "style-src": ["'self'"],
        "font-src": ["'self'"],
        # blob: shows the photo that was just chosen before it is sent; data: is Pico's form icons.
        "img-src": ["'self'", "blob:", "data:", *PICTURE_HOSTS],
        "connect-src": ["'self'"],
        "manifest-src": ["'self'"],
        # A form that is answered with a redirect has to be allowed where that leads.
        "form-action": ["'self'", *SIGN_IN_HOSTS],
        "object-src": ["'none'"],
        "base-uri": ["'none'"],
        "frame-ancestors": ["'none'"],
    }
}
X_FRAME_OPTIONS = "DENY"
SECURE_REFERRER_POLICY = "same-origin"
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_HTTPONLY = True
CSRF_FAILURE_VIEW = "stefna.problems.csrf_failed"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = not DEBUG
SECURE_SSL_REDIRECT = not DEBUG
SECURE_HSTS_SECONDS = 0 if DEBUG else 365 * 24 * 3600
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = not DEBUG
if TRUSTED_PROXIES:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")

# -- The API -----------------------------------------------------------------------------------------------

# Keys of mobile clients, several at once so that they can be replaced: name=key,name=key.
APP_KEYS = env.dict("APP_KEYS", default={"dev": "dev"} if DEBUG else {})
# Signs every API call in as one developer; without DEBUG it does nothing, and `check --deploy` refuses it.
DEV_ALLOW_NOAUTH = env.bool("DEV_ALLOW_NOAUTH", default=False)
HEADLESS_CLIENTS = ["app"]
HEADLESS_TOKEN_STRATEGY = "accounts.authentication.SessionTokens"  # noqa: S105  (a class, no secret)
# Our own description is made of it.
HEADLESS_SERVE_SPECIFICATION = True
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "accounts.authentication.AppSession",
        "accounts.authentication.PageSession",
        *(["accounts.authentication.DeveloperWithoutSignIn"] if DEBUG and DEV_ALLOW_NOAUTH else []),
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["accounts.parsers.JSONParser", "accounts.parsers.MultiPartParser"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "stefna.problems.AlwaysJSON",
    "DEFAULT_FILTER_BACKENDS": ["django_filters.rest_framework.DjangoFilterBackend"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "DEFAULT_THROTTLE_RATES": {"upload": "120/min", "change": "600/min", "poll": "1200/min"},
    "EXCEPTION_HANDLER": "stefna.problems.handle_exception",
    "NUM_PROXIES": TRUSTED_PROXIES,
    "URL_FORMAT_OVERRIDE": None,
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Stefna",
    "DESCRIPTION": "Change photos with AI presets: send a photo, choose a look, get a picture that is kept.",
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_AUTHENTICATION": [],
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "COMPONENT_SPLIT_REQUEST": True,
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "ENUM_NAME_OVERRIDES": {
        "RunModeEnum": "generation.modes.Mode",
        "BatchModeEnum": "generation.modes.BATCH_CHOICES",
        "RunStatusEnum": "generation.models.Run.Status",
    },
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "stefna.schema.forget_the_database",
        "stefna.schema.add_problems",
        "stefna.schema.add_sign_in",
    ],
}

# -- Language, time, logs ----------------------------------------------------------------------------------

LANGUAGE_CODE = "en"
# A language is a folder in locale/ and a line here; its name is written in itself, for whoever looks for it.
LANGUAGES = [("en", "English"), ("de", "Deutsch")]
LOCALE_PATHS = [BASE_DIR / "locale"]
USE_I18N = True
TIME_ZONE = "UTC"
USE_TZ = True

LOG_FORMAT = env("LOG_FORMAT", default="text" if DEBUG else "json")
_log_steps: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True, key="timestamp"),
]
structlog.configure(
    processors=[*_log_steps, counters.count_event, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
    logger_factory=structlog.stdlib.LoggerFactory(),
    cache_logger_on_first_use=True,
)
LOGGING_CONFIG = None
LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "events": {
            "()": structlog.stdlib.ProcessorFormatter,
            "foreign_pre_chain": _log_steps,
            "processors": [
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *(
                    [
                        # Without the values of variables: they hold passwords and keys, and showing a queryset asks
                        # the database, in the middle of logging that it does not answer.
                        structlog.processors.ExceptionRenderer(
                            structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
                        ),
                        structlog.processors.JSONRenderer(),
                    ]
                    if LOG_FORMAT == "json"
                    else [
                        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
                    ]
                ),
            ],
        }
    },
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "events"}},
    "root": {"handlers": ["console"], "level": "WARNING"},
    "loggers": {
        # Without Django's own handlers: every line of the process has one shape.
        "django": {"level": "INFO", "handlers": [], "propagate": True},
        "accounts": {"level": "INFO"},
        "generation": {"level": "INFO"},
        "notifications": {"level": "INFO"},
        "stefna": {"level": "INFO"},
    },
}
logging.config.dictConfig(LOGGING)
