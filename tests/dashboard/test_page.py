"""The page, in a real headless Chromium: what is seen, by eye, by keyboard and by those who read it out."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from seawall import dashboard

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: it drives the browser")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here: apt-get install chromium")
QUIET = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
sync_api.expect.set_options(timeout=20_000)  # the page asks once a second, and the machine may be busy
TOKEN = "a-token-that-nobody-guesses"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens a page that complains of nothing and asks nobody but its own host."""
    contexts, complaints, asked = [], [], []

    def opened(url: str, *, complains: bool = False, **settings: Any) -> Any:
        contexts.append(
            browser.new_context(**{"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce"} | settings)
        )
        page = contexts[-1].new_page()
        if not complains:
            page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(url)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []
    assert {url.partition("?")[0] for url in asked if not re.match(r"http://127\.0\.0\.1:\d+/", url) and url != "data:,"} == set()


@pytest.fixture
def page(lab: Any, open_page: Callable[..., Any]) -> Any:
    opened = open_page(lab.url)
    sync_api.expect(opened.locator("#link")).to_have_text("live")
    return opened


def shows(locator: Any) -> Any:
    return sync_api.expect(locator)


def row(page: Any, name: str) -> Any:
    # Where it is narrow, the reason follows the name.
    return page.get_by_role("row").filter(has=page.get_by_role("rowheader", name=re.compile(rf"^{re.escape(name)}( |$)")))


def test_a_breaker_that_opens_is_seen_to_open_and_to_close_again(page, lab):
    lab("breaker, other = CircuitBreaker(2, 1000, name='payments'), CircuitBreaker(name='other')")
    state = row(page, "payments").get_by_role("cell").first
    shows(state).to_have_text("closed")
    shows(page.locator("#headline")).to_have_text("All 2 circuits are closed")
    shows(page.locator("#health")).to_have_attribute("data-level", "calm")

    lab("breaker.record_failure(); breaker.record_failure()")
    shows(state).to_have_text("open")
    shows(row(page, "payments")).to_contain_text("2 failures in a row")
    shows(page.locator("#headline")).to_have_text("1 of 2 circuits is open")
    shows(page.locator("#detail")).to_contain_text("payments")
    shows(page.locator("#health")).to_have_attribute("data-level", "bad")
    shows(page).to_have_title("(1 open) · seawall · lab")
    shows(page.locator("#spoken")).to_have_text("Circuit payments is open")
    # What is open comes first.
    shows(page.locator("#circuits-table tbody tr").first).to_contain_text("payments")

    lab("breaker.force('half_open')")
    shows(state).to_have_text("half open")
    shows(page.locator("#headline")).to_have_text("1 of 2 circuits is half open")
    shows(page.locator("#health")).to_have_attribute("data-level", "watch")

    lab("breaker.record_success()")
    shows(state).to_have_text("closed")
    shows(page.locator("#health")).to_have_attribute("data-level", "calm")
    shows(page.locator("#spoken")).to_have_text("Circuit payments is closed")
    shows(page).to_have_title("seawall · lab")


