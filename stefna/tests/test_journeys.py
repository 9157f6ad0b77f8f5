"""From a click to the picture and afterwards: waiting, failing, signing in again, the history."""

import re

import pytest
from playwright.sync_api import expect

from stefna.tests.steps import (
    NO_CONNECTION,
    SIGN_IN,
    arrive,
    choose,
    create,
    enter,
    expect_result,
    pick,
    picture,
    press_create,
)  # fmt: skip

pytestmark = pytest.mark.browser


@pytest.fixture
def alma(still):
    """A member of the place where nobody works on runs."""
    return still.call("member", password=SIGN_IN)


def start(still, member, *states, **asked):
    """Make runs of a member and return the path of the last."""
    return [still.call("run", email=member["email"], state=state, **asked) for state in states][-1]


# -- While it runs -----------------------------------------------------------------------------------------


def test_reload_and_a_second_tab_see_the_same_run_to_its_end(still, open_page, alma):
    page = open_page(member=alma)
    run = create(page, still.url)
    expect(page.get_by_text("Waiting", exact=True).first).to_be_visible()
    second = page.context.new_page()
    second.goto(still.url + run)
    page.reload()
    for tab in (page, second):
        expect(tab.locator(".stage-line")).to_contain_text("Waiting")
    still.call("work", path=run)
    for tab in (page, second):
        expect_result(tab)
        expect(tab.get_by_role("status").first).to_have_text("Done: Done")


def test_ten_seconds_without_a_connection_are_said_and_got_over(still, open_page, alma):
    run = start(still, alma, "queued")
    page = open_page(member=alma, expected=NO_CONNECTION)
    page.clock.install()
    page.goto(still.url + run)
    said = page.get_by_text("There is no connection.")
    expect(said).to_be_hidden()
    page.context.set_offline(True)
    page.clock.run_for(10_000)
    expect(said).to_be_visible()
    still.call("work", path=run)
    page.context.set_offline(False)
    page.clock.run_for(5_000)
    expect_result(page)
    expect(said).to_be_hidden()


def test_dot_of_the_header_is_there_while_something_is_made_and_goes_by_itself(still, open_page, alma):
    page = open_page(member=alma)
    page.clock.install()
    run = start(still, alma, "queued")
    page.goto(f"{still.url}/account/profile/")
    expect(page.get_by_role("link", name="1 picture is being made")).to_be_visible()
    still.call("work", path=run)
    page.clock.run_for(4_000)
    expect(page.get_by_role("link", name="1 picture is being made")).to_have_count(0)
    expect(page.locator("#activity .count")).to_have_text("1 unread")


def test_dot_goes_with_the_end_of_the_run_that_is_looked_at(still, open_page, alma):
    page = open_page(member=alma)
    run = create(page, still.url)
    expect(page.locator(".dot")).to_be_visible()
    still.call("work", path=run)
    expect_result(page)
    expect(page.locator(".dot")).to_have_count(0)


def test_cancelled_run_can_be_tried_again(still, open_page, alma):
    page = open_page(member=alma)
    page.goto(still.url + start(still, alma, "queued"))
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_text("You cancelled this picture. You were not charged.")).to_be_visible()
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".stage-line")).to_contain_text("Waiting")


# -- Signed out in the middle ------------------------------------------------------------------------------


def test_signed_out_before_create_leads_back_to_the_same_photo_and_look(still, open_page, alma):
    page = open_page(member=alma)
    page.goto(still.url)
    choose(page, picture(333, 222))
    expect(page.locator(".badge:visible").first).to_be_visible()
    pick(page, "Noir Classic")
    page.context.clear_cookies(name=alma["cookie"])
    page.get_by_role("button", name="Create").click()
    page.wait_for_url("**/account/login/**")
    enter(page, alma["email"])
    expect(page.locator("#chosen")).to_have_js_property("naturalWidth", 333)
    expect(page.locator("[name=look]:checked")).to_have_attribute("data-name", "Noir Classic")
    run = press_create(page)
    expect(page.get_by_alt_text("Your photo")).to_have_attribute("width", "333")
    assert [one["look"] for one in still.call("facts", path=run)] == ["noir_classic"]


