"""The explorer in a real browser: Chromium, headless, from disk and from a server."""

import functools
import http.server
import json
import os
import shutil
import threading
from pathlib import Path
from urllib.parse import quote, urlencode

import chromium
import explorer_cases
import numpy as np
import pytest

pytestmark = pytest.mark.skipif(chromium.found() is None, reason="no chromium here (set CHROMIUM to its path)")

VIEW = "canvas"


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves a folder without a word."""

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Return the folder of an explorer of two sections and a sample without coordinates."""
    return explorer_cases.site(tmp_path_factory.mktemp("explorer") / "a study's explorer")


@pytest.fixture(scope="module")
def browser():
    with chromium.Page() as page:
        yield page


@pytest.fixture
def page(browser, site):
    """Return a page that shows the explorer from disk, and see at the end that nothing went wrong."""
    browser.errors.clear()
    browser.requests.clear()
    browser.resize(1440, 900)
    browser.open(address(site))
    yield browser
    assert not browser.errors
    outside = [url for url in browser.requests if not url.startswith(("file:", "data:", "blob:", "about:"))]
    assert not outside


def address(site, **state):
    """Return where the explorer lies, and what it is to show."""
    fragment = f"#{urlencode(state, doseq=True, quote_via=quote)}" if state else ""
    return (site / "index.html").as_uri() + fragment


def differ(a, b):
    """Return the share of pixels that two pictures do not share."""
    return float((np.abs(a - b).max(axis=2) > 8).mean())


def choose_gene(page, name):
    page.run("document.getElementById('search').focus()")
    page.type(name)
    page.until("!document.getElementById('suggestions').hidden")
    page.press("Enter", 13)
    page.until(f"state.genes.at(-1) === {json.dumps(name)}")
    page.drawn()


def slide(page, layer, value):
    page.run(
        f"(() => {{const r = document.getElementById('layer-{layer}'); r.value = {value};"
        "r.dispatchEvent(new Event('input'))})()"
    )
    page.drawn()


def hash_holds(page, text):
    page.until(f"location.hash.includes({json.dumps(text)})")


def test_first_picture_loads_no_gene(page):
    assert page.run("document.title") == "A & B <i>study</i>: explorer"
    assert page.run("page.views.length") == 3
    assert not [url for url in page.requests if "/genes" in url or "painted-" in url]


def test_groups_are_drawn_in_their_colours(page, site):
    about = json.loads((site / "data" / "one" / "sample.json").read_text())
    colour = about["columns"][0]["colours"]["west"]
    slide(page, "image", 0)
    slide(page, "points", 100)
    picture = page.picture(VIEW).reshape(-1, 3)
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    drawn = (np.abs(picture - wanted).max(axis=1) <= 3).mean()
    # Half of the spots, which cover pi / 4 x (55 / 100)^2 of the area they span.
    assert 0.02 < drawn < 0.15


def test_gene_search_recolours(page):
    before = page.picture(VIEW)
    choose_gene(page, "GRADIENT")
    assert differ(before, page.picture(VIEW)) > 0.02
    assert page.run("document.getElementById('column').selectedOptions[0].textContent") == "Gene"


def test_search_suggests_and_keys_choose(page):
    page.run("document.getElementById('search').focus()")
    page.until("!document.getElementById('suggestions').hidden")
    first = page.run("[...document.querySelectorAll('#suggestions li')].map((item) => item.innerText)")
    assert [text.split()[0] for text in first] == ["GRADIENT", "UNIFORM"]  # the painted ones, before anything is typed
    page.type("gene1")
    page.until("document.querySelector('#suggestions li')?.textContent.startsWith('GENE1')")
    page.press("ArrowDown", 40)
    page.press("ArrowDown", 40)
    marked = page.run("document.querySelector('#suggestions [aria-selected=true]').textContent")
    assert page.run("document.activeElement.getAttribute('aria-activedescendant')")
    page.press("Enter", 13)
    page.until(f"state.genes[0] === {json.dumps(marked)}")
    page.drawn()


def test_quantised_expression_is_what_was_measured(page, site):
    truth = explorer_cases.expression("one")
    choose_gene(page, "GRADIENT")
    got = page.run("page.sections[0].gene('GRADIENT').then((gene) => [...gene.bytes].map((byte) => byte * gene.step))")
    step = truth["GRADIENT"].max() / 255
    assert np.abs(np.array(got) - truth["GRADIENT"]).max() <= step


def test_overlay_shows_up_to_three_genes(page):
    page.run("document.getElementById('overlay').click()")
    for name in ("GRADIENT", "UNIFORM", "GENE1", "GENE2"):
        choose_gene(page, name)
    assert page.run("state.genes") == ["UNIFORM", "GENE1", "GENE2"]
    assert page.run("document.querySelectorAll('#genes li').length") == 3
    black = (page.picture(VIEW).max(axis=2) < 12).mean()
    slide(page, "image", 0)
    assert (page.picture(VIEW).max(axis=2) < 12).mean() > max(0.3, black)


