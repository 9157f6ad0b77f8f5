"""The pool of image processes, with real processes: what a file can do to it, and what it cannot."""

import ast
import io
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from django.conf import settings as django_settings
from PIL import Image

from conftest import small
from generation.engine.exceptions import DecodeError, TooCostly
from generation.engine.headers import read_header
from generation.exceptions import ImageProcessingBusy
from generation.images import processing
from generation.images.processing import Share
from generation.tests.images.files import CRASH, lossless_webp, many_scans
from generation.tests.images.mutations import mutations
from stefna.tests.faults.web import children_of
from stefna.tests.waiting import WAIT_SECONDS, wait_until

LIMITS = {"pixels": 80_000_000}
PHOTO = small("portrait")
WIDTH = read_header(PHOTO).width
ROOT = Path(__file__).parents[3]
# Names of the package, not modules of it.
PACKAGE = ("UnidentifiedImageError", "__version__", "_plugins")


def normalised(data=PHOTO, share=Share.UPLOAD):
    return processing.normalise(data, LIMITS, share=share, max_side=2048, thumbnail_side=480)


@pytest.fixture
def pool(settings):
    """A pool of the test's own, made with the settings that the test has changed."""
    processing._pool.cache_clear()
    yield processing._pool
    for process in processing._pool()._idle:
        process.end()
    processing._pool.cache_clear()


@pytest.fixture
def events(caplog):
    def logged(name):
        found = [record.msg for record in caplog.records if isinstance(record.msg, dict)]
        return [event["code"] for event in found if event["event"] == name]

    caplog.set_level("INFO")
    return logged


def idle_process(pool):
    """Return the number of the only process of a pool, started if need be."""
    normalised()
    (process,) = pool()._idle
    return process.pid


# -- What a file can do ------------------------------------------------------------------------------------------


def test_picture_that_crashes_a_decoder_is_refused_and_no_other(events):
    with ThreadPoolExecutor(8) as threads:
        poison = [threads.submit(normalised, CRASH) for _ in range(4)]
        innocent = [threads.submit(normalised) for _ in range(8)]
        assert [type(job.exception()) for job in poison] == [TooCostly] * 4
        assert {job.result().picture.width for job in innocent} == {WIDTH}
    # It is tried once more: a process may be killed through no fault of its picture.
    assert events("image_process_killed") == ["SIGSEGV"] * 8
    assert events("image_refused") == ["too_costly"] * 4


def test_many_pictures_that_crash_are_all_refused_and_not_told_to_come_back(pool, monkeypatch):
    # On a busy machine each takes long to die, and the last would wait too long for its turn.
    monkeypatch.setattr(Share.UPLOAD, "wait_seconds", WAIT_SECONDS)
    with ThreadPoolExecutor(20) as threads:
        poison = [threads.submit(normalised, CRASH) for _ in range(20)]
        assert {type(job.exception()) for job in poison} == {TooCostly}


def test_picture_that_takes_too_long_is_refused(pool, settings, events, monkeypatch):
    monkeypatch.setattr(processing, "WALL_FACTOR", WAIT_SECONDS)
    settings.IMAGE_JOB_SECONDS = 1
    slow = many_scans(100, size=(9000, 8000))
    with pytest.raises(TooCostly):
        normalised(slow)
    assert events("image_process_killed") == ["SIGXCPU"]
    assert normalised()


def test_small_picture_that_takes_long_begins_again_as_a_large_one(pool, settings, events, monkeypatch):
    monkeypatch.setattr(processing, "FIRST_CPU_SECONDS", 1)
    # As if its header had not shown it.
    monkeypatch.setattr(processing, "LARGE_SCAN_PIXELS", 10**12)
    settings.IMAGE_JOB_SECONDS = WAIT_SECONDS
    assert normalised(many_scans(100, size=(9000, 8000)))
    assert events("image_process_killed") == ["SIGXCPU"]


def test_picture_that_takes_too_much_memory_is_refused(pool, settings, events):
    settings.IMAGE_JOB_MEMORY_MB = 200
    with pytest.raises(DecodeError):
        normalised(lossless_webp())
    assert normalised()
    assert events("image_process_killed") == []


def test_estimate_of_a_large_picture_covers_what_it_takes(pool):
    pid = idle_process(pool)
    before = peak_memory(pid)
    data = lossless_webp()
    normalised(data)
    job = processing._Job("normalise", {}, Share.UPLOAD).measured(data, max_side=2048)
    assert peak_memory(pid) - before <= job.memory <= django_settings.IMAGE_MEMORY_MB * 1_000_000
    # So two of them are never decoded at a time.
    assert 2 * job.memory > django_settings.IMAGE_MEMORY_MB * 1_000_000


