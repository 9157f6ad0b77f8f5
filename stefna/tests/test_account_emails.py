"""The e-mails of signing up, in and out of trouble: each in our own words, as text and as HTML."""

import html
import re
from pathlib import Path

import allauth
import pytest
from allauth.account.adapter import get_adapter
from django.core import mail
from django.template.loader import get_template
from django.urls import reverse
from django.utils import timezone

OURS = Path(__file__).parents[2] / "templates"
THEIRS = Path(allauth.__file__).parent / "templates"
PREFIXES = sorted(
    str(path.relative_to(THEIRS)).removesuffix("_subject.txt")
    for app in ("account", "mfa", "socialaccount")
    for path in (THEIRS / app / "email").glob("*_subject.txt")
)
LINK = "https://stefna.example/link/?a=1&b=2"
CONTEXT = {
    "email": "o'neil@example.com",
    "activate_url": LINK,
    "password_reset_url": LINK,
    "signup_url": LINK,
    "from_email": "old@example.com",
    "to_email": "new@example.com",
    "deleted_email": "old@example.com",
    "provider": "Google",
    "ip": "203.0.113.7",
    "user_agent": "<Firefox>",
    "timestamp": timezone.now(),
}


def render(prefix, **context):
    message = get_adapter().render_mail(prefix, "o'neil@example.com", CONTEXT | context)
    ((page, kind),) = message.alternatives
    assert kind == "text/html"
    return message, page


def words(page):
    page = re.sub(r"<style>.*?</style>|<title>.*?</title>", " ", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("code", ["", "ABC-123"])
def test_mail_has_our_words_in_text_and_html(prefix, code):
    # A mail that is all about a code never comes without one.
    message, page = render(prefix, code=code or ("XYZ" if prefix.endswith("_code") else ""))
    for name in ("subject.txt", "message.txt", "message.html"):
        assert Path(get_template(f"{prefix}_{name}").origin.name).is_relative_to(OURS), name
    assert 10 < len(message.subject) < 60
    assert "\n" not in message.subject
    # Nothing of the one is missing in the other, whatever stands around it.
    body = message.body.partition("\n-- ")[0]
    shown = words(page)
    for line in filter(None, body.splitlines()):
        label, _, url = line.partition(": https://")
        assert " ".join(label.split()) in shown, line
        assert not url or f'href="{html.escape(f"https://{url}")}"' in page
    assert not re.search(r"\n{3}|&#|&amp;|&lt;|\{\{|\{%", message.body)
    assert "<Firefox>" not in page
    assert page.count("<p>") >= body.count("\n\n")


@pytest.mark.parametrize(
    ("prefix", "must"),
    [
        ("account/email/email_confirmation", [LINK]),
        ("account/email/email_confirmation_signup", [LINK]),
        ("account/email/password_reset_key", [LINK]),
        ("account/email/unknown_account", [LINK, "o'neil@example.com"]),
        ("account/email/account_already_exists", [LINK, "o'neil@example.com"]),
        ("account/email/email_changed", ["old@example.com", "new@example.com", "203.0.113.7", "<Firefox>"]),
        ("account/email/email_deleted", ["old@example.com"]),
        ("socialaccount/email/account_connected", ["Google"]),
    ],
)
def test_mail_says_what_it_is_about(prefix, must):
    message, page = render(prefix)
    for said in must:
        assert said in message.body
        assert html.escape(said) in page


@pytest.mark.parametrize(
    "name", ["email_confirmation", "email_confirmation_signup", "login_code", "password_reset_code"]
)
def test_code_is_shown_on_a_line_of_its_own_and_no_link_is(name):
    message, page = render(f"account/email/{name}", code="ABC-123")
    assert "ABC-123" in message.body.splitlines()
    assert re.search(r"<b [^>]+>ABC-123</b>", page)
    assert LINK not in message.body


@pytest.mark.django_db
def test_forgotten_password_is_answered_with_our_mail(client, alice):
    client.post(reverse("account_reset_password"), {"email": alice.email})
    (message,) = mail.outbox
    assert (message.to, message.subject) == ([alice.email], "Choose a new password")
    url = re.search(r"http://testserver\S+", message.body)[0]
    assert client.get(url, follow=True).status_code == 200


@pytest.mark.django_db
def test_changed_password_is_told_to_its_owner(client, alice, settings):
    client.force_login(alice)
    new = "quite-another-password"
    client.post(
        reverse("account_change_password"),
        {"oldpassword": "a-password-of-alice", "password1": new, "password2": new},
        headers={"User-Agent": "Firefox"},
    )
    alice.refresh_from_db()
    assert alice.check_password(new)
    assert [message.subject for message in mail.outbox] == ["Your password was changed"]
    assert "With: Firefox" in mail.outbox[0].body