def test_calls_failures_and_alerts_are_seen(page, lab):
    lab("""
        sim = Simulator().start()
        sim.on("primary", faults.status(503))
        chat = Chat("primary", api_key="k", base_url=sim.base_url, monitor=Monitor(name="watched")).with_retry(stop_after_attempt=2, wait=0)
        def fail(times):
            for _ in range(times):
                try:
                    chat.invoke("hello")
                except InternalServerError:
                    pass
        fail(12)
    """)
    line = page.locator("#series-table tbody tr").filter(has_text="primary")
    shows(line).to_contain_text("ServiceUnavailable 12")
    calls, failed = line.get_by_role("cell").nth(1), line.get_by_role("cell").nth(2)
    shows(calls).to_have_text("12")
    shows(failed).to_have_text("100 %")
    shows(page.locator("#headline")).to_have_text("100 % of calls fail")
    shows(page.locator("#health")).to_have_attribute("data-level", "bad")
    shows(page.locator("#tiles > div").filter(has_text="Failed")).to_have_attribute("data-level", "bad")

    newest = page.locator("#failures li").first
    shows(newest).to_contain_text("2 attempts in")
    failure = page.locator(f"#failures li[data-key='{newest.get_attribute('data-key')}']")
    failure.locator("summary").click()
    attempts = failure.get_by_role("table", name="Attempts")
    shows(attempts.locator("tbody tr")).to_have_count(2)
    shows(attempts).to_contain_text("primary at 127.0.0.1:")
    shows(attempts).to_contain_text("ServiceUnavailable 503")
    # What was opened stays so while others come.
    lab("fail(1)")
    shows(calls).to_have_text("13")
    shows(page.locator("#failures li")).to_have_count(13)
    shows(attempts).to_be_visible()

    shows(page.locator("#alerts li").first).to_contain_text("emergency")
    shows(page.locator("#spoken")).to_contain_text("Alert raised: watched, total outage, 5 failures in a row")
    chart = page.get_by_role("figure").filter(has=page.get_by_role("heading", name="Calls", exact=True))
    chart.get_by_text("As a table").click()
    # The table is drawn with the next answer.
    page.wait_for_function(
        "(chart) => [...chart.querySelectorAll('tbody tr')].reduce((sum, row) => sum + Number(row.lastElementChild.textContent), 0) === 13",
        arg=chart.element_handle(),
    )


def test_empty_it_says_what_to_do(page):
    shows(page.locator("#headline")).to_have_text("Nothing has happened yet")
    shows(page.locator("#circuits-table")).to_contain_text("@seawall.circuit")
    shows(page.locator("#alerts")).to_contain_text("seawall.Monitor()")
    shows(page.locator("#failures")).to_contain_text("No call has failed")


def test_names_are_text(page, lab):
    hostile = "<img src=x onerror=document.title='owned'>{STYLE}"
    lab(f"hostile = CircuitBreaker(name={hostile!r})")
    shows(row(page, hostile)).to_be_visible()
    assert page.locator("img").count() == 0
    assert "owned" not in page.title()


def test_hundreds_are_sorted_and_filtered(page, lab):
    lab("""
        many = [CircuitBreaker(1, 1000, name=f"tenant-{i}") for i in range(300)]
        for i, turned_away in ((7, 12), (70, 9), (170, 0)):
            many[i].record_failure()
            for _ in range(turned_away):
                many[i].try_acquire()
    """)
    rows = page.locator("#circuits-table tbody tr")
    shows(page.locator("#circuits-count")).to_have_text("300")
    # The rest of the page is not three hundred rows away, and the table scrolls by itself.
    assert page.locator("#alerts").bounding_box()["y"] < 2 * 900
    rows.last.scroll_into_view_if_needed()
    shows(rows.last).to_be_in_viewport()
    shows(page.locator("#circuits-table thead th").first).to_be_in_viewport()
    shows(page.locator("#circuits-count")).to_have_text("300")
    assert [each.inner_text().split("\n")[0].strip() for each in rows.get_by_role("rowheader").all()[:3]] == [
        "tenant-7",
        "tenant-70",
        "tenant-170",
    ]

    page.get_by_label("Filter").first.fill("tenant-17")
    shows(rows).to_have_count(11)
    shows(page.locator("#circuits-count")).to_have_text("11 of 300")
    page.get_by_role("combobox", name="State").select_option("not closed")
    shows(rows).to_have_count(1)
    page.get_by_label("Filter").first.fill("nothing like it")
    shows(page.locator("#circuits-table")).to_contain_text("No circuit fits the filter.")
    page.get_by_label("Filter").first.fill("")
    page.get_by_role("combobox", name="State").select_option("all")

    name = page.locator("#circuits-table").get_by_role("columnheader", name="Circuit", exact=True)
    name.get_by_role("button").click()
    shows(name).to_have_attribute("aria-sort", "ascending")
    shows(rows.first).to_contain_text("tenant-0")
    name.get_by_role("button").click()
    shows(name).to_have_attribute("aria-sort", "descending")
    shows(rows.first).to_contain_text("tenant-99")
    name.get_by_role("button").click()
    shows(name).not_to_have_attribute("aria-sort", re.compile(".*"))
    shows(rows.first).to_contain_text("tenant-7")

    number = page.locator("#circuits-table").get_by_role("columnheader", name="Turned away")
    number.get_by_role("button").click()
    shows(number).to_have_attribute("aria-sort", "descending")
    shows(rows.nth(1)).to_contain_text("tenant-70")  # 12, 9, 0: by number, not by text
    number.get_by_role("button").click()
    shows(rows.last).to_contain_text("tenant-7")


