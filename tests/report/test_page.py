"""The results page: complete, escaped, the same bytes twice, offline, and usable in a real browser
at two widths.
"""

import html.parser
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kit import files, record
from kit.published import papers
from kit.report import artefacts, page, style, verdicts

NOTEBOOK = "10_br35h_cnn_vs_resnet50v2"
EVIL = "<script>alert('x')</script> & \"quoted\""
CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)


def fill(root: Path):
    """Results with every kind of entry: written, failed and missing artefacts, all verdicts, runs,
    notebooks.
    """
    files.write_json(
        root / "data/br35h/dataset.json",
        {"embedded": False, "fingerprint": "abcdef0123456789" * 4, "stand_in_for": None},
    )
    out = artefacts.Artefacts("br35h", "demo", NOTEBOOK, "br35h")
    out.table(
        "table-1",
        pd.DataFrame({"fold": ["1", "2"], "accuracy": [97.5, 98.123456], "remark": [EVIL, ""]}),
        note=EVIL,
    )
    fig = style.new_figure(4, 3)
    fig.add_subplot().plot(np.arange(5))
    out.figure("graphic-1", fig)
    out.failed("figure-6", EVIL)
    out.table("extra-long", pd.DataFrame({"n": range(page.MOST_ROWS + 7)}), title="A long table")
    out.value(
        "table-1/tl.fold1/specificity",
        98.4,
        (97, 99),
        leak_free=97.0,
        leak_free_interval=(95, 98.9),
        n=800,
    )
    out.value("table-1/tl.fold2/specificity", 90.0, (89, 91), n=400)
    out.value("table-1/tl.fold3/specificity", 98.0, data="phantom-binary")
    run = record.Run(
        root / "results/demo/br35h/runs",
        "cnn-fold1",
        {"data": {"name": "br35h", "fingerprint": "abcdef0123456789" * 4}},
    )
    run.open(7)
    run.close("finished", 12.34)
    files.write_json(
        root / f"results/demo/notebooks/{NOTEBOOK}.status.json",
        {
            "notebook": NOTEBOOK,
            "state": "finished",
            "reason": None,
            "seconds": 61.2,
            "peak_mb": 2103,
            "parameters": {"seed": 7, "label": EVIL},
        },
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The page of a profile with results; everything it reads stays in place for the module."""
    root = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KIT_RESULTS", str(root / "results"))
        patch.setenv("KIT_DATA", str(root / "data"))
        fill(root)
        yield page.build("demo")


class Parsed(html.parser.HTMLParser):
    """Start tags with their attributes, and a check that elements are closed in order."""

    VOID = frozenset({"meta", "img", "input", "br", "wbr", "line", "circle", "link"})

    def __init__(self, text):
        super().__init__()
        self.tags, self._open = [], []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag, f"</{tag}> closes something else"


@pytest.fixture(scope="module")
def parsed(built):
    return Parsed(built.read_text(encoding="utf-8"))


def test_every_artefact_and_number_has_its_place(parsed):
    ids = [attrs["id"] for _, attrs in parsed.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    for paper in artefacts.all_papers():
        assert {f"{paper.key}-{page.slug(a.id)}" for a in paper.artefacts} <= set(ids)
        assert {
            page.anchor(paper.key, value)
            for value in verdicts.verdict_table(paper.key, "demo")["value"]
        } <= set(ids)


def test_inner_links_and_files_exist(built, parsed):
    ids = {attrs.get("id") for _, attrs in parsed.tags}
    links = [
        attrs.get("href") or attrs.get("src") for tag, attrs in parsed.tags if tag in ("a", "img")
    ]
    assert all(link[1:] in ids for link in links if link.startswith("#"))
    local = [link for link in links if not link.startswith(("#", "https://doi.org/"))]
    assert len(local) > 8
    assert all((built.parent / link).exists() for link in local)


def test_no_external_resource_and_no_path_of_this_machine(built, parsed):
    text = built.read_text(encoding="utf-8")
    assert not [t for t, _ in parsed.tags if t in ("link", "iframe", "object")]
    assert "url(" not in text
    assert "@import" not in text
    assert all("src" not in attrs for tag, attrs in parsed.tags if tag == "script")
    assert str(built.parent.parent) not in text


def test_everything_foreign_is_escaped(built):
    text = built.read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert text.count("&lt;script&gt;alert") >= 4
    assert text.count("<script>") == 1


def test_the_same_results_give_the_same_bytes(built):
    first = built.read_bytes()
    assert page.build("demo").read_bytes() == first


def test_figures_have_size_text_and_pdf(parsed):
    pictures = [attrs for tag, attrs in parsed.tags if tag == "img"]
    assert pictures
    assert all(
        a["alt"] and int(a["width"]) and int(a["height"]) and a["loading"] == "lazy"
        for a in pictures
    )
    assert any(attrs.get("href") == "br35h/figures/graphic-1.pdf" for _, attrs in parsed.tags)


def test_text_of_results_reasons_provenance_and_disclaimer(built):
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", built.read_text(encoding="utf-8")))
    code = files.read_json(next(built.parent.glob("br35h/runs/*/environment.json")))["code"]
    for words in (
        "For research, not for diagnosis",
        "abcdef012345",
        "98.12",
        "7 more rows in the CSV file",
        "notebook 20_cad_six_models has not run",
        "kit " + code,
        "0.08 pp below the published 98.48 %",
        "8.22 pp below the published 98.22 %",
        "12.3",
        "Embedded data (phantom-binary)",
    ):
        assert words in text, words


def test_all_verdicts_appear_as_symbol_and_word(built):
    text = built.read_text(encoding="utf-8")
    for kind, symbol in page.SYMBOLS.items():
        assert f'<span aria-hidden="true">{symbol}</span>' in text
        assert f'data-v="{kind}"' in text or kind == "supported"


def test_a_profile_without_results_lists_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("KIT_RESULTS", str(tmp_path))
    text = page.build("none").read_text(encoding="utf-8")
    Parsed(text)
    cards = sum(len(paper.artefacts) for paper in artefacts.all_papers())
    assert text.count('class="card missing"') >= cards
    assert 'class="banner"' not in text
    assert list((tmp_path / "none").iterdir()) == [tmp_path / "none/index.html"]


def test_the_audit_comes_before_the_publications(tmp_path, monkeypatch):
    monkeypatch.setenv("KIT_RESULTS", str(tmp_path))
    monkeypatch.setattr(
        artefacts,
        "all_expected",
        lambda: [
            {"paper": "br35h", "id": "table-1", "kind": "table", "title": "T", "notebook": "10"},
            {
                "paper": "audit",
                "id": "table-twins",
                "kind": "table",
                "title": "Twins",
                "notebook": "00",
            },
        ],
    )
    keys = [s["key"] for s in page.context("p")["sections"]]
    assert keys[0] == "audit"
    assert keys[1:] == [p.key for p in artefacts.all_papers()]


def test_a_reason_that_several_rows_share_is_said_once():
    rows = [
        {"verdict": v, "why": w}
        for v, w in [
            ("not comparable", "A"),
            ("not comparable", "B"),
            ("missing", "C"),
            ("not comparable", "A"),
            ("supported", "D"),
            ("supported", "D"),
        ]
    ]
    assert page.repeated(rows) == ["A"]


def test_a_failed_notebook_is_named_without_its_log_path(tmp_path, monkeypatch):
    monkeypatch.setenv("KIT_RESULTS", str(tmp_path))
    files.write_json(
        tmp_path / f"p/notebooks/{NOTEBOOK}.status.json",
        {
            "notebook": NOTEBOOK,
            "state": "failed",
            "reason": f"ValueError: no (log: {tmp_path}/x.log)",
            "seconds": 1.0,
        },
    )
    text = page.build("p").read_text(encoding="utf-8")
    assert f"notebook {NOTEBOOK} failed: ValueError: no<" in text.replace("</p>", "<")
    assert str(tmp_path) not in text


def test_picture_is_drawn_only_where_numbers_may_be_compared():
    row = {
        "verdict": "supported",
        "published": "98.0",
        "ours": 97.0,
        "low": 96.0,
        "high": 99.0,
        "leak_free": 95.0,
        "leak_free_low": np.nan,
        "leak_free_high": np.nan,
    }
    svg = page.picture(row)
    xs = {name: float(x) for name, x in re.findall(r'class="(our|free)" cx="([\d.]+)"', svg)}
    published = float(re.search(r'class="pub" x1="([\d.]+)"', svg).group(1))
    assert 8 == xs["free"] < xs["our"] < published < page.BOX[0]
    assert svg.count('class="bar"') == 1
    assert page.picture({**row, "verdict": "not comparable"}) == ""


def test_summary_notebook_calls_what_exists():
    from kit import params, paths

    assert set(params.declared(paths.notebooks_dir() / "90_tables_and_figures.ipynb")) == {
        "profile",
        "forest_rows",
    }
    for profile in ("smoke", "quick", "cpu", "paper"):
        assert (
            params.resolve(paths.notebooks_dir() / "90_tables_and_figures.ipynb", profile)[
                "profile"
            ]
            == profile
        )


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A headless Chromium without a network of its own; skipped where it is not installed."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    from selenium.webdriver.chrome.service import Service

    if not (CHROMIUM.exists() and DRIVER.exists()):
        pytest.skip("no Chromium: apt-get install -y chromium chromium-driver")
    options, folder = webdriver.ChromeOptions(), tmp_path_factory.mktemp("browser")
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"--user-data-dir={folder}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    yield driver
    driver.quit()
    shutil.rmtree(folder, ignore_errors=True)


def show(driver, built, width: int, fragment: str = "", dark: bool = False):
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False},
    )
    driver.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]},
    )
    driver.get("about:blank")
    driver.get(built.as_uri() + fragment)


def run(driver, script):
    return driver.execute_script(script)


VISIBLE = "const seen = e => e.getClientRects().length > 0;"


@pytest.mark.parametrize("width", [1280, 400])
def test_browser_lays_the_page_out_without_sideways_scrolling(browser, built, width):
    show(browser, built, width)
    assert (
        run(
            browser,
            "document.querySelectorAll('details').forEach(d => d.open = true); return "
            "document.documentElement.scrollWidth",
        )
        <= width
    )
    loaded = browser.execute_async_script(
        "const done = arguments[0], all = [...document.images]; all.forEach(i => i.loading = "
        "'eager');"
        "Promise.all(all.map(i => i.decode())).then(() => done(all.every(i => i.naturalWidth > "
        "0)), e => done(String(e)));"
    )
    assert loaded is True
    assert (
        run(
            browser,
            "return performance.getEntriesByType('resource').filter(e => "
            "!e.name.startsWith('file:')).length",
        )
        == 0
    )
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_browser_filters_by_verdict(browser, built):
    show(browser, built, 1280)
    run(
        browser,
        "document.querySelectorAll('input[name=verdict]').forEach(b => { if (b.value !== "
        "'contradicted') b.click(); })",
    )
    rows = run(
        browser,
        VISIBLE + "return [...document.querySelectorAll('tr[data-v]')].filter(seen).map(r => r.id)",
    )
    assert rows == [page.anchor("br35h", "table-1/tl.fold2/specificity")]
    assert (
        run(browser, "return document.querySelector('#hits').textContent")
        == "1 numbers in 1 artefacts"
    )
    assert run(
        browser,
        VISIBLE
        + "return [...document.querySelectorAll('section.paper')].filter(seen).map(s => s.id)",
    ) == ["br35h"]
    run(
        browser,
        "document.querySelectorAll('input[name=verdict]').forEach(b => { if (!b.checked) "
        "b.click(); })",
    )
    cards = sum(len(p.artefacts) for p in artefacts.all_papers())
    assert (
        run(
            browser,
            VISIBLE
            + "return [...document.querySelectorAll('section.paper .card')].filter(seen).length",
        )
        > cards
    )


def test_browser_search_and_section_choice(browser, built):
    show(browser, built, 1280)
    browser.find_element("id", "text").send_keys("table 1 8.22 pp below")
    assert run(
        browser,
        VISIBLE + "return [...document.querySelectorAll('tr[data-v]')].filter(seen).map(r => r.id)",
    ) == [page.anchor("br35h", "table-1/tl.fold2/specificity")]
    browser.find_element("id", "text").clear()
    run(
        browser,
        "const s = document.querySelector('#only'); s.value = 'cad'; s.dispatchEvent(new "
        "Event('input'))",
    )
    visible = run(
        browser,
        VISIBLE + "return [...document.querySelectorAll('.card')].filter(seen).map(c => "
        "c.closest('section').id)",
    )
    assert set(visible) == {"cad"}
    assert len(visible) >= len(papers.load("cad").artefacts)


def test_browser_link_to_a_number_opens_its_table(browser, built):
    target = page.anchor("cad", verdicts.verdict_table("cad", "demo")["value"].iloc[-1])
    show(browser, built, 1280, f"#{target}")
    assert run(browser, VISIBLE + f"return seen(document.getElementById('{target}'))")


def test_browser_opens_and_closes_all(browser, built):
    show(browser, built, 1280)
    count = "return [...document.querySelectorAll('details')].map(d => d.open)"
    browser.find_element("id", "toggle").click()
    assert all(run(browser, count))
    browser.find_element("id", "toggle").click()
    assert not any(run(browser, count))


CONTRAST = """
const channel = c => { c /= 255; return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
const light = rgb => 0.2126 * channel(rgb[0]) + 0.7152 * channel(rgb[1]) + 0.0722 * channel(rgb[2]);
const parse = text => text.match(/[\\d.]+/g).map(Number);
const ground = e => {
  for (; e; e = e.parentElement) {
    const c = parse(getComputedStyle(e).backgroundColor);
    if (c.length < 4 || c[3] > 0) return c;
  }
  return [255, 255, 255];
};
const texts = '.badge, .banner, .caveat, .meta, .why, small, .links, td, th, h3';
const seen = [...document.querySelectorAll(texts)].filter(e => !e.classList.contains('zero'));
return seen.map(e => {
  const a = light(parse(getComputedStyle(e).color)), b = light(ground(e));
  return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), e.className || e.tagName];
}).sort((x, y) => x[0] - y[0])[0];
"""


@pytest.mark.parametrize("dark", [False, True])
def test_browser_text_has_enough_contrast(browser, built, dark):
    show(browser, built, 1280, dark=dark)
    worst, where = run(browser, CONTRAST)
    assert worst >= 4.5, where
