"""Canaries in every place where a secret may be, through the app's whole way: no log line, answer or mail has one."""

import pytest
from django.core import mail
from django.core.cache import cache
from django.core.files.uploadedfile import SimpleUploadedFile

from conftest import small
from generation.providers import endpoints
from generation.tests.conftest import standin, upstreams
from notifications import emails
from stefna.tests.app import App

__all__ = ["standin", "upstreams"]  # fixtures
UPSTREAM = "canary-of-the-upstream"


@pytest.mark.django_db(transaction=True)
def test_secrets_are_in_no_log_line_answer_or_mail(upstreams, client, alice, catalogue, work, settings, caplog):
    settings.APP_KEYS = {"phone": "canary-app-key"}
    app = App(client, key="canary-app-key")
    app.sign("login", alice.email, "a-password-of-alice")
    file = {"photo": SimpleUploadedFile("canary-file-name.jpg", small("coffee"))}
    photo = app("post", "photos", files=file).json()["id"]
    answers, ended = [], []
    for step in (
        {},
        {"status": 401, "json": {"message": UPSTREAM}},
        {"status": 422, "body": UPSTREAM},
        {"shape": "broken"},
        {"result_url": f"https://169.254.169.254/{UPSTREAM}"},
    ):
        endpoints.close(endpoints.configured()[0])
        upstreams.script("aiml", step, repeat_last=True)
        made = app.run(photo_id=photo, prompt="canary of the user's words")
        cache.delete(f"looking:{made.json()['id']}")
        work()
        assert emails.finish(10)
        answers += [made, app("get", f"runs/{made.json()['id']}")]
        ended.append(answers[-1].json()["status"])
    answers += [app("get", path) for path in ("runs", "notifications", "profile", "ping")]
    answers.append(app("get", "ping", Authorization="Bearer canary-wrong-token"))
    answers.append(app("get", "ping", **{"X-App-Key": "canary-wrong-key"}))
    answers.append(app("post", "/_allauth/app/v1/auth/login", {"email": alice.email, "password": "canary-guess"}))
    assert ended == ["succeeded"] + ["failed"] * 4
    assert len(mail.outbox) == 5

    logged = caplog.text
    said = "".join(answer.content.decode() for answer in answers)
    written = "".join(part for one in mail.outbox for part in (one.subject, one.body, one.alternatives[0].content))
    assert "generation_succeeded" in logged
    assert "generation_failed" in logged
    secrets = [
        app.token,
        "canary-app-key",
        settings.AIML_API_KEY,
        settings.SECRET_KEY,
        "standin-secret",
        "a-password-of-alice",
    ]
    secrets += [UPSTREAM, "canary-wrong-token", "canary-wrong-key", "canary-guess", "canary-file-name"]
    for secret in secrets:
        assert [place for place in (logged, said, written) if secret in place] == [], secret
    # The owner's words and address come back to them, and stand in no log; nor does what signs a picture's address.
    for private in ("canary of the user", alice.email, "s--"):
        assert private not in logged, private
    assert "canary of the user" not in written
