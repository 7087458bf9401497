"""The page in a real browser: it opens from disk, sorts, filters, enlarges, and asks nobody for anything."""

from urllib.parse import urlsplit

import pytest
from support.browser import chromium, requests_of

import lowlight_iqa

from .conftest import METHODS, make

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    made = make(folder / "pictures", count=12)
    lowlight_iqa.compare(
        {label: made[label] for label in METHODS},
        ("toy", "contrast", "loe"),
        inputs=made["input"],
        references=made["reference"],
        out=folder / "out",
        draws=100,
    )
    return folder / "out" / "index.html"


@pytest.fixture(params=[1280, 390])
def browser(request, page, tmp_path):
    with chromium(tmp_path / "profile", width=request.param) as driver:
        requests_of(driver)  # of the browser's own first page
        driver.get(page.as_uri())
        yield driver
        assert driver.get_log("browser") == []
        asked = requests_of(driver)
        assert asked
        folder = page.parent.as_uri()
        assert [url for url in asked if urlsplit(url).scheme != "data" and not url.startswith(folder)] == []


def find(driver, selector):
    return driver.find_elements("css selector", selector)


def shown(driver):
    """Names of the strips, then of the list's rows, that are seen, in the page's order."""
    script = """return [".strip h3", "#index tbody th"].map((selector) =>
        [...document.querySelectorAll(selector)].filter((e) => e.checkVisibility()).map((e) => e.textContent))"""
    return driver.execute_script(script)


def click(driver, element):
    driver.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", element)
    driver.execute_script("arguments[0].click()", element)


def press(driver, key):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    ActionChains(driver).send_keys(getattr(Keys, key, key)).perform()


def test_nothing_runs_over_the_side(browser):
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    missing = "return [...document.images].filter((i) => i.complete && i.src && !i.naturalWidth).map((i) => i.src)"
    assert browser.execute_script(missing) == []
    assert len(find(browser, ".panels svg")) == 6 + 1 + 6 + 3  # ranking, attributes, distributions, agreement


def test_pictures_are_sorted_by_any_column(browser):
    heads = find(browser, "#index thead th")
    assert shown(browser)[0] == [str(index) for index in range(12)]
    click(browser, heads[0])
    click(browser, heads[0])
    assert shown(browser)[0] == [str(index) for index in reversed(range(12))]
    for column, head in enumerate(heads[1:], start=1):
        click(browser, head)
        strips, rows = shown(browser)
        assert strips == rows
        cells = [float(cell.text) for cell in find(browser, f"#index tbody td:nth-child({column + 1})")]
        assert cells == sorted(cells)


def test_another_measure_fills_and_sorts_the_list(browser):
    click(browser, find(browser, "#index thead th")[1])
    before = shown(browser)[0]
    select = find(browser, "#measure")[0]
    browser.execute_script("arguments[0].value = '2'; arguments[0].dispatchEvent(new Event('change'))", select)
    cells = [float(cell.text) for cell in find(browser, "#index tbody td:nth-child(2)")]
    assert cells == sorted(cells)
    assert shown(browser)[0] != before


def test_methods_are_sorted_by_any_column(browser):
    heads = find(browser, ".main thead tr:last-child th")
    for column, head in enumerate(heads):
        click(browser, head)
        rows = "[...document.querySelector('.main').tBodies[0].rows]"
        values = browser.execute_script(f"return {rows}.map((row) => row.cells[arguments[0]].dataset.value)", column)
        assert values == (sorted(values) if column == 0 else sorted(values, key=float))


def test_a_name_is_found(browser):
    box = find(browser, "#filter")[0]
    box.send_keys("1")
    assert shown(browser) == [["1", "10", "11"]] * 2
    assert find(browser, "#count")[0].text == "3 of 12 pictures"
    box.send_keys("9")
    assert shown(browser) == [[], []]


def test_a_click_enlarges_and_keys_go_on(browser):
    title = find(browser, "#viewer-title")[0]
    click(browser, find(browser, "#p0 a.view")[1])
    assert title.text == "0 · bright"
    press(browser, "ARROW_RIGHT")
    assert title.text == "0 · noisy"
    press(browser, "ARROW_DOWN")
    assert title.text == "1 · noisy"
    press(browser, "ARROW_UP")
    press(browser, "ARROW_LEFT")
    press(browser, "ARROW_LEFT")
    assert title.text == "0 · input"
    press(browser, "5")
    assert title.text == "0 · reference"
    assert "contrast" in find(browser, "#viewer-scores")[0].text
    image = find(browser, "#viewer-image")[0]
    wait = "const done = arguments[1]; arguments[0].decode().then(() => done(arguments[0].naturalWidth))"
    assert browser.execute_async_script(wait, image) == 68
    press(browser, "ESCAPE")
    assert not browser.execute_script("return document.getElementById('viewer').open")


def test_the_viewer_goes_through_the_pictures_that_the_filter_leaves(browser):
    find(browser, "#filter")[0].send_keys("1")
    click(browser, find(browser, "#p1 a.view")[0])
    press(browser, "ARROW_DOWN")
    assert find(browser, "#viewer-title")[0].text == "10 · input"
    press(browser, "ESCAPE")


def test_dark_as_the_system_or_as_the_reader_wants_it(page, tmp_path):
    def paper(driver):
        return driver.execute_script("return getComputedStyle(document.body).backgroundColor")

    with chromium(tmp_path / "profile", dark=True) as driver:
        driver.get(page.as_uri())
        assert paper(driver) == "rgb(20, 23, 27)"
        click(driver, find(driver, "#scheme")[0])
        assert paper(driver) == "rgb(255, 255, 255)"


def test_only_pictures_that_are_seen_are_loaded(page, tmp_path):
    """What keeps a page of thousands of pictures usable."""
    with chromium(tmp_path / "profile") as driver:
        requests_of(driver)
        driver.get(page.as_uri())
        everything = driver.execute_script("return new Set([...document.images].map((i) => i.src)).size")
        loaded = {url for url in requests_of(driver) if url.endswith(".jpg")}
        assert len(loaded) < everything / 2
        assert (
            driver.execute_script("return getComputedStyle(document.querySelector('.strip')).contentVisibility")
            == "auto"
        )
        driver.execute_script("document.querySelector('#p11').scrollIntoView({behavior: 'instant'})")
        seen = "const done = arguments[0]; document.querySelector('#p11 img').decode().then(() => done(true))"
        assert driver.execute_async_script(seen)
