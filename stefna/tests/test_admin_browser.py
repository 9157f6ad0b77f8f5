"""The owner's desk in a real browser: trying a preset out, and that no page of it breaks the policy."""

import pytest
from playwright.sync_api import expect

REFUSED = "status of 422"


@pytest.fixture
def desk(site, open_page):
    """Open pages of the admin site as its owner."""
    owner = site.call("member", owner=True)

    def go(path, **options):
        page = open_page(member=owner, **options)
        page.goto(f"{site.url}/admin/{path}")
        return page

    return go


@pytest.mark.browser
def test_preset_is_tried_with_what_the_form_says_and_only_then_saved(desk):
    page = desk("generation/preset/", expected=REFUSED)
    page.get_by_role("link", name="Noir Classic").first.click()
    saved = page.get_by_label("Strength").input_value()
    page.get_by_label("Strength").fill("9")
    page.get_by_role("button", name="Try on Coffee").click()
    expect(page.locator("#try-out-errors")).to_contain_text("Strength: ")
    expect(page.get_by_alt_text("Coffee, after")).to_be_hidden()
    page.get_by_label("Strength").fill("0.4")
    page.get_by_role("button", name="Try on Coffee").click()
    after = page.get_by_alt_text("Coffee, after")
    expect(after).to_be_visible()
    expect(after).to_have_js_property("naturalWidth", 600)
    expect(page.locator("#try-out-errors")).to_be_hidden()
    page.reload()
    assert page.get_by_label("Strength").input_value() == saved


@pytest.mark.browser
def test_every_page_of_the_desk_keeps_to_the_policy(desk, site):
    alma = site.call("member")
    site.call("run", email=alma["email"], state="failed")
    page = desk("")
    for path in (
        "generation/preset/",
        "generation/preset/add/",
        "generation/preset/import",
        "generation/run/",
        "accounts/user/",
        f"accounts/user/?q={alma['email']}",
        "notifications/notification/",
        "circuits/",
    ):
        page.goto(f"{site.url}/admin/{path}", wait_until="networkidle")
        expect(page.locator("#content")).to_be_visible()
    page.goto(f"{site.url}/admin/generation/run/?q={alma['email']}")
    page.locator("#result_list tbody th a").first.click()
    expect(page.get_by_role("heading", name="Timeline")).to_be_visible()
    expect(page.get_by_alt_text("The photo")).to_have_js_property("complete", True)
    page.get_by_role("button", name="Retry").click()
    expect(page.get_by_text("It is being tried again")).to_be_visible()
    page.get_by_role("link", name="History").click()
    expect(page.locator("#change-history")).to_be_visible()