def test_a_process_that_comes_again_is_found_again(browser, open_page):
    running = dashboard.serve(0, quiet=True, title="first")
    page = open_page(running.url, complains=True)  # Chromium itself says on the console that nobody answers
    shows(page.locator("#title")).to_have_text("first")
    running.close()
    shows(page.locator("#headline")).to_have_text("The process does not answer")
    shows(page.locator("#link")).to_have_text("no answer")
    shows(page).to_have_title(re.compile("no answer"))
    with dashboard.serve(running.port, quiet=True, title="second"):
        shows(page.locator("#title")).to_have_text("second")
        shows(page.locator("#link")).to_have_text("live")
    with dashboard.serve(running.port, quiet=True, token=TOKEN):
        shows(page.locator("#headline")).to_have_text("The token is asked for again")


def test_the_token_is_typed_once(open_page):
    with dashboard.serve(0, host="0.0.0.0", token=TOKEN, quiet=True) as running:
        page = open_page(running.url, complains=True)  # of the 401
        page.get_by_label("Token").fill("something else")
        page.get_by_role("button", name="Open the dashboard").click()
        shows(page.get_by_label("Token")).to_be_visible()
        page.get_by_label("Token").fill(TOKEN)
        page.keyboard.press("Enter")
        shows(page.locator("#link")).to_have_text("live")
        assert page.url == f"{running.url}/"
        page.reload()
        shows(page.locator("#link")).to_have_text("live")
        assert page.evaluate("document.cookie") == ""


def test_it_can_be_paused(page, lab):
    page.get_by_role("button", name="Pause").click()
    shows(page.locator("#link")).to_have_text("paused")
    lab("kept = CircuitBreaker(name='made while it was paused')")
    assert row(page, "made while it was paused").count() == 0
    page.get_by_role("button", name="Go on").click()
    shows(row(page, "made while it was paused")).to_be_visible()
    shows(page.locator("#link")).to_have_text("live")


def test_themes(served, open_page):
    ground = "getComputedStyle(document.body).backgroundColor"
    dark, light = (open_page(served.url, color_scheme=scheme) for scheme in ("dark", "light"))
    seen = {"dark": dark.evaluate(ground), "light": light.evaluate(ground)}
    assert len(set(seen.values())) == 2
    button = light.locator("#theme")
    shows(button).to_have_text("Theme: system")
    button.click()
    shows(button).to_have_text("Theme: light")
    button.click()
    shows(button).to_have_text("Theme: dark")
    assert light.evaluate(ground) == seen["dark"]
    light.reload()
    shows(button).to_have_text("Theme: dark")
    assert light.evaluate(ground) == seen["dark"]
    button.click()
    assert light.evaluate(ground) == seen["light"]