def test_all_cookies_lost_before_create_is_said_and_the_photo_comes_back(still, open_page, alma):
    page = open_page(member=alma, expected="status of 403|Status Error Code 403")
    page.goto(still.url)
    choose(page, picture(333, 222))
    expect(page.locator(".badge:visible").first).to_be_visible()
    page.context.clear_cookies()
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_role("alert")).to_contain_text("Nothing was sent. Go back, reload the page")
    expect(page.get_by_role("heading", level=1)).to_have_count(1)
    page.reload()
    page.get_by_role("button", name="Create").click()
    enter(page, alma["email"])
    expect(page.locator("#chosen")).to_have_js_property("naturalWidth", 333)


def test_signed_out_on_a_runs_page_leads_back_to_it(still, open_page, alma):
    page = open_page(member=alma)
    run = create(page, still.url)
    page.context.clear_cookies(name=alma["cookie"])
    # The page asks how its run stands, and is told to sign in.
    page.wait_for_url("**/account/login/**")
    enter(page, alma["email"])
    page.wait_for_url(still.url + run)
    still.call("work", path=run)
    expect_result(page)


def test_guest_who_signs_up_keeps_everything(site, open_page):
    page = open_page()
    run = create(page, site.url)
    expect_result(page)
    page.get_by_role("button", name="Favourite").click()
    page.get_by_role("link", name="Sign up").click()
    page.get_by_label("Email").fill(f"{run.split('/')[2]}@example.com")
    page.get_by_label("Password").fill(SIGN_IN)
    page.get_by_role("button", name="Sign up").click()
    page.get_by_role("link", name="History").click()
    page.get_by_role("link", name="Favourites").click()
    expect(page.locator(".tiles article")).to_have_count(1)
    page.goto(site.url + run)
    expect_result(page)
    page.get_by_role("button", name="Try another look").click()
    expect(page.locator("#chosen")).to_be_visible()


def test_picture_is_there_after_the_server_was_killed(server, open_page):
    server.start()
    page = open_page()
    run = create(page, server.url)
    expect_result(page)
    # Nothing may be under way: what the browser says about a server that is away is no fault of ours.
    page.goto("about:blank")
    server.kill()
    server.start()
    page.goto(server.url + run)
    expect_result(page)


# -- Done, and not done ------------------------------------------------------------------------------------


def test_failure_is_tried_again_with_the_same_photo(still, open_page, alma):
    page = open_page(member=alma)
    page.goto(still.url + start(still, alma, "failed"))
    expect(page.get_by_text("You were not charged.")).to_be_visible()
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".stage-line")).to_contain_text("Waiting")
    again = arrive(page)
    still.call("mend", path=again)
    still.call("work", path=again)
    expect_result(page)
    first, second = still.call("facts", path=again)
    assert first == second


def test_moodmorph_fills_three_cells_and_the_one_that_failed_is_tried_again_alone(still, open_page, alma):
    page = open_page(member=alma)
    batch = create(page, still.url, look="MoodMorph")
    expect(page.locator("#batch article")).to_have_count(3)
    still.call("spoil", path=batch, look="sad")
    still.call("work", path=batch)
    expect(page.get_by_text("Done", exact=True)).to_have_count(2)
    page.get_by_role("button", name="Try again").click()
    waiting = page.locator("#batch article", has_text="Waiting")
    expect(waiting).to_have_count(1)
    expect(waiting).to_contain_text("Sad")
    still.call("mend", path=batch)
    still.call("work", path=batch)
    expect(page.get_by_text("Done", exact=True)).to_have_count(3)


