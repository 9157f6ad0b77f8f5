"""What is promised of every page in every state: no barrier, no sideways scrolling, nothing too small to touch."""

import gzip
import re
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.urls import reverse
from playwright.sync_api import expect

from generation.models import Run
from stefna.tests.scenes import SCENES

WIDTHS = [320, 360, 768, 1440]
AXE = Axe()
STATIC = Path(__file__).parents[2] / "static"
# The browser says of every refused form that it was refused.
REFUSED = "status of 4|Status Error Code 4"

# WCAG 2.5.5: a target is 44 by 44 or larger. A control that is drawn by its label is as large as the label. Exempt are,
# as there, links inside a sentence, whose height is the line's; and what shows only when it has the focus.
TOO_SMALL = """() => {
    const isText = (node) => node.nodeType === Node.TEXT_NODE && /\\p{L}{2}/u.test(node.textContent);
    const inSentence = (one) => one.matches("a:not([role=button])") && [...one.parentElement.childNodes].some(isText);
    const size = (one) => {
        const boxes = [one, ...(one.labels ?? [])].map((box) => box.getBoundingClientRect());
        return ["width", "height"].map((side) => Math.round(Math.max(...boxes.map((box) => box[side]))));
    };
    const controls = "a, button, input:not([type=hidden]), select, textarea, summary, [tabindex='0']";
    return [...document.querySelectorAll(controls)]
        .filter((one) => one.checkVisibility({ visibilityProperty: true }))
        .filter((one) => !inSentence(one) && !one.matches(".skip"))
        .filter((one) => Math.min(...size(one)) < 44)
        .map((one) => `${size(one)} ${one.outerHTML.slice(0, 120)}`);
}"""
STICKS_OUT = """() => {
    if (document.documentElement.scrollWidth <= innerWidth) return [];
    const isOut = (one) => one.getBoundingClientRect().right > innerWidth + 1;
    return [...document.querySelectorAll("body *")].filter(isOut).slice(-5).map((one) => one.outerHTML.slice(0, 120));
}"""


def barriers(page, *rules):
    """Return what axe finds, by rule and place: all of it, or what some rules are about."""
    options = {"resultTypes": ["violations"]} | ({"runOnly": rules} if rules else {})
    found = page.evaluate("async (options) => (await axe.run(options)).violations", options)
    return [f"{rule['id']} {node['html'][:160]} {node['failureSummary']}" for rule in found for node in rule["nodes"]]


@pytest.mark.browser
@pytest.mark.parametrize("name", SCENES)
def test_page_is_open_to_everybody(site, still, open_page, name):
    # Whatever moves is looked at when it has come to rest.
    page = open_page(360, expected=REFUSED, reduced_motion="reduce")
    SCENES[name](page, site, still)
    page.evaluate(AXE.axe_script)
    found = {}
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 800})
        found[f"too small at {width}"] = page.evaluate(TOO_SMALL)
        found[f"sticks out at {width}"] = page.evaluate(STICKS_OUT)
        if width in (360, 1440):
            # Themes differ in their colours, and in nothing else that axe looks at.
            for theme, rules in (("light", ()), ("dark", ("color-contrast",))):
                page.emulate_media(color_scheme=theme, reduced_motion="reduce")
                found[f"barriers at {width}, {theme}"] = barriers(page, *rules)
    assert [f"{where}: {what}" for where, whats in found.items() for what in whats] == []


# -- Nothing jumps -------------------------------------------------------------------------------------------

# What Chromium counts: whatever moved while the page came in, without anybody having touched it.
SHIFTS = """() => new Promise((done) => {
    const moved = [];
    const line = ({ value, sources }) => `${value} ${sources.map(({ node }) => node?.outerHTML?.slice(0, 99))}`;
    // Less is a word that has become another, such as the seconds of a run.
    const isSeen = ({ value }) => value > 0.002;
    new PerformanceObserver((list) => moved.push(...list.getEntries().filter(isSeen).map(line)))
        .observe({ type: "layout-shift", buffered: true });
    setTimeout(() => done(moved), 100);
})"""
PICTURES = re.compile(r"\.(jpg|webp)$|/(picture|thumbnail|sheet)(\?|$)")


@pytest.mark.browser
@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize(
    "name", ["studio", "studio_of_a_member", "run_waiting", "run_done", "moodmorph_done", "history"]
)
def test_nothing_jumps_when_pictures_arrive(site, still, open_page, name, width):
    page = open_page(width)
    SCENES[name](page, site, still)
    held = []
    # As on a train: all else is there before the first picture is.
    page.route(PICTURES, lambda route: held.append(route) if held is not None else route.continue_())
    page.reload(wait_until="domcontentloaded")
    expect(page.locator("footer")).to_be_visible()
    assert held
    waiting, held = held, None
    for route in waiting:
        route.continue_()
    page.wait_for_load_state("networkidle")
    for image in page.locator("img:visible").all()[:12]:
        expect(image).to_have_js_property("complete", True)
    assert page.evaluate(SHIFTS) == []


@pytest.mark.browser
def test_result_takes_the_place_of_the_photo_without_a_jump(still, open_page):
    alma = still.call("member")
    page = open_page(member=alma)
    run = still.call("run", email=alma["email"], state="queued", sample="landscape")
    page.goto(still.url + run)
    before = page.get_by_alt_text("Your photo").bounding_box()
    still.call("work", path=run)
    after = page.get_by_alt_text("After: Express Enhance")
    expect(after).to_be_visible()
    assert after.bounding_box() == pytest.approx(before, abs=1)


# -- Little to load ------------------------------------------------------------------------------------------


@pytest.mark.browser
def test_first_page_is_small(site, open_page):
    page = open_page()
    came = []
    page.on("response", lambda response: came.append(response))
    page.goto(site.url, wait_until="networkidle")
    kinds = {"document": 0, "stylesheet": 0, "script": 0}
    for response in came:
        kind = response.request.resource_type
        if kind in kinds:
            # Files are served compressed when they were collected, as `make run` does; the page is sent as it is.
            body = response.body()
            kinds[kind] += len(body) if kind == "document" else len(gzip.compress(body))
    assert min(kinds.values()) > 0
    assert sum(kinds.values()) < 150_000, kinds
    assert len(came) < 15, [response.url for response in came]


def test_scripts_of_our_own_are_small():
    sizes = {path.name: path.stat().st_size for path in (STATIC / "js").glob("*.js")}
    assert sizes["studio.js"] > 0
    assert sum(sizes.values()) < 15_000, sizes


@pytest.mark.browser
def test_description_of_the_api_is_shown_under_its_own_policy(site, open_page):
    page = open_page()
    page.goto(f"{site.url}/api/docs/")
    expect(page.locator(".opblock").first).to_be_visible()


@pytest.mark.django_db
@pytest.mark.rows_by_hand
def test_history_of_two_hundred_asks_no_more_than_one_of_three(client, start, work, django_assert_max_num_queries):
    made = [start(), start(), start()]
    work()
    client.force_login(made[0].user)

    def queries():
        with django_assert_max_num_queries(12) as asked:
            answer = client.get(reverse("history"))
        return len(asked), len(answer.context["page"])

    with_three, shown = queries()
    assert shown == 3
    Run.objects.bulk_create(copy_of(Run.objects.get(pk=made[0].pk)) for _ in range(197))
    assert queries() == (with_three, 24)


def copy_of(run: Run) -> Run:
    made = Run.objects.get(pk=run.pk)
    made.pk = made._meta.pk.get_default()
    return made