def peak_memory(pid):
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def test_no_mutation_is_an_error_of_ours():
    """A thousand broken files: each is decoded or refused, and every innocent photo beside them is decoded."""

    def outcome(mutation):
        name, data = mutation
        try:
            return normalised(data)
        except DecodeError:
            return None
        except Exception as error:
            raise AssertionError(name) from error

    with ThreadPoolExecutor(4) as threads:
        broken = threads.map(outcome, mutations(1000, seed=5))
        innocent = [threads.submit(normalised) for _ in range(20)]
        assert len(list(broken)) == 1000
        assert {job.result().picture.width for job in innocent} == {WIDTH}


# -- What happens to a process -----------------------------------------------------------------------------------


def test_killed_process_costs_nothing(pool, events):
    os.kill(idle_process(pool), signal.SIGKILL)
    assert normalised()
    assert events("image_process_killed") == ["SIGKILL"]


def test_process_that_ends_by_a_signal_without_a_name_is_closed_once(pool, events):
    pid = idle_process(pool)
    (process,) = pool()._idle
    os.kill(pid, signal.SIGRTMIN + 1)
    assert process.end() == "signal"
    ends = os.pipe()
    assert process.end() == "signal"
    for end in ends:
        os.close(end)


def test_estimate_counts_what_scans_keep():
    """Of several scans libjpeg keeps all coefficients, at two bytes each, whatever the size that is wanted."""
    one, many = many_scans(10, size=(4000, 3000)), saved_baseline((4000, 3000))
    estimates = [
        processing._Job("normalise", {}, Share.UPLOAD).measured(data, max_side=256).memory for data in (one, many)
    ]
    assert estimates[0] - estimates[1] > 0.95 * 4000 * 3000 * 3 * 2


def saved_baseline(size):
    out = io.BytesIO()
    Image.new("RGB", size, "teal").save(out, "JPEG")
    return out.getvalue()


def test_killed_template_costs_nothing(pool, events):
    first = idle_process(pool)
    template = pool()._template
    template._process.kill()
    template._process.wait()
    assert idle_process(pool) == first
    os.kill(first, signal.SIGKILL)
    assert idle_process(pool) != first
    assert events("image_process_killed") == ["unknown"]


def test_process_killed_in_the_middle_costs_nothing(pool, settings, events):
    pid = idle_process(pool)
    os.kill(pid, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as threads:
        job = threads.submit(normalised)
        wait_until(lambda: pool()._running)
        os.kill(pid, signal.SIGKILL)
        assert job.result().picture.width == WIDTH
    assert set(events("image_process_killed")) == {"SIGKILL"}


def test_process_that_stands_still_is_not_the_photos_fault(pool, settings, events):
    os.kill(idle_process(pool), signal.SIGSTOP)
    settings.IMAGE_JOB_SECONDS = 1
    with pytest.raises(ImageProcessingBusy):
        normalised()
    settings.IMAGE_JOB_SECONDS = WAIT_SECONDS
    assert events("image_process_killed") == ["deadline"]
    assert normalised()


def test_process_is_replaced_after_so_many_jobs(pool, monkeypatch):
    monkeypatch.setattr(processing, "JOBS_PER_PROCESS", 2)
    first = idle_process(pool)
    normalised()
    assert pool()._idle == []
    assert idle_process(pool) != first


def test_nobody_is_left_behind_when_the_parent_is_killed():
    """Neither an idle process nor one in the middle of a decoder outlives its parent."""
    program = """
        import os, sys, threading, time
        import django
        django.setup()
        from django.conf import settings
        settings.IMAGE_JOB_SECONDS = 10_000
        from generation.images import processing
        from generation.images.processing import Share
        from generation.tests.images.files import many_scans
        from generation.tests.images.test_processing import normalised
        normalised()
        slow = many_scans(100, size=(6000, 6000))
        threading.Thread(target=normalised, args=[slow, Share.BACKGROUND]).start()
        while not processing._pool()._running:
            time.sleep(0.01)
        idle = processing._Process(processing._pool()._template)
        print("ready", flush=True)
        time.sleep(10_000)
    """
    environment = os.environ | {"DJANGO_SETTINGS_MODULE": "stefna.settings"}
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], cwd=ROOT, env=environment, stdout=subprocess.PIPE
    )
    assert parent.stdout.readline() == b"ready\n"
    (template,) = children_of(parent.pid)
    processes = [template, *children_of(template)]
    assert len(processes) == 3
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_until(lambda: not any(Path(f"/proc/{process}").exists() for process in processes))


# -- Who may wait ------------------------------------------------------------------------------------------------


@pytest.fixture
def occupied(pool, settings):
    """A pool whose only process works on a run and stands still."""
    settings.IMAGE_PROCESSES = 1
    pid = idle_process(pool)
    os.kill(pid, signal.SIGSTOP)
    with ThreadPoolExecutor(70) as threads:
        running = threads.submit(normalised, PHOTO, Share.BACKGROUND)
        wait_until(lambda: pool()._running)
        yield threads
        resume()
        assert running.result(WAIT_SECONDS).picture.width == WIDTH


