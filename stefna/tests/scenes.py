"""Every page in every state that it can be in, by name: for the tests of pages, and for the pictures in docs/screens.

A scene brings a page into its state: `site` is the product as it is, in `still` nobody works on runs.
"""

from collections.abc import Callable

from playwright.sync_api import Page, expect

from stefna.tests.conftest import Server, sign_in
from stefna.tests.steps import SIGN_IN, create, enter, pick

Scene = Callable[[Page, Server, Server], None]
SCENES: dict[str, Scene] = {}


def scene(act: Scene) -> Scene:
    SCENES[act.__name__] = act
    return act


def member(page: Page, still: Server) -> str:
    """Sign somebody new in, and return their address."""
    made = still.call("member", password=SIGN_IN)
    sign_in(page.context, made)
    return made["email"]


# -- The studio ----------------------------------------------------------------------------------------------


@scene
def studio(page: Page, site: Server, still: Server) -> None:
    page.goto(site.url)


@scene
def studio_with_a_photo(page: Page, site: Server, still: Server) -> None:
    page.goto(site.url)
    page.get_by_alt_text("Landscape", exact=True).click()
    expect(page.locator(".badge:visible")).to_have_count(page.locator("label.card").count())
    pick(page, "Cinematic Glow")


@scene
def studio_with_everything_open(page: Page, site: Server, still: Server) -> None:
    studio(page, site, still)
    page.get_by_text("More", exact=True).click()
    page.get_by_label("Several at once").check()
    pick(page, "Noir Classic")
    page.get_by_label("Find a look").fill("n")


@scene
def studio_with_an_error(page: Page, site: Server, still: Server) -> None:
    studio(page, site, still)
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_role("alert")).to_contain_text("Choose a photo first.")


@scene
def studio_of_a_member(page: Page, site: Server, still: Server) -> None:
    still.call("run", email=member(page, still))
    page.goto(still.url)


# -- Runs ----------------------------------------------------------------------------------------------------


def _run(state: str, **asked: str) -> Scene:
    def open_run(page: Page, site: Server, still: Server) -> None:
        page.goto(still.url + still.call("run", email=member(page, still), state=state, **asked))

    return open_run


SCENES["run_waiting"] = _run("queued")
SCENES["run_creating"] = _run("running", look="golden_hour_magic", sample="landscape")
SCENES["run_failed"] = _run("failed")
SCENES["run_cancelled"] = _run("cancelled")


SCENES["run_done"] = _run("succeeded", look="golden_hour_magic", sample="landscape")


@scene
def run_done_with_details(page: Page, site: Server, still: Server) -> None:
    SCENES["run_done"](page, site, still)
    page.get_by_text("Details", exact=True).click()


def _batch(*states: str) -> Scene:
    def open_batch(page: Page, site: Server, still: Server) -> None:
        page.goto(still.url + still.call("batch", email=member(page, still), states=states))

    return open_batch


SCENES["moodmorph_running"] = _batch("succeeded", "failed", "running")
SCENES["moodmorph_done"] = _batch("succeeded", "succeeded", "succeeded")


# -- History and news ----------------------------------------------------------------------------------------


def _history(number: int, query: str = "") -> Scene:
    def open_history(page: Page, site: Server, still: Server) -> None:
        email = member(page, still)
        if number == 1:
            still.call("run", email=email)
        elif number:
            still.call("many", email=email, number=number)
        page.goto(f"{still.url}/runs/{query}")

    return open_history


SCENES["history_empty"] = _history(0)
SCENES["history_of_one"] = _history(1)
SCENES["history"] = _history(30)
SCENES["history_without_a_match"] = _history(1, "?status=failed")


@scene
def history_with_a_selection(page: Page, site: Server, still: Server) -> None:
    email = member(page, still)
    for look in ("express_enhance", "noir_classic"):
        still.call("run", email=email, look=look)
    page.goto(f"{still.url}/runs/")
    page.get_by_label("Select Noir Classic").check()


@scene
def history_after_deleting(page: Page, site: Server, still: Server) -> None:
    history_with_a_selection(page, site, still)
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("button", name="Undo")).to_be_visible()


@scene
def news_empty(page: Page, site: Server, still: Server) -> None:
    member(page, still)
    page.goto(f"{still.url}/notifications/")


@scene
def news(page: Page, site: Server, still: Server) -> None:
    email = member(page, still)
    for state in ("succeeded", "failed"):
        still.call("run", email=email, state=state)
    still.call("batch", email=email)
    page.goto(f"{still.url}/notifications/")
    page.get_by_role("button", name="Mark as read:").first.click()


# -- The account ---------------------------------------------------------------------------------------------


@scene
def profile_of_a_guest(page: Page, site: Server, still: Server) -> None:
    create(page, site.url)
    page.goto(f"{site.url}/account/profile/")


@scene
def profile(page: Page, site: Server, still: Server) -> None:
    still.call("run", email=member(page, still))
    page.goto(f"{still.url}/account/profile/")


def _visit(path: str) -> Scene:
    def open_path(page: Page, site: Server, still: Server) -> None:
        page.goto(site.url + path)

    return open_path


SCENES["sign_in"] = _visit("/account/login/")
SCENES["sign_up"] = _visit("/account/signup/")
SCENES["password_forgotten"] = _visit("/account/password/reset/")
SCENES["code_by_e_mail"] = _visit("/account/login/code/")


@scene
def sign_in_refused(page: Page, site: Server, still: Server) -> None:
    page.goto(f"{site.url}/account/login/")
    enter(page, "nobody@example.com", "not-the-password")
    expect(page.locator(".errorlist")).to_be_visible()


def _of_member(path: str) -> Scene:
    def open_path(page: Page, site: Server, still: Server) -> None:
        member(page, still)
        page.goto(f"{still.url}/account/{path}")
        assert page.url.endswith(path)

    return open_path


for path in ("email/", "password/change/", "2fa/", "2fa/totp/activate/", "2fa/webauthn/add/", "profile/delete"):
    SCENES["account_" + path.strip("/").replace("/", "_")] = _of_member(path)


# -- When something is wrong ---------------------------------------------------------------------------------


def _error(status: int) -> Scene:
    def open_error(page: Page, site: Server, still: Server) -> None:
        """Show the page as the server would send it; how it comes to that is tested without a browser."""
        body = still.call("error_page", status=status)
        page.route("**/broken", lambda route: route.fulfill(body=body, content_type="text/html"))
        page.goto(f"{still.url}/broken")

    return open_error


for status in (400, 403, 404, 413, 500, 503):
    SCENES[f"error_{status}"] = _error(status)
