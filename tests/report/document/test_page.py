"""The page in a browser: nothing fetched, nothing obeyed, everything reachable."""

import shutil
from pathlib import Path

import pytest
from made_up import Shape, written
from playwright.sync_api import Page, expect, sync_playwright

IMAGE, SCRIPT = "<img src=x onerror=alert(1)>", "</script><script>alert(1)</script>"
FORMULA = '=HYPERLINK("http://example.org","x")'
HOSTILE = Shape(
    name=SCRIPT,
    names=(f"full {IMAGE}", "$x_1$ & %", FORMULA, "<!-- </SCRIPT>"),
    errors=(f"{SCRIPT} {IMAGE}", "{{ 7 * 7 }}"),
    warnings=(IMAGE, SCRIPT),
    model=IMAGE,
    rows=40,
)
PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def chromium():
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("chromium is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return written(tmp_path_factory.mktemp("hostile") / "run", HOSTILE)


@pytest.fixture(scope="module")
def poor_report(tmp_path_factory):
    """One seed and two rows: no interval, no margin, no verdict."""
    shape = Shape(rates=(1e-3,), seeds=1, rows=2, steps=1)
    return written(tmp_path_factory.mktemp("poor") / "run", shape, anatomy=None)


@pytest.fixture
def opened(chromium, report):
    """Opens the page; afterwards nothing may have been fetched, said or popped up."""
    heard: list[str] = []
    contexts = []

    def open_page(report: Path = report, **options) -> Page:
        context = chromium.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        address = (report / "index.html").as_uri()

        def route(request):
            if request.request.url == address:
                request.continue_()
            else:
                heard.append(f"request: {request.request.url}")
                request.abort()

        context.route("**/*", route)
        page.on("console", lambda message: heard.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: heard.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (heard.append("dialog"), dialog.dismiss()))
        page.goto(address)
        page.wait_for_selector("html[data-drawn]")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert heard == []


def tooltip(page: Page):
    return page.locator("#vg-tooltip-element.visible")


def test_names_are_shown_and_not_obeyed(opened):
    page = opened()
    assert page.title() == f"{SCRIPT}: where LoRA adapters go"
    expect(page.locator("h1")).to_have_text(SCRIPT)
    assert page.locator("img, body iframe, a[href^='http']").count() == 0
    assert page.locator("script").count() == 3
    rows = page.locator("[data-table=placements] tbody th")
    assert rows.all_inner_texts() == ["untuned base", *HOSTILE.names]
    assert IMAGE in page.locator("[data-table=failed]").inner_text()
    assert "{{ 7 * 7 }}" in page.locator("[data-table=failed]").inner_text()


def test_the_policy_of_the_page_would_stop_what_slipped_through(chromium, report, tmp_path):
    text = (report / "index.html").read_text(encoding="utf-8")
    slipped = "<img src=x onerror=document.title='obeyed'><script>document.title='obeyed'</script>"
    (tmp_path / "page.html").write_text(text.replace("<main>", f"<main>{slipped}"))
    page = chromium.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    page.wait_for_selector("html[data-drawn]")
    assert page.title() != "obeyed"
    page.close()


def test_every_chart_is_drawn(opened):
    page = opened()
    figures = page.locator("figure[data-figure]")
    names = figures.evaluate_all("all => all.map(each => each.dataset.figure)")
    assert names == [
        "forest",
        "pareto",
        "adapted",
        "importance",
        "rates",
        "curves",
        "resources",
    ]
    for at in range(len(names)):
        assert figures.nth(at).locator("svg [role='graphics-symbol'], svg path").count() > 0


def test_a_run_that_says_little_is_drawn_as_well(opened, poor_report):
    page = opened(poor_report)
    expect(page.locator(".headline")).to_contain_text("cannot be told from full")
    assert page.locator("[data-figure=forest] .mark-symbol.role-mark path").count() == 2


def test_a_pointer_brings_the_figures_of_a_point(opened):
    page = opened()
    point = page.locator("[data-figure=forest] .mark-symbol.role-mark path").first
    point.scroll_into_view_if_needed()
    point.hover()
    expect(tooltip(page)).to_contain_text("difference")
    expect(tooltip(page)).to_be_in_viewport(ratio=1)
    assert page.locator("#vg-tooltip-element img").count() == 0


def test_a_pointer_brings_the_figures_of_a_curve(opened):
    page = opened(viewport=PHONE)
    point = page.locator("[data-figure=curves] .mark-symbol.role-mark path").last
    point.scroll_into_view_if_needed()
    point.hover()
    values = tooltip(page).locator("td.value").all_inner_texts()
    assert values[0] in HOSTILE.names
    assert [float(value) for value in values[1:]]
    expect(tooltip(page)).to_be_in_viewport(ratio=1)


def test_the_arrow_keys_go_from_point_to_point(opened):
    page = opened()
    canvas = page.locator("[data-figure=pareto] .canvas")
    canvas.focus()
    said = []
    for _ in HOSTILE.names:
        page.keyboard.press("ArrowRight")
        expect(tooltip(page)).to_contain_text("trainable parameters")
        expect(tooltip(page)).to_be_in_viewport(ratio=1)
        said.append(page.locator("[data-figure=pareto] .spoken").text_content())
    assert len(set(said)) == len(HOSTILE.names)
    page.keyboard.press("Escape")
    expect(tooltip(page)).to_have_count(0)


def test_another_cost_can_be_chosen(opened):
    page = opened()
    figure = page.locator("[data-figure=pareto]")
    figure.locator("select").select_option(label="peak memory")
    expect(figure.locator("svg")).to_contain_text("peak memory of a training step")
    links = figure.locator(".files:visible a")
    assert links.evaluate_all("all => all.map(each => each.getAttribute('href'))") == [
        f"figures/pareto-memory.{ending}" for ending in ("svg", "pdf", "png")
    ]


def test_the_trials_can_be_filtered_and_sorted(opened):
    page = opened()
    table = page.locator("[data-table=trials]")
    rows = table.locator("tbody tr:visible")
    assert rows.count() == 24
    table.get_by_label("Filter").fill("failed hyper")
    assert rows.count() == 0
    table.get_by_label("Filter").fill("FAILED")
    assert rows.count() == 2
    expect(table.locator(".count")).to_have_text("2 of 24")
    table.get_by_label("Filter").fill("")
    table.get_by_role("button", name="test loss").press("Enter")
    header = table.locator("th[aria-sort]")
    expect(header).to_have_attribute("aria-sort", "ascending")
    shown = rows.locator("td:nth-child(5)").all_inner_texts()
    assert shown[-2:] == ["–", "–"]  # noqa: RUF001
    known = [float(text) for text in shown[:-2]]
    assert known == sorted(known)


def colours(page: Page) -> tuple[str, str]:
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    title = page.locator("[data-figure=forest] .role-axis-title text").first
    return ground, title.get_attribute("fill")


@pytest.mark.parametrize(("first", "second"), [("light", "dark"), ("dark", "light")])
def test_the_theme_follows_the_system_and_the_switch(opened, first, second):
    page = opened(color_scheme=first)
    before = colours(page)
    assert page.evaluate("document.documentElement.dataset.drawn") == first
    page.get_by_role("button", name=f"Switch to the {second} theme").click()
    page.wait_for_selector(f"html[data-drawn={second}]")
    after = colours(page)
    assert before[0] != after[0]
    assert before[1] != after[1]


def test_a_phone_needs_no_scrolling_sideways(opened):
    page = opened(viewport=PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    wide = page.locator("[data-table=contrasts] .scroll")
    assert wide.evaluate("each => each.scrollWidth > each.clientWidth")


def test_the_focus_is_seen(opened):
    page = opened()
    for _ in range(4):
        page.keyboard.press("Tab")
        width = page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
        assert width == "3px"
