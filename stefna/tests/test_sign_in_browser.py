"""Signing in as people do: by passkey, with an authenticator app, with a code from an e-mail."""

import re

import pytest
from allauth.mfa.totp.internal.auth import format_hotp_value, hotp_value, yield_hotp_counters_from_time
from playwright.sync_api import expect

pytestmark = pytest.mark.browser
EMAIL, PASSWORD = "someone@example.com", "a-long-enough-password"


@pytest.fixture
def site(server):
    """The server under a name: a passkey belongs to a host name, and an address of numbers is none."""
    server.environment["EMAIL_URL"] = f"filemail:///{server.state}/mail"
    server.start()
    server.url = f"http://localhost:{server.port}"
    return server


@pytest.fixture
def page(open_page):
    opened = open_page(360)
    protocol = opened.context.new_cdp_session(opened)
    protocol.send("WebAuthn.enable")
    options = {
        "protocol": "ctap2",
        "transport": "internal",
        "hasResidentKey": True,
        "hasUserVerification": True,
        "isUserVerified": True,
        "automaticPresenceSimulation": True,
    }
    key = protocol.send("WebAuthn.addVirtualAuthenticator", {"options": options})["authenticatorId"]
    opened.lose_key = lambda: protocol.send("WebAuthn.removeVirtualAuthenticator", {"authenticatorId": key})
    return opened


def sign_up(page, site):
    page.goto(f"{site.url}/account/signup/?next=/account/profile/")
    page.get_by_label("Email").fill(EMAIL)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign up").click()
    page.wait_for_url("**/account/profile/")


def sign_out(page, site):
    page.goto(f"{site.url}/account/profile/")
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url(f"{site.url}/")


def let_time_pass(site):
    """Let every session have signed in long ago."""
    site.shell(
        "from importlib import import_module; from django.conf import settings;"
        "from django.contrib.sessions.models import Session;"
        "store = import_module(settings.SESSION_ENGINE).SessionStore\n"
        "for key in Session.objects.values_list('pk', flat=True):\n"
        "    session = store(key)\n"
        "    session['signed_in_at'] = 0\n"
        "    session['account_authentication_methods'] = [\n"
        "        record | {'at': 0} for record in session.get('account_authentication_methods', [])\n"
        "    ]\n"
        "    session.save()"
    )


def prove_it(page):
    """Answer the question who you are, which is asked before a way of signing in is changed."""
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Go on").click()


def shown_by_app(secret):
    """What an authenticator app shows now: the step before the last that is taken."""
    return format_hotp_value(hotp_value(secret, max(yield_hotp_counters_from_time()) - 1))


def fits(page):
    return page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def add_passkey(page):
    page.get_by_role("link", name="Add a passkey").click()
    page.get_by_label("What to call it").fill("My phone")
    assert fits(page)
    page.get_by_role("button", name="Add a passkey").click()
    page.wait_for_url("**/recovery-codes/")


def test_passkey_is_added_signs_in_alone_and_leads_back(site, page):
    sign_up(page, site)
    add_passkey(page)
    assert fits(page)
    page.goto(f"{site.url}/account/2fa/webauthn/")
    expect(page.get_by_role("heading", name="My phone")).to_be_visible()
    sign_out(page, site)
    page.goto(f"{site.url}/account/profile/")
    page.get_by_role("button", name="Sign in with a passkey").click()
    page.wait_for_url("**/account/profile/")
    expect(page.get_by_text(EMAIL)).to_be_visible()
    # A while later deleting the account asks again, and takes the passkey for an answer.
    let_time_pass(site)
    page.get_by_role("link", name="Delete the account").click()
    page.get_by_role("button", name="Use a passkey").click()
    page.wait_for_url("**/webauthn/reauthenticate/**")
    page.get_by_role("button", name="Use a passkey").click()
    expect(page.get_by_role("button", name="Delete everything")).to_be_visible()