def test_narrow_and_enlarged_it_does_not_scroll_sideways(lab, open_page):
    lab("long, short = CircuitBreaker(1, 1000, name='a-name-without-any-end-' * 6), CircuitBreaker(name='short')")
    lab("long.record_failure()")
    for width in (320, 390, 768, 1280):
        page = open_page(lab.url, viewport={"width": width, "height": 800})
        shows(row(page, "short")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        shows(page.locator("#circuits-table").get_by_text("a failure").locator("visible=true")).to_have_count(1)


def test_everything_is_reached_by_keyboard(page, lab):
    lab("kept = CircuitBreaker(name='kept')")
    shows(row(page, "kept")).to_be_visible()
    page.keyboard.press("Tab")
    shows(page.get_by_role("link", name="Skip to the circuits")).to_be_focused()
    reached = []
    for _ in range(60):
        page.keyboard.press("Tab")
        element = page.evaluate(
            """() => {
                const it = document.activeElement, style = getComputedStyle(it), box = it.getBoundingClientRect();
                return [it.tagName, it.id || it.getAttribute("aria-label") || it.textContent.trim(), style.outlineStyle, parseFloat(style.outlineWidth),
                        box.width > 0 && box.height > 0 && box.top >= 0 && box.top < innerHeight];
            }"""
        )
        if element[0] == "BODY":
            break
        reached.append(element)
    names = [name for _, name, *_ in reached]
    for wanted in (
        "pause",
        "theme",
        "circuits-filter",
        "circuits-state",
        "Circuits",
        "State",
        "Circuit",
        "Turned away",
        "As a table",
        "series-filter",
    ):
        assert wanted in names, (wanted, names)
    assert [each for each in reached if each[2] == "none" or each[3] < 2 or not each[4]] == []

    # A focus stays where it is while the page goes on.
    page.locator("#circuits-table").get_by_role("button", name="Openings").focus()
    page.keyboard.press("Enter")
    shows(page.get_by_role("columnheader", name="Openings")).to_have_attribute("aria-sort", "descending")
    lab("newer = CircuitBreaker(name='newer')")
    shows(row(page, "newer")).to_be_visible()
    shows(page.locator("#circuits-table").get_by_role("button", name="Openings")).to_be_focused()


def test_a_chart_has_a_table_beside_it(page):
    for name in ("Calls", "Rates", "Latency"):
        chart = page.get_by_role("figure").filter(has=page.get_by_role("heading", name=name, exact=True))
        assert re.match(f"{name} .* Latest: ", chart.get_by_role("img").get_attribute("aria-label"))
        chart.get_by_text("As a table").click()
        shows(chart.get_by_role("table", name=name)).to_be_visible()


def test_the_outline_makes_sense_to_those_who_hear_it(page):
    assert page.locator("html").get_attribute("lang") == "en"
    assert [page.get_by_role(role).count() for role in ("banner", "main", "contentinfo")] == [1, 1, 1]
    headings = [(int(each.evaluate("e => e.tagName[1]")), each.inner_text()) for each in page.get_by_role("heading").all()]
    assert [level for level, _ in headings].count(1) == 1
    assert all(later - earlier <= 1 for (earlier, _), (later, _) in zip(headings, headings[1:], strict=False)), headings
    regions = page.evaluate(
        "[...document.querySelectorAll('section')].map(s => document.getElementById(s.getAttribute('aria-labelledby'))?.textContent)"
    )
    assert all(regions)
    assert [each.get_attribute("aria-live") for each in page.locator("[aria-live]").all()] == ["polite"]


AXE = pytest.importorskip(
    "axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed: it holds axe-core"
)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_axe_finds_nothing(lab, open_page, scheme, width):
    lab("""
        opened, near, off, half = (CircuitBreaker(5, 1000, name=name) for name in ("opened", "near", "off", "half"))
        for i in range(5):
            opened.record_failure()
            if i:
                near.record_failure()
        off.force("disabled")
        half.force("half_open")

        @guard(name="failing", retry=Retry(2, wait=0), circuit=None, monitor=Monitor(name="watched"))
        def failing():
            raise ConnectionError

        for _ in range(12):
            try:
                failing()
            except ConnectionError:
                pass
    """)
    page = open_page(lab.url, color_scheme=scheme, viewport={"width": width, "height": 900})
    shows(row(page, "opened")).to_be_visible()
    page.locator("#failures summary").first.click()
    for each in page.get_by_text("As a table").all():
        each.click()
    # The policy of the page lets nothing in from outside of it: what the browser's own tools put in passes.
    found = AXE.Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    assert [(each["id"], [node["target"] for node in each["nodes"]]) for each in found] == []
