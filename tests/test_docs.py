"""The pages on the publications, docs/papers: what they name exists, and they can be read."""

import ast
import re
from pathlib import Path

import pytest

from kit import params, paths

FOLDER = paths.ROOT / "docs" / "papers"
PAGES = sorted(FOLDER.glob("*.md"))
COLUMNS, WORDS = 160, 90
# a folder or file of the repository in code marks
NAMED = re.compile(r"`((?:notebooks|kit|profiles|papers|docs|tests|data_prep)/[\w./-]*)`")
LINKED = re.compile(r"\]\((?!https?:)([^)#\s]+)")
MARKED = re.compile(r"`([A-Za-z_]\w*)`")
INSIDE = re.compile(r"\bcards?\b|\boracles?\b|/work/", re.IGNORECASE)


def cells(line: str) -> list[str]:
    """The cells of a table's line, without the bars."""
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def tables(text: str) -> list[list[list[str]]]:
    """The tables of a page: head first, then the rows; each line as its cells."""
    blocks = re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE)
    lines = [[cells(line) for line in block.strip().split("\n")] for block in blocks]
    return [[block[0], *block[2:]] for block in lines]


def paragraphs(text: str) -> list[str]:
    """Running text and items of lists; no tables, headings and code."""
    parts = re.split(r"\n\s*\n|\n(?=- )", text)
    return [p for p in parts if p.strip() and not p.startswith(("|", "#", "    ", "```"))]


def named_parameters(text: str) -> list[tuple[str, list[str]]]:
    """What stands in columns headed "parameter": names, and the files named in the same cell, or
    else in the head; none: the page's own notebooks.
    """
    found = []
    for head, *rows in tables(text):
        for at in (i for i, title in enumerate(head) if title.split("(")[0].strip() == "parameter"):
            for row in rows:
                files = NAMED.findall(row[at]) or NAMED.findall(head[at])
                found += [(name, files) for name in MARKED.findall(row[at])]
    return found


def is_in(name: str, file: str) -> bool:
    """Whether a notebook declares a parameter, or the text of a module holds a name."""
    path = paths.ROOT / file
    if path.suffix == ".ipynb":
        return name in params.declared(path)
    return re.search(rf"\b{name}\b", path.read_text(encoding="utf-8")) is not None


def missing_parameters(text: str, own: list[str]) -> list[str]:
    """Names in columns headed "parameter" that are not where the page says."""
    return [
        f"{name} is not in {', '.join(files or own)}"
        for name, files in named_parameters(text)
        if not any(is_in(name, file) for file in files or own)
    ]


def missing_files(text: str, page: Path) -> list[str]:
    """Paths in code marks and targets of links that do not exist."""
    lacks = [name for name in NAMED.findall(text) if not (paths.ROOT / name).exists()]
    return lacks + [link for link in LINKED.findall(text) if not (page.parent / link).exists()]


def notebooks_of(text: str) -> list[str]:
    """The notebooks that a page links to."""
    return [f"notebooks/{name}" for name in dict.fromkeys(re.findall(r"(\d\d_\w+\.ipynb)", text))]


@pytest.fixture(params=PAGES, ids=lambda page: page.stem)
def page(request):
    return request.param


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def test_paths_and_links_lead_somewhere(page):
    assert missing_files(text_of(page), page) == []


def test_parameters_are_where_the_page_says(page):
    text = text_of(page)
    assert missing_parameters(text, notebooks_of(text)) == []


def test_lines_and_paragraphs_are_short(page):
    text = text_of(page)
    assert [line for line in text.split("\n") if len(line) > COLUMNS] == []
    assert [p for p in paragraphs(text) if len(p.split()) > WORDS] == []


def test_rows_have_as_many_cells_as_their_heads(page):
    for head, *rows in tables(text_of(page)):
        assert [row for row in rows if len(row) != len(head)] == []


def test_pages_are_for_readers_outside(page):
    assert INSIDE.findall(text_of(page)) == []


def test_every_publication_has_a_page_that_says_how_to_run_it():
    told = {name for page in PAGES for name in notebooks_of(text_of(page))}
    asked = "\n".join(text_of(p) for p in paths.papers_dir().glob("*.yml"))
    needed = ", ".join(re.findall(r"^notebooks: \[(.+)\]$", asked, re.MULTILINE)).split(", ")
    assert len(needed) > 1
    assert {f"notebooks/{name}.ipynb" for name in needed} <= told
    for page in PAGES:
        if page.stem != "README":
            assert "## How to run it" in text_of(page)
            assert f"({page.name})" in text_of(page.with_name("README.md"))


def test_the_twenty_questions_of_lease_are_those_of_the_notebook():
    source = (paths.ROOT / "kit" / "studies" / "lease" / "choices.py").read_text(encoding="utf-8")
    assigned = [node for node in ast.parse(source).body if isinstance(node, ast.Assign)]
    asked = next(ast.literal_eval(n.value) for n in assigned if n.targets[0].id == "OPEN")
    rows = re.findall(r"^\| (A\d+) \|.*\|(.+)\|$", text_of(FOLDER / "lease.md"), re.MULTILINE)
    assert [number for number, _ in rows] == [f"A{n}" for n in range(1, len(asked) + 1)]
    for (number, cell), (_, names, _) in zip(rows, asked, strict=True):
        assert set(MARKED.findall(cell)) & set(names), number


BAD = """
| choice | parameter |
|---|---|
| a | `no_such_name` |
| b | `dropout` (`kit/studies/br35h/network.py`) |
| c | `no_such_name` (`kit/studies/br35h/network.py`) |

See `kit/no_such_module.py` and [this](no_such_page.md).
"""


def test_the_checks_find_what_is_wrong():
    own = ["notebooks/10_br35h_cnn_vs_resnet50v2.ipynb"]
    assert len(missing_parameters(BAD, own)) == 2
    assert len(missing_files(BAD, PAGES[0])) == 2
    assert INSIDE.search("as the card has it")
    assert [len(p.split()) for p in paragraphs("word " * 91)] == [91]