def test_comparison_is_moved_by_arrow_keys_and_by_buttons(still, open_page, alma):
    page = open_page(member=alma)
    page.goto(still.url + start(still, alma, "succeeded"))
    slider = page.locator("#compare")
    expect(slider).to_have_js_property("value", 50)
    slider.focus()
    for key, moves_right in [("ArrowRight", True), ("ArrowLeft", False)]:
        before = slider.evaluate("slider => slider.value")
        page.keyboard.down(key)
        expect(slider).not_to_have_js_property("value", before)
        page.keyboard.up(key)
        assert (slider.evaluate("slider => slider.value") > before) is moves_right
    for name, value in [("Before", 100), ("After", 0), ("Both", 50)]:
        page.get_by_role("group", name="Before and after").get_by_role("button", name=name).click()
        expect(slider).to_have_js_property("value", value)


@pytest.mark.parametrize(("name", "strength"), [("Gentler", 0.55), ("Bolder", 0.85), ("Again, different seed", 0.7)])
def test_once_more_with_a_change_is_one_press(still, open_page, alma, name, strength):
    page = open_page(member=alma)
    page.goto(still.url + start(still, alma, "succeeded", look="vivid_pop"))
    page.get_by_role("button", name=name).click()
    expect(page.locator(".stage-line")).to_contain_text("Waiting")
    before, after = still.call("facts", path=arrive(page))
    assert after["strength"] == pytest.approx(before["strength"] + strength - 0.7)
    assert (after["seed"] != before["seed"]) is (name == "Again, different seed")


def test_favourite_is_marked_and_found_again(still, open_page, alma):
    page = open_page(member=alma)
    start(still, alma, "succeeded", look="noir_classic")
    page.goto(still.url + start(still, alma, "succeeded"))
    page.get_by_role("button", name="Favourite").click()
    expect(page.get_by_role("button", name="Favourite")).to_have_attribute("aria-pressed", "true")
    page.get_by_role("link", name="History").click()
    page.get_by_role("link", name="Favourites").click()
    expect(page.locator(".tiles strong")).to_have_text([re.compile("Express Enhance")])


def test_deleted_picture_comes_back_by_undo(still, open_page, alma):
    page = open_page(member=alma)
    run = start(still, alma, "succeeded")
    page.goto(still.url + run)
    page.get_by_role("button", name="Delete").click()
    undo = page.get_by_role("status").filter(has_text="The picture was deleted.")
    expect(undo).to_be_in_viewport()
    expect(page.get_by_text("Nothing here yet.")).to_be_visible()
    undo.get_by_role("button", name="Undo").click()
    expect(page.locator(f".tiles a[href='{run}']")).to_be_visible()


# -- The history -------------------------------------------------------------------------------------------


def test_selection_is_counted_deleted_and_brought_back(still, open_page, alma):
    page = open_page(360, member=alma)
    for look in ("express_enhance", "noir_classic", "vivid_pop"):
        start(still, alma, "succeeded", look=look)
    page.goto(f"{still.url}/runs/")
    bar = page.get_by_role("group", name="Selected pictures")
    expect(bar).to_be_hidden()
    page.get_by_label("Select Noir Classic").check()
    page.get_by_label("Select Vivid Pop").check()
    expect(bar).to_contain_text("2 selected")
    expect(bar).to_be_in_viewport()
    bar.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("status")).to_contain_text("2 pictures were deleted.")
    expect(page.locator(".tiles strong")).to_have_text(["Express Enhance"])
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(".tiles article")).to_have_count(3)


def test_history_is_filtered_and_loads_more(still, open_page, alma):
    page = open_page(member=alma)
    still.call("many", email=alma["email"], number=27)
    start(still, alma, "failed")
    page.goto(f"{still.url}/runs/")
    tiles = page.locator(".tiles article")
    expect(tiles).to_have_count(24)
    page.get_by_role("button", name="Load more").click()
    expect(tiles).to_have_count(28)
    expect(page.get_by_role("button", name="Load more")).to_have_count(0)
    page.get_by_label("Look").select_option("Noir Classic")
    expect(tiles).to_have_count(7)
    page.get_by_role("link", name="Failed").click()
    expect(page.get_by_text("No picture is like that.")).to_be_visible()
    page.get_by_role("button", name="Show all").click()
    page.get_by_role("link", name="Failed").click()
    expect(tiles).to_have_count(1)
