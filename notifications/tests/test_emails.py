"""E-mail when a run ends and nobody is looking: who gets one, what it says, and that nothing waits for it."""

import email
import io
import logging
import re
import threading
import time
import uuid

import pytest
from django.conf import settings as django_settings
from django.core import mail
from django.core.cache import cache
from django.core.mail import EmailMessage
from django.db import connection, connections
from django.test import Client
from django.urls import reverse
from structlog.stdlib import ProcessorFormatter

from accounts.models import Profile, User
from generation import attempts, services
from generation.models import Run
from generation.modes import Mode
from notifications import emails
from notifications.models import Notification
from notifications.tests.smtp_server import MailServer
from stefna.tests.waiting import WAIT_SECONDS

pytestmark = pytest.mark.django_db(transaction=True)

SITE = "https://stefna.example"


@pytest.fixture(autouse=True)
def site(settings, monkeypatch):
    settings.SITE_URL = SITE
    monkeypatch.setattr(emails, "PAUSE_SECONDS", (0.05, 0.05))


@pytest.fixture
def leave():
    """Whoever asked for these is not looking any more."""

    def forget(*runs):
        cache.delete_many([f"looking:{run.batch or run.pk}" for run in runs])

    return forget


@pytest.fixture
def sent(work):
    """Work on what is due, wait for the mails, and return them."""

    def work_and_wait():
        work()
        assert emails.finish(WAIT_SECONDS)
        return mail.outbox

    return work_and_wait


@pytest.fixture
def log(monkeypatch):
    written = io.StringIO()
    for handler in logging.getLogger().handlers:
        if isinstance(handler.formatter, ProcessorFormatter):
            monkeypatch.setattr(handler, "stream", written)
    return written


@pytest.fixture
def serve(settings):
    servers = []

    def start(**how):
        servers.append(MailServer(**how))
        settings.EMAIL_BACKEND = "stefna.smtp.EmailBackend"
        settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", servers[-1].port
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


def link(message):
    return re.search(rf"{SITE}(/notifications/off/\S+)", message.body)[1]


# -- Who gets one --------------------------------------------------------------------------------------------


def test_run_that_ends_unseen_is_written_about_in_text_and_html(start, leave, sent):
    run = start()
    leave(run)
    (message,) = sent()
    assert (message.to, message.subject) == (["alice@example.com"], "Express Enhance is ready")
    assert message.message().get_content_type() == "multipart/alternative"
    ((html, kind),) = message.alternatives
    assert kind == "text/html"
    for body in (message.body, html):
        assert f"{SITE}{run.get_absolute_url()}" in body
        assert f"{SITE}{link(message)}" in body
        assert "Your picture is done." in body
    assert message.extra_headers == {
        "List-Unsubscribe": f"<{SITE}{link(message)}>",
        "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
        "Auto-Submitted": "auto-generated",
    }
    assert message.attachments == []


def test_failed_run_is_written_about_with_its_reason(start, leave, monkeypatch, sent):
    def fail(run):
        raise RuntimeError

    monkeypatch.setattr(attempts, "_attempt", fail)
    run = start()
    leave(run)
    (message,) = sent()
    run.refresh_from_db()
    assert message.subject == "Express Enhance did not work"
    assert f"{run.error_message} You were not charged." in message.body


def test_who_has_just_asked_is_still_looking(start, sent):
    start()
    assert sent() == []


@pytest.mark.parametrize("page", ["run", "api:run-detail"])
def test_who_polls_is_looking(start, leave, sent, client, alice, page):
    run = start()
    leave(run)
    client.force_login(alice)
    assert client.get(reverse(page, args=[run.pk])).status_code == 200
    assert sent() == []


@pytest.mark.parametrize("page", ["batch", "api:batch-detail", "run", "api:run-detail"])
def test_who_polls_a_batch_or_one_of_its_runs_is_looking(alice, photo, catalogue, leave, sent, client, page):
    runs = services.start_batch(user=alice, photo=photo, mode=Mode.MOODMORPH)
    leave(*runs)
    client.force_login(alice)
    assert client.get(reverse(page, args=[runs[0].batch if "batch" in page else runs[0].pk])).status_code == 200
    assert sent() == []


def test_looking_writes_no_row(start, client, alice, django_assert_num_queries):
    run = start()
    client.force_login(alice)
    with django_assert_num_queries(0):
        emails.looks_at(run.pk)
    assert emails.is_looked_at(run.pk)
    assert not emails.is_looked_at(uuid.uuid4())


def test_looking_ends_by_itself(start, monkeypatch):
    # Redis has a clock of its own, which no test can move.
    monkeypatch.setattr(emails, "LOOKING_SECONDS", 1)
    run = start()
    assert emails.is_looked_at(run.pk)
    time.sleep(1.2)
    assert not emails.is_looked_at(run.pk)


