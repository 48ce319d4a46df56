"""The report in a real browser: Chromium, headless, from disk, in both colour schemes and on paper."""

import json
import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

import chromium
import pytest
import report_cases

pytestmark = pytest.mark.skipif(chromium.found() is None, reason="no chromium here (set CHROMIUM to its path)")

PAGES = ("index.html", "A1.html", "B2.html")
SIZES = ((1440, 900), (1280, 720), (700, 900))
LARGEST_WORDS = 400_000
"""Bytes of a page without its pictures: style, text, tables."""


@pytest.fixture(scope="module")
def site(tmp_path_factory, repo):
    """Return the folder of a report of two sections, one of them without coordinates."""
    return report_cases.site(tmp_path_factory.mktemp("results") / "a study & more", repo)


@pytest.fixture(scope="module")
def browser():
    with chromium.Page() as page:
        yield page


@pytest.fixture
def page(browser):
    """Return the browser, and see at the end that nothing went wrong."""
    browser.errors.clear()
    browser.requests.clear()
    browser.resize(1440, 900)
    show(browser, dark=False)
    yield browser
    assert not browser.errors
    outside = [url for url in browser.requests if not url.startswith(("file:", "data:", "about:"))]
    assert not outside


def show(page, *, dark, media=""):
    """Choose the colour scheme, and screen or paper."""
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    page.call("Emulation.setEmulatedMedia", features=scheme, media=media)


def visit(page, path):
    """Open a page and wait until it and all its pictures are there."""
    page.call("Page.navigate", url="about:blank")
    page.call("Page.navigate", url=path.as_uri())
    page.until("document.readyState === 'complete' && document.getElementById('content') !== null")
    page.until("[...document.images].every((image) => image.complete)")


def bright(colour):
    """Return the mean of the channels of a colour as the browser says it."""
    channels = [float(part) for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    return sum(channels) / 3


@pytest.mark.parametrize("name", PAGES)
def test_a_page_loads_one_file_and_shows_every_picture(page, site, name):
    visit(page, site / name)
    assert [url for url in page.requests if url.startswith("file:")] == [(site / name).as_uri()]
    pictures = page.run("[...document.images].map((image) => [image.alt, image.naturalWidth, image.width])")
    assert pictures
    for alt, width, shown in pictures:
        assert len(alt) > 5
        assert width > 0
        assert shown > 0


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(page, site, name):
    visit(page, site / name)
    links = page.run(
        "[...document.querySelectorAll('a')].map("
        "(a) => [a.getAttribute('href'), a.href, a.textContent || a.firstChild.alt])"
    )
    for written, full, words in links:
        assert words.strip(), written
        if written.startswith("#"):
            assert page.run(f"document.getElementById({json.dumps(written[1:])}) !== null"), written
        elif written.startswith("https:"):
            assert urlsplit(full).hostname == "doi.org"
        else:
            assert not written.startswith("/"), written
            target = Path(unquote(urlsplit(full).path))
            assert target.is_file(), written
            anchor = urlsplit(full).fragment
            assert not anchor or f'id="{anchor}"' in target.read_text(encoding="utf-8"), written
    kinds = {words for *_, words in links}
    assert {"png", "pdf"} <= kinds
    assert (name == "index.html") == any(written == "../explorer/index.html" for written, *_ in links)


@pytest.mark.parametrize("dark", [False, True])
def test_the_colour_scheme_is_that_of_the_system(page, site, dark):
    show(page, dark=dark)
    visit(page, site / "index.html")
    assert (bright(page.run("getComputedStyle(document.body).backgroundColor")) < 80) == dark
    assert (bright(page.run("getComputedStyle(document.body).color")) > 150) == dark


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", PAGES)
def test_nothing_sticks_out_of_the_window(page, site, name, size):
    page.resize(*size)
    visit(page, site / name)
    page.run("document.querySelectorAll('details').forEach((part) => (part.open = true))")
    assert page.run("document.documentElement.scrollWidth") <= size[0]


def test_a_page_weighs_no_more_than_it_shows(site):
    largest = (site.parent / "samples" / "A1" / "figures" / "domain.png").stat().st_size
    assert largest > 3_000_000
    for name in PAGES:
        markup = (site / name).read_text(encoding="utf-8")
        pictures = sum(len(part.split('"')[0]) for part in markup.split('"data:image/')[1:])
        assert len(markup.encode()) - pictures < LARGEST_WORDS
        assert pictures < largest


def test_warnings_and_what_was_left_out_stand_before_all_sections(page, site):
    visit(page, site / "index.html")
    order = page.run("[...document.querySelectorAll('.notice .head, section > h2')].map((part) => part.textContent)")
    assert "warning" in order[0]
    assert order[1] == "1 sample of the sheet left out"
    assert order[2:4] == ["Answers", "Samples"]
    assert page.run("document.querySelector('.tag.lost').textContent") == "loses"


def test_every_part_is_reached_by_tab(page, site):
    visit(page, site / "index.html")
    page.press("Tab", 9)
    assert page.run("document.activeElement.className") == "skip"
    seen = set()
    for _ in range(120):
        page.press("Tab", 9)
        seen.add(page.run("document.activeElement.tagName + '.' + document.activeElement.className.split(' ')[0]"))
    assert {"A.", "A.button", "DIV.table", "SUMMARY."} <= seen


def test_what_is_folded_opens_from_the_keyboard(page, site):
    visit(page, site / "index.html")
    page.run("document.querySelector('#domains-niches-and-communication summary').focus()")
    assert not page.run("document.querySelector('#domains-niches-and-communication details').open")
    page.press("Enter", 13)
    page.until("document.querySelector('#domains-niches-and-communication details').open")


def test_on_paper_everything_is_open_and_the_contents_are_left_out(page, site):
    show(page, dark=True, media="print")
    visit(page, site / "index.html")
    assert page.run("getComputedStyle(document.querySelector('.contents')).display") == "none"
    assert bright(page.run("getComputedStyle(document.body).backgroundColor")) > 250
    assert page.run("document.querySelector('details:not([open]) table').getBoundingClientRect().height") > 100
    assert (
        page.run(
            "document.querySelector('.table.tall').scrollHeight - document.querySelector('.table.tall').clientHeight"
        )
        < 3
    )


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("name", PAGES)
@pytest.mark.skipif("HISTOWEFT_AXE" not in os.environ, reason="set HISTOWEFT_AXE to the path of axe.min.js (axe-core)")
def test_axe_finds_nothing(page, site, name, dark):
    show(page, dark=dark)
    visit(page, site / name)
    page.run("document.querySelectorAll('details').forEach((part) => (part.open = true))")
    page.run(Path(os.environ["HISTOWEFT_AXE"]).read_text(encoding="utf-8") + ";0")
    found = page.run("axe.run().then((r) => r.violations.map((v) => [v.id, v.nodes.map((n) => n.target.join(' '))]))")
    assert not found