@pytest.mark.parametrize("share", [Share.UPLOAD, Share.PREVIEW])
def test_full_pool_is_said_at_once_and_those_who_wait_are_served(occupied, pool, share, events, monkeypatch):
    monkeypatch.setattr(share, "wait_seconds", WAIT_SECONDS)
    waiting = [occupied.submit(normalised, PHOTO, share) for _ in range(share.max_waiting)]
    wait_until(lambda: len(pool()._waiting) == share.max_waiting)
    with pytest.raises(ImageProcessingBusy) as refused:
        normalised(PHOTO, share)
    assert refused.value.headers == {"Retry-After": "5"}
    assert events("image_pool_full") == [share.name.lower()]
    resume()
    assert {job.result(WAIT_SECONDS).picture.width for job in waiting} == {WIDTH}


def test_large_uploads_take_no_place_of_small_ones(occupied, pool, monkeypatch):
    monkeypatch.setattr(Share.UPLOAD, "wait_seconds", WAIT_SECONDS)
    arguments = {"data": PHOTO, "limits": LIMITS, "max_side": 2048, "thumbnail_side": 480, "source_type": ""}
    large = processing._Job("normalise", arguments, Share.UPLOAD, large=True)
    waiting = [occupied.submit(pool().run, replace(large)) for _ in range(processing.MAX_LARGE_WAITING)]
    wait_until(lambda: len(pool()._waiting) == len(waiting))
    with pytest.raises(ImageProcessingBusy):
        pool().run(large)
    small_one = occupied.submit(normalised)
    wait_until(lambda: len(pool()._waiting) == len(waiting) + 1)
    resume()
    assert small_one.result(WAIT_SECONDS).picture.width == WIDTH
    assert [job.result(WAIT_SECONDS)["format"] for job in waiting] == ["JPEG"] * len(waiting)


def resume():
    """Let the stopped process of a pool go on."""
    for template in children_of(os.getpid()):
        for process in children_of(template):
            os.kill(process, signal.SIGCONT)


def test_nobody_waits_for_ever(occupied, monkeypatch, events):
    monkeypatch.setattr(Share.UPLOAD, "wait_seconds", 0.2)
    with pytest.raises(ImageProcessingBusy):
        normalised()
    assert events("image_pool_full") == ["upload"]


def test_large_estimate_is_not_passed_for_ever(pool, settings, monkeypatch):
    """Small uploads go on coming: a job that needs all the memory gets its turn all the same."""
    settings.IMAGE_PROCESSES = 3
    settings.IMAGE_MEMORY_MB = 3 * processing.BASE_BYTES // processing.MEGABYTE
    monkeypatch.setattr(Share.UPLOAD, "wait_seconds", WAIT_SECONDS)
    arguments = {"data": PHOTO, "limits": LIMITS, "max_side": 2048, "thumbnail_side": 480, "source_type": ""}
    costly = processing._Job("normalise", arguments, Share.UPLOAD, memory=3 * processing.BASE_BYTES, large=True)
    stop = threading.Event()

    def upload_again_and_again():
        while not stop.is_set():
            normalised()

    with ThreadPoolExecutor(5) as threads:
        try:
            uploads = [threads.submit(upload_again_and_again) for _ in range(4)]
            wait_until(lambda: len(pool()._running) >= 2)
            answer = threads.submit(pool().run, costly)
            wait_until(lambda: [job for job in pool()._waiting if job.memory == costly.memory])
            # Half of the time that it may wait is over.
            (waiting,) = [job for job in pool()._waiting if job.memory == costly.memory]
            object.__setattr__(waiting, "since", waiting.since - WAIT_SECONDS / 2)
            assert answer.result(WAIT_SECONDS)["format"] == "JPEG"
        finally:
            stop.set()
    for upload in uploads:
        upload.result(WAIT_SECONDS)


@pytest.mark.parametrize(("waited", "next_one"), [(0.4, "small"), (0.6, None)])
def test_job_that_lacks_memory_is_passed_for_half_of_its_time(pool, settings, waited, next_one):
    settings.IMAGE_PROCESSES = 3
    settings.IMAGE_MEMORY_MB = 3 * processing.BASE_BYTES // processing.MEGABYTE
    since = time.monotonic() - waited * Share.UPLOAD.wait_seconds
    costly = processing._Job("costly", {}, Share.UPLOAD, memory=3 * processing.BASE_BYTES, large=True, since=since)
    small_one = processing._Job("small", {}, Share.UPLOAD, since=time.monotonic())
    pool()._waiting = [costly, small_one]
    pool()._running = [small_one]
    job = pool()._next()
    assert (job and job.name) == next_one
    # Where it lacks a process and not memory, small uploads take nothing from it.
    pool()._keeps_one_for_uploads = True
    pool()._running = [replace(costly, memory=0), replace(costly, memory=0)]
    assert pool()._next() is small_one
    pool()._waiting = pool()._running = []


