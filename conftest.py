"""What the tests of every app share: Alice, who owns things, Bob, who does not, and real photos."""

import copy
import io
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from django.contrib.auth.models import Permission
from django.core.management import call_command
from django.db import connection, connections, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import translation
from PIL import Image

from accounts.models import User
from generation import photos, services, tasks
from generation.models import Photo, Preset, Run
from notifications.models import Notification
from stefna.tests.environment import SERVICES
from stefna.tests.stage import just_signed_in
from stefna.tests.waiting import WAIT_SECONDS

# Catalogues are compiled, not committed.
call_command("compilemessages")
# Workers of a queue engine are tested where there is one, on a database that they can share; so is that database.
collect_ignore = [] if SERVICES else ["stefna/tests/test_workers.py", "stefna/tests/faults/test_postgres.py"]

SAMPLES = Path(__file__).parent / "static" / "img" / "samples"


@pytest.fixture(autouse=True)
def storage_of_its_own(settings, tmp_path):
    settings.MEDIA_ROOT = tmp_path / "media"
    settings.MEDIA_ROOT.mkdir()
    settings.STORAGES = settings.STORAGES | {
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
    }
    # What one test puts into the cache, a limit that it has used up among it, is nothing to the next one.
    settings.CACHES = {
        "default": settings.CACHES["default"] | {"KEY_PREFIX": uuid.uuid4().hex},
        "previews": settings.CACHES["previews"] | {"LOCATION": tmp_path / "previews"},
    }
    # Every new client would look at all static files. A test's server finds each when it is asked for.
    settings.WHITENOISE_AUTOREFRESH = True
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture(autouse=True)
def speaks_english():
    """A page leaves its visitor's language behind in the thread, and the next test may ask without a page."""
    with translation.override("en"):
        yield


@pytest.fixture
def alice(db):
    return User.objects.create_user("alice@example.com", "a-password-of-alice")


@pytest.fixture
def bob(db):
    return User.objects.create_user("bob@example.com", "a-password-of-bob")


@pytest.fixture
def owner(db):
    """The owner's browser, just signed in to the admin site."""
    return just_signed_in(User.objects.create_superuser("owner@example.com", "a-password-of-the-owner"))


@pytest.fixture
def staff(db):
    """Sign somebody in to the admin site who may do some things and nothing else."""

    def signed_in(*permissions: str) -> Client:
        user = User.objects.create_user(f"{uuid.uuid4().hex}@example.com", is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
        client = Client()
        client.force_login(user)
        return client

    return signed_in


def asked_for(client: Client, url: str) -> int:
    """Count the queries of a page that is there."""
    with CaptureQueriesContext(connection) as asked:
        assert client.get(url).status_code == 200
    return len(asked)


@pytest.fixture(scope="session")
def catalogue_rows(django_db_setup, django_db_blocker):
    """The catalogue as it is loaded; that takes a while, and many tests begin with it."""
    with django_db_blocker.unblock(), transaction.atomic():
        call_command("load_presets", verbosity=0)
        rows = list(Preset.objects.all())
        transaction.set_rollback(True)
    return rows


@pytest.fixture
def catalogue(db, catalogue_rows):
    Preset.objects.bulk_create(copy.copy(row) for row in catalogue_rows)
    return Preset.objects.all()


@pytest.fixture
def preset(catalogue):
    return catalogue.get(slug="express_enhance")


def small(name: str, side: int = 320) -> bytes:
    """A sample photo, small enough that a hundred runs of it take no time."""
    with Image.open(SAMPLES / f"{name}.jpg") as image:
        image.thumbnail((side, side))
        out = io.BytesIO()
        image.save(out, "JPEG", quality=90)
    return out.getvalue()


def in_parallel(count, call):
    """Call from so many threads at the same moment; return each one's answer or exception."""
    barrier = threading.Barrier(count)

    def one(number):
        try:
            barrier.wait(WAIT_SECONDS)
            return call(number)
        except Exception as error:  # noqa: BLE001  (it is what the test asks about)
            return error
        finally:
            connections.close_all()

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


@pytest.fixture
def upload():
    return photos.Upload(small("portrait"), "portrait.jpg")


@pytest.fixture
def photo(alice, upload) -> Photo:
    return photos.accept(alice, upload)


@pytest.fixture
def start(alice, photo, preset):
    """Start a run of Alice's photo; each is a new one."""

    def start_run(**changes) -> Run:
        return services.start_run(
            **{"user": alice, "photo": photo, "preset": preset, "key": uuid.uuid4().hex} | changes
        )

    return start_run


@pytest.fixture
def work():
    """Work on every run that is due, as a worker does, and return how many there were."""

    def work_on_all() -> int:
        done = 0
        while run_id := Run.objects.due().values_list("pk", flat=True).first():
            done += tasks.process(run_id)
        return done

    return work_on_all


# -- What holds after every test -------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    result = yield
    has_database = {"db", "transactional_db"} & set(item.fixturenames) or item.get_closest_marker("django_db")
    if has_database and not connection.needs_rollback and not item.get_closest_marker("rows_by_hand"):
        nothing_is_lost_and_nothing_made_up()
    return result


def nothing_is_lost_and_nothing_made_up():
    """See that every run that ended has its news, and no other, and that none is worked on by nobody."""
    told = dict(Notification.objects.exclude(kind="batch_done").values_list("subject", "kind"))
    for run in Run.objects.filter(deleted_at=None):
        expected = {"succeeded": "run_succeeded", "failed": "run_failed"}.get(run.status)
        assert told.get(run.pk) == expected, f"{run.pk} is {run.status}, its user was told {told.get(run.pk)}"
        assert run.worker or run.status != "running", f"{run.pk} is worked on by nobody"