def test_api_client_that_waits_is_looking_all_the_time(start, client, alice, monkeypatch, time_machine):
    monkeypatch.setattr("generation.api.LOOK_SECONDS", 0)
    monkeypatch.setattr("generation.api.RunViewSet._changed", lambda view, run, seconds: run)
    set_for = []
    monkeypatch.setattr("generation.api.looks_at", lambda subject, seconds=0: set_for.append(seconds))
    client.force_login(alice)
    client.get(reverse("api:run-detail", args=[start().pk]), headers={"Prefer": "wait=25"})
    assert set_for[0] >= 25


def change_profile(alice):
    Profile.objects.filter(user=alice).update(email_notifications=False)


def change_active(alice):
    User.objects.filter(pk=alice.pk).update(is_active=False)


def change_guest(alice):
    User.objects.filter(pk=alice.pk).update(email=None, guest_key="key")


@pytest.mark.parametrize("change", [change_profile, change_active, change_guest])
def test_who_cannot_or_does_not_want_to_be_written_to_is_not(start, leave, sent, alice, change):
    run = start()
    leave(run)
    change(alice)
    assert sent() == []
    assert Notification.objects.filter(subject=run.pk).exists()


def test_account_that_is_deleted_meanwhile_gets_none(start, leave, sent, alice, monkeypatch):
    def delete_then(run, batch_done, real=attempts._email):
        User.objects.get(pk=alice.pk).delete()
        real(run, batch_done)

    monkeypatch.setattr(attempts, "_email", delete_then)
    leave(start())
    assert sent() == []


def test_cached_run_sends_none(alice, photo, preset, leave, sent):
    first = services.start_run(user=alice, photo=photo, preset=preset, seed=7)
    sent()
    again = services.start_run(user=alice, photo=photo, preset=preset, seed=7)
    assert again.cached
    leave(first, again)
    assert sent() == []


def test_cancelled_run_sends_none(start, leave, sent):
    run = start()
    leave(run)
    services.cancel_run(run)
    assert sent() == []
    assert run.status == Run.Status.CANCELLED


def test_batch_is_written_about_once_when_its_last_run_ends(alice, photo, catalogue, leave, sent):
    runs = services.start_batch(user=alice, photo=photo, mode=Mode.MOODMORPH)
    leave(*runs)
    services.cancel_run(runs[0])
    (message,) = sent()
    assert message.subject == "MoodMorph is done"
    assert "All of them came out." in message.body
    assert f"{SITE}{runs[0].get_batch_url()}" in message.body


def test_batch_of_which_some_failed_says_how_many(alice, photo, catalogue, leave, sent):
    runs = services.start_batch(user=alice, photo=photo, presets=list(catalogue[:3]))
    leave(*runs)
    assert attempts.fail_run(runs[1], code="internal_error", message="No.")
    (message,) = sent()
    assert message.subject == "Your pictures are done"
    assert "2 of 3 came out." in message.body


def test_batch_that_was_cancelled_sends_none(alice, photo, catalogue, leave, sent):
    runs = services.start_batch(user=alice, photo=photo, mode=Mode.MOODMORPH)
    leave(*runs)
    for run in runs:
        services.cancel_run(run)
    assert sent() == []


def test_worker_that_comes_too_late_sends_none(start, leave, sent):
    run = start()
    leave(run)
    (slow,) = Run.objects.filter(pk=run.pk)
    assert attempts.fail_run(run, code="internal_error", message="No.")
    assert not attempts.fail_run(slow, code="internal_error", message="No.")
    assert [message.subject for message in sent()] == ["Express Enhance did not work"]