def test_one_process_is_kept_for_small_uploads(pool, settings):
    settings.IMAGE_PROCESSES = 2
    normalised()
    jobs = {share: processing._Job("normalise", {}, share) for share in Share}
    large = processing._Job("normalise", {}, Share.UPLOAD, large=True)
    for first in (jobs[Share.BACKGROUND], jobs[Share.PREVIEW], large):
        pool()._running = [first]
        assert [pool()._fits(job) for job in (*jobs.values(), large)] == [True, False, False, False, False]
    pool()._running = []


def test_process_that_serves_no_uploads_keeps_none(pool, settings):
    settings.IMAGE_PROCESSES = 2
    background = processing._Job("normalise", {}, Share.BACKGROUND)
    pool()._running = [background]
    assert pool()._fits(background)
    pool()._running = []


# -- What a process may do ---------------------------------------------------------------------------------------


def test_process_opens_nothing_knows_no_django_and_has_no_secrets():
    program = """
        import socket, sys
        from generation.images import child
        child._warm_up()
        child._limit(300)
        for forbidden in (lambda: open("/etc/passwd"), socket.socket):
            try:
                forbidden()
            except OSError as error:
                print(error.errno, end=" ")
        try:
            bytearray(400_000_000)
        except MemoryError:
            print("no memory", end=" ")
        print([name for name in sys.modules if name.split(".")[0] in ("django", "stefna", "accounts")])
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], cwd=ROOT, env={}, capture_output=True, text=True, check=True
    )
    assert done.stdout == "24 24 no memory []\n"


def test_pillow_has_nothing_left_to_load():
    """What its modules import inside of functions is loaded, but for types and what shows pictures on a screen."""
    program = """
        import ast, sys
        from pathlib import Path
        from generation.images import child
        child._warm_up()
        names = set()
        for loaded in ("Image", "ImageFile", "ImageOps", "JpegImagePlugin", "MpoImagePlugin", "PngImagePlugin",
                       "TiffImagePlugin", "WebPImagePlugin", "ImageCms", "ImagePalette"):
            tree = ast.parse(Path(sys.modules[f"PIL.{loaded}"].__file__).read_text())
            for node in ast.walk(tree):
                if isinstance(node, ast.ImportFrom) and node.level:
                    names |= {node.module} if node.module else {alias.name for alias in node.names}
        print(sorted(name for name in names if f"PIL.{name}" not in sys.modules))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], cwd=ROOT, env={}, capture_output=True, text=True, check=True
    )
    assert set(ast.literal_eval(done.stdout)) <= {"ImageQt", "ImageShow", "ImageWin", "_typing", *PACKAGE}


def test_process_inherits_no_setting(pool, monkeypatch):
    monkeypatch.setenv("AIML_API_KEY", "secret")
    environment = Path(f"/proc/{idle_process(pool)}/environ").read_text()
    assert "secret" not in environment
    assert "SECRET_KEY" not in environment


def test_process_that_serves_loads_no_decoder():
    """What is not loaded cannot crash: Pillow, OpenCV and NumPy are loaded by image processes only."""
    program = """
        import os, sys
        import django
        django.setup()
        from django.urls import get_resolver
        get_resolver().url_patterns
        from generation import photos, showing, tryout
        from generation.providers import PROVIDERS, get_image_provider
        for name in PROVIDERS:
            get_image_provider(name)
        print([name for name in ("PIL", "cv2", "numpy", "pi_heif") if name in sys.modules])
    """
    environment = os.environ | {"DJANGO_SETTINGS_MODULE": "stefna.settings"}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"


def test_every_open_names_its_formats():
    for app in ("accounts", "generation", "notifications", "stefna"):
        for path in (ROOT / app).rglob("*.py"):
            if "tests" not in path.parts:
                calls = path.read_text().split("Image.open(")[1:]
                assert all("formats=" in call.partition("\n")[0] for call in calls), path


def test_reply_that_is_not_in_order_is_refused():
    with pytest.raises(ValueError, match="missing"):
        processing.wire.unpack(b'{"result": {"$bytes": 9}}', memoryview(b"few"))


def test_bug_of_ours_is_no_fault_of_the_picture(pool):
    job = processing._Job("render", {"photo": PHOTO, "recipe": {"steps": [{}]}, "strength": 1, "seed": 1}, Share.UPLOAD)
    with pytest.raises(RuntimeError, match="KeyError"):
        pool().run(job)
    assert normalised()