def test_passkey_is_the_second_step_after_the_password(site, page):
    sign_up(page, site)
    add_passkey(page)
    sign_out(page, site)
    page.goto(f"{site.url}/account/login/?next=/runs/")
    page.get_by_label("Email").fill(EMAIL)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in", exact=True).click()
    page.get_by_role("button", name="Use a passkey").click()
    page.wait_for_url("**/runs/")


def test_passkey_that_is_not_there_is_said_where_the_user_looks(site, page):
    sign_up(page, site)
    sign_out(page, site)
    page.lose_key()
    page.goto(f"{site.url}/account/login/")
    # Without any device the browser would wait for one to be plugged in.
    page.evaluate("void (navigator.credentials.get = () => Promise.reject(new DOMException('', 'NotAllowedError')))")
    page.get_by_role("button", name="Sign in with a passkey").click()
    expect(page.get_by_role("alert")).to_contain_text("no passkey was used")


def test_guest_who_signs_in_by_passkey_keeps_the_picture(site, page):
    sign_up(page, site)
    add_passkey(page)
    sign_out(page, site)
    page.get_by_alt_text("Coffee", exact=True).click()
    page.get_by_role("button", name="Create").click()
    page.wait_for_url("**/runs/**")
    run = page.url
    page.goto(f"{site.url}/account/login/?next={run.removeprefix(site.url)}")
    page.get_by_role("button", name="Sign in with a passkey").click()
    page.wait_for_url(run)
    owner = site.shell("from generation.models import Run; print(Run.objects.get().user.email)")
    assert owner == EMAIL


def test_authenticator_app_is_set_up_and_asked_for(site, page):
    sign_up(page, site)
    page.get_by_role("link", name="Set it up").click()
    let_time_pass(site)
    page.get_by_role("button", name="Set it up").click()
    prove_it(page)
    secret = page.locator("#authenticator_secret").inner_text()
    assert page.locator(".qr").evaluate("image => image.complete && image.naturalWidth > 0")
    assert fits(page)
    page.get_by_label("code").fill(shown_by_app(secret))
    page.get_by_role("button", name="Switch it on").click()
    page.wait_for_url("**/recovery-codes/")
    recovery = page.locator(".codes").inner_text().split()
    assert len(recovery) == 10
    sign_out(page, site)
    page.goto(f"{site.url}/account/login/?next=/runs/")
    page.get_by_label("Email").fill(EMAIL)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in", exact=True).click()
    # The code that set it up is used up, and a recovery code does as well.
    page.get_by_label("Code").fill("000000")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_text("Incorrect code.")).to_be_visible()
    page.get_by_label("Code").fill(recovery[0])
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/runs/")
    # Half a minute later the app shows another code; here the memory of the used one goes with the server.
    sign_out(page, site)
    page.goto("about:blank")
    site.kill()
    site.url = f"http://127.0.0.1:{site.port}"
    site.start()
    site.url = f"http://localhost:{site.port}"
    page.goto(f"{site.url}/account/login/?next=/runs/")
    page.get_by_label("Email").fill(EMAIL)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in", exact=True).click()
    page.get_by_label("Code").fill(shown_by_app(secret))
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/runs/")


def test_code_from_an_e_mail_signs_in_and_leads_back(site, page):
    sign_up(page, site)
    sign_out(page, site)
    page.goto(f"{site.url}/account/login/?next=/runs/")
    page.get_by_role("button", name="E-mail me a code").click()
    page.get_by_label("Email").fill(EMAIL)
    page.get_by_role("button", name="Send me a code").click()
    page.wait_for_url("**/login/code/confirm/**")
    mails = "".join(path.read_text() for path in sorted((site.state / "mail").iterdir()))
    page.get_by_label("Code").fill(re.findall(r"^([A-Z0-9]{4}-[A-Z0-9]{4})$", mails, re.MULTILINE)[-1])
    assert fits(page)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/runs/")