def test_of_two_workers_that_end_a_run_at_once_one_sends(start, leave, sent):
    run = start()
    leave(run)
    together = threading.Barrier(2)
    changed = []

    def fail():
        (seen,) = Run.objects.filter(pk=run.pk)
        together.wait(WAIT_SECONDS)
        changed.append(attempts.fail_run(seen, code="internal_error", message="No."))
        connections.close_all()

    threads = [threading.Thread(target=fail) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(changed) == [False, True]
    assert len(sent()) == 1


def test_mail_of_an_ending_that_is_rolled_back_is_not_sent(start, leave, sent, monkeypatch):
    run = start()
    leave(run)

    def no(*arguments, **options):
        raise RuntimeError

    monkeypatch.setattr(attempts, "notify", no)
    with pytest.raises(RuntimeError):
        attempts.fail_run(run, code="internal_error", message="No.")
    assert emails.finish(5)
    assert mail.outbox == []
    run.refresh_from_db()
    assert run.status == Run.Status.QUEUED


def test_mail_is_written_in_the_language_of_the_profile(start, leave, sent, alice, monkeypatch):
    Profile.objects.filter(user=alice).update(locale="de")
    seen = []
    real = emails._words
    monkeypatch.setattr(emails, "_words", lambda *given: seen.append(emails.translation.get_language()) or real(*given))
    leave(start())
    (message,) = sent()
    assert seen == ["de"]
    assert '<html lang="de">' in message.alternatives[0][0]


# -- Nothing waits for it ------------------------------------------------------------------------------------


def test_mail_goes_over_a_socket_after_the_commit_and_holds_no_connection(start, leave, work, serve, monkeypatch):
    server = serve()
    before = []
    real = EmailMessage.send

    def send(message, *arguments, **options):
        # Asked in the thread that sends: it has opened no connection of its own.
        before.append([used.connection for used in connections.all(initialized_only=True) if used.connection])
        return real(message, *arguments, **options)

    monkeypatch.setattr(EmailMessage, "send", send)
    ended = []
    real_news = attempts.email_news

    def email_news(*arguments, **options):
        ended.append((connection.in_atomic_block, Run.objects.get().status))
        real_news(*arguments, **options)

    monkeypatch.setattr(attempts, "email_news", email_news)
    run = start()
    leave(run)
    work()
    assert emails.finish(WAIT_SECONDS)
    assert (before, ended) == ([[]], [(False, "succeeded")])
    (received,) = [email.message_from_bytes(data) for data in server.mails]
    assert received["To"] == "alice@example.com"
    assert [part.get_content_type() for part in received.get_payload()] == ["text/plain", "text/html"]


def test_dripping_mail_server_delays_nothing_and_is_cut_off(start, leave, work, serve, settings, caplog):
    serve(drips=True)
    settings.EMAIL_CALL_SECONDS = 1.5
    run = start()
    leave(run)
    with caplog.at_level(logging.INFO):
        work()
        run.refresh_from_db()
        # The server has not even greeted: the run has ended and its worker is free.
        assert not emails.finish(0)
        assert run.status == Run.Status.SUCCEEDED
        assert emails.finish(WAIT_SECONDS)
    failed = [str(record.msg) for record in caplog.records if "email_failed" in str(record.msg)]
    assert len(failed) == 3
    assert Notification.objects.filter(subject=run.pk).exists()


@pytest.mark.parametrize("how", ["dead", "refuses"])
def test_dead_or_refusing_mail_server_fails_no_run_and_no_address_is_logged(start, leave, work, serve, log, how):
    server = serve(refuses=99 if how == "refuses" else 0)
    if how == "dead":
        server.stop()
        server.stop = lambda: None
    run = start()
    leave(run)
    work()
    assert emails.finish(WAIT_SECONDS)
    run.refresh_from_db()
    assert run.status == Run.Status.SUCCEEDED
    assert Notification.objects.filter(subject=run.pk).count() == 1
    # As it is written, tracebacks and all.
    said = log.getvalue()
    assert said.count("email_failed") == 3
    assert str(run.pk) in next(line for line in said.splitlines() if "email_failed" in line)
    assert "alice@" not in said


def test_mail_that_is_refused_twice_gets_through(start, leave, work, serve, log):
    server = serve(refuses=2)
    leave(start())
    work()
    assert emails.finish(WAIT_SECONDS)
    assert len(server.mails) == 1
    assert (log.getvalue().count("email_failed"), log.getvalue().count("email_sent")) == (2, 1)


def test_mail_server_that_hangs_holds_only_so_many_threads(serve, settings, caplog):
    serve(drips=True)
    settings.EMAIL_CALL_SECONDS = 1
    for _ in range(emails.MOST_AT_ONCE + 1):
        emails._send(mail.EmailMultiAlternatives("subject", "body", to=["alice@example.com"]))
    assert "too_many_at_once" in caplog.text
    assert emails.finish(WAIT_SECONDS)


def test_whatever_happens_to_the_mail_the_run_has_ended(start, leave, work, monkeypatch):
    def no(*arguments, **options):
        raise RuntimeError

    monkeypatch.setattr(emails, "_message", no)
    run = start()
    leave(run)
    work()
    run.refresh_from_db()
    assert run.status == Run.Status.SUCCEEDED


# -- Switching off -------------------------------------------------------------------------------------------


def test_link_in_the_mail_switches_off_without_signing_in(start, leave, sent, alice):
    leave(start())
    (message,) = sent()
    # A mail program's own button: no cookie, no form of ours, CSRF checked as for everybody.
    stranger = Client(enforce_csrf_checks=True)
    assert b"Switch e-mails off" in stranger.get(link(message)).content
    assert Profile.objects.get(user=alice).email_notifications
    assert b"E-mails are off" in stranger.post(link(message), {"List-Unsubscribe": "One-Click"}).content
    assert not Profile.objects.get(user=alice).email_notifications
    assert b"E-mails are off" in stranger.get(link(message)).content
    leave(start())
    assert len(sent()) == 1


def test_link_that_is_not_ours_or_of_nobody_switches_nothing_off(client, alice, bob):
    token = emails.switch_off_token(bob)
    bob.delete()
    for other in (token, token[:-1] + ("A" if token[-1] != "A" else "B"), "x"):
        assert client.post(reverse("notifications_off", args=[other])).status_code == 404
    assert Profile.objects.get(user=alice).email_notifications


def test_links_of_two_users_differ_and_change_one(client, alice, bob):
    client.post(reverse("notifications_off", args=[emails.switch_off_token(bob)]))
    wanted = Profile.objects.order_by("user_id").values_list("email_notifications", flat=True)
    assert list(wanted) == [True, False]
    assert django_settings.SECRET_KEY not in emails.switch_off_token(bob)