def test_opacity_of_the_image_changes_pixels(page):
    slide(page, "points", 0)
    full = page.picture(VIEW)
    slide(page, "image", 20)
    assert differ(full, page.picture(VIEW)) > 0.2


def test_painted_layer_follows_its_slider(page):
    choose_gene(page, "GRADIENT")
    slide(page, "points", 0)
    before = page.picture(VIEW)
    slide(page, "painted", 100)
    after = page.picture(VIEW)
    assert differ(before, after) > 0.2
    # The painted gene rises from left to right, and so does the brightness of the colour map.
    height, width = after.shape[:2]
    band = after[height // 2 - 20 : height // 2 + 20].sum(axis=2).mean(axis=0)
    left, right = band[int(0.3 * width)], band[int(0.65 * width)]
    assert right > left + 60


def test_rectangle_selects_and_counts(page, site):
    box = page.box(VIEW)
    page.click("[data-tool=box]")
    left, top = box["x"] + 2, box["y"] + 2
    middle = page.run(
        "(() => {const v = page.views[0]; const b = v.canvas.getBoundingClientRect();"
        f"return b.left + v.toPixels({explorer_cases.MIDDLE_UM}, 0)[0] / v.ratio}})()"
    )
    page.drag([(left, top), (middle - 30, top + 40), (middle, box["y"] + box["height"] - 2)])
    page.until("state.selection !== null")
    page.drawn()
    west = (explorer_cases.labels("one") == "west").sum()
    assert page.run("document.getElementById('selected').textContent").startswith(f"{west} of 200 points in one")
    rows = page.run("[...document.querySelectorAll('#summary tbody tr')].map((row) => row.innerText.split('\\t'))")
    assert [cell.strip() for cell in rows[0]] == ["west", str(west), "100.0", "0.0"]


def test_selection_in_the_umap_is_marked_on_the_tissue(page, site):
    page.open(address(site, show="both"))
    tissue = page.picture(VIEW)
    umap = page.box(".row canvas:nth-child(2)")
    x, y, w, h = (umap[key] for key in ("x", "y", "width", "height"))
    page.click("[data-tool=lasso]")
    page.drag([(x + 3, y + 3), (x + w / 2, y + 3), (x + w / 2, y + h - 3), (x + 3, y + h - 3), (x + 3, y + 5)])
    page.until("state.selection?.shape[1] === 'umap'")
    page.drawn()
    marked = np.array(page.run("[...page.sections[0].selected]"), dtype=bool)
    umap_x = explorer_cases.umap("one")[:, 0]
    assert 0 < marked.sum() < 200
    assert umap_x[marked].max() < umap_x[~marked].min()
    assert differ(tissue, page.picture(VIEW)) > 0.01


def test_legend_selects_a_group_in_every_section(page):
    page.click("#legend button")
    page.until("state.selection?.groups !== undefined")
    page.drawn()
    assert page.run("document.querySelector('#legend button').getAttribute('aria-pressed')") == "true"
    counted = sum((explorer_cases.labels(name) == "east").sum() for name in explorer_cases.SAMPLES)
    text = page.run("document.getElementById('selected').textContent")
    assert text.startswith(f"{counted} of 520 points")
    page.click("#clear")
    page.until("state.selection === null")
    page.drawn()


def test_address_restores_a_view(page, site):
    choose_gene(page, "GRADIENT")
    slide(page, "image", 35)
    box = page.box(VIEW)
    page.mouse("mouseWheel", box["x"] + 90, box["y"] + 120, deltaX=0, deltaY=-600)
    page.drag([(box["x"] + 60, box["y"] + 60), (box["x"] + 160, box["y"] + 110)])
    page.drag([(box["x"] + 20, box["y"] + 20), (box["x"] + 200, box["y"] + 200)], modifiers=8)
    page.until("state.selection !== null")
    page.drawn()
    for part in ("gene=GRADIENT", "image=35", "at=one", "selection="):
        hash_holds(page, part)
    page.mouse("mouseMoved", 5, 5)
    link, before = page.run("location.href"), page.picture()
    page.open(link)
    assert page.run("location.href") == link
    assert differ(before, page.picture()) < 0.001


def test_an_address_that_names_what_is_not_there(page, site):
    page.open(address(site, s=["one", "gone"], colour="No: such", at="one~tissue~x~y~z", selection="{", image="abc"))
    assert page.run("state.sections") == ["one"]
    assert page.run("state.layers.image") == 70
    assert "gone, No: such" in page.run("document.getElementById('status').textContent")


@pytest.mark.parametrize(
    "state",
    [
        {"show": "constructor", "across": "7", "size": "0"},
        {"by": "Quality: Counts"},
        {"selection": json.dumps({"groups": ["Quality: Counts", ["1"]]})},
        {"selection": json.dumps({"shape": ["one", "constructor", [0, 0, 1, 1, 2, 0]]})},
        {"selection": json.dumps({"shape": ["one", "tissue", [0, 0, 1, None, 2, 0]]})},
        {"gene": "constructor", "colour": "__proto__"},
    ],
)
def test_an_address_that_makes_no_sense_shows_the_study(page, site, state):
    page.open(address(site, **state))
    assert page.run("page.views.length") == 3
    assert page.run("state.layout") == "tissue"
    assert page.run("state.selection") is None


def test_wheel_and_keys_zoom_and_move(page):
    whole = page.run("page.views[0].shown.width")
    page.run("page.views[0].canvas.focus()")
    page.press("+")
    page.press("ArrowRight", 39)
    page.until(f"page.views[0].shown.width < {whole} / 1.2")
    page.press("0")
    page.until(f"page.views[0].shown.width === {whole}")


def test_point_under_the_mouse_is_named(page):
    page.run("page.sections[0].barcodes()")
    place = page.run(
        "(() => {const v = page.views[0]; const b = v.canvas.getBoundingClientRect();"
        "const {x: px, y: py} = v.section.places.tissue; const [x, y] = v.toPixels(px[7], py[7]);"
        "return [b.left + x / v.ratio, b.top + y / v.ratio]})()"
    )
    page.mouse("mouseMoved", *place)
    page.until("document.getElementById('tip').textContent.includes('spot-7')")
    assert "Expert label: " in page.run("document.getElementById('tip').textContent")


def test_every_control_is_reached_by_tab_and_named(page):
    seen = set()
    for _ in range(60):
        page.press("Tab", 9)
        seen.add(
            page.run(
                "(() => {const e = document.activeElement;"
                "return e.id || e.dataset.tool || e.getAttribute('aria-label') || e.value || e.tagName})()"
            )
        )
    for name in ("skip", "pan", "box", "lasso", "column", "search", "overlay", "layer-image", "layout", "by", "theme"):
        assert name in seen, name
    assert any(str(name).startswith("Tissue of one") for name in seen)


def test_names_from_data_stay_text(page):
    choose_gene(page, explorer_cases.NASTY)
    assert page.run("window.harmed") is None
    assert page.run("document.querySelectorAll('main img, aside img, header i:not(.swatch)').length") == 0
    assert explorer_cases.NASTY in page.run("document.getElementById('genes').textContent")


def test_sample_without_coordinates_shows_its_umap(page):
    assert page.run("page.views.map((view) => [view.section.name, view.place])")[2] == ["cells", "umap"]


def test_damaged_data_are_said(site, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(site, copy)
    (copy / "data" / "one" / "points.js").unlink()
    with chromium.Page() as page:
        page.call("Page.navigate", url=address(copy))
        page.until("document.getElementById('views')?.dataset.state === 'failed'")
        assert "points.js" in page.run("document.getElementById('status').textContent")


@pytest.mark.parametrize("dark", [False, True])
def test_theme_follows_the_system_and_the_button(site, dark):
    with chromium.Page(1280, 720, dark=dark) as page:
        page.open(address(site))
        bright = page.picture("header").mean()
        assert (bright < 90) == dark
        for _ in range(2 if not dark else 1):
            page.click("#theme")
        assert (page.picture("header").mean() < 90) != dark
        assert not page.errors


def test_from_a_server(site):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    host = f"http://127.0.0.1:{server.server_port}/"
    with chromium.Page() as page:
        page.open(f"{host}index.html")
        choose_gene(page, "GRADIENT")
        assert not page.errors
        assert not [url for url in page.requests if not url.startswith((host, "data:", "blob:", "about:"))]
    server.shutdown()


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.skipif("HISTOWEFT_AXE" not in os.environ, reason="set HISTOWEFT_AXE to the path of axe.min.js (axe-core)")
def test_axe_finds_nothing(site, dark):
    with chromium.Page(1280, 720, dark=dark) as page:
        page.open(address(site, show="both", gene="GRADIENT", painted="50"))
        page.click("#help")
        page.click("#search")
        page.until("!document.getElementById('suggestions').hidden")
        page.run(Path(os.environ["HISTOWEFT_AXE"]).read_text(encoding="utf-8") + ";0")
        found = page.run(
            "axe.run().then((r) => r.violations.map((v) => [v.id, v.nodes.map((n) => n.target.join(' '))]))"
        )
        assert not found


def test_selected_barcodes_are_saved(page):
    page.run("window.kept = []; URL.createObjectURL = (blob) => (window.kept.push(blob), 'data:,')")
    page.click("#legend li:nth-child(2) button")
    page.until("state.selection !== null")
    page.drawn()
    page.click("#save")
    page.until("window.kept.length === 1")
    header, *lines = page.run("window.kept[0].text()").strip().split("\n")
    assert header == "sample,barcode"
    wanted = [
        f"{name},spot-{i}"
        for name in explorer_cases.SAMPLES
        for i in np.flatnonzero(explorer_cases.labels(name) == "west")
    ]
    assert lines == wanted
