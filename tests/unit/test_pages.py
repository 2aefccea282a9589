"""README and docs: lines fit, links lead somewhere, and what is cited is in the repository."""

from __future__ import annotations

import re
from itertools import chain
from pathlib import Path

import pytest

import holdfast

ROOT = Path(holdfast.__file__).parent.parent
PAGES = sorted((*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")))
CODE = sorted(
    chain.from_iterable((ROOT / folder).rglob("*.py") for folder in ("holdfast", "tests", "bench"))
)
LONGEST = 120

LINK = re.compile(r"\]\((?!https?:)([^)\s]+)\)")
SOURCE = re.compile(r"`((?:[\w.]+/)*\w+\.py)\b")
PAGE = re.compile(r"(?<![\w/])(?:docs/)?\w+\.md\b")

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


@every_page
def test_lines_fit(page: Path) -> None:
    """Rows of tables cannot be broken."""
    long = [
        f"{page.name}:{number}"
        for number, line in enumerate(page.read_text().splitlines(), 1)
        if len(line) > LONGEST and not line.lstrip().startswith("|")
    ]
    assert long == []


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    dead = []
    for link in LINK.findall(page.read_text()):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    assert dead == []


@every_page
def test_source_files_that_a_page_cites_exist(page: Path) -> None:
    files = [str(path.relative_to(ROOT)) for path in CODE]
    cited = SOURCE.findall(page.read_text())
    assert [
        each for each in cited if not any(f"/{file}".endswith(f"/{each}") for file in files)
    ] == []


@pytest.mark.parametrize("name", [path.name for path in PAGES if path.parent.name == "docs"])
def test_the_index_names_every_page(name: str) -> None:
    assert name == "README.md" or f"]({name})" in (ROOT / "docs" / "README.md").read_text()


def test_pages_that_code_cites_exist() -> None:
    missing = {
        f"{module.relative_to(ROOT)}: {cited}"
        for module in CODE
        for cited in PAGE.findall(module.read_text())
        if not any((folder / cited).exists() for folder in (ROOT, ROOT / "docs"))
    }
    assert missing == set()


def test_the_map_of_folders_is_complete() -> None:
    package = Path(holdfast.__file__).parent
    here = {f"{path.parent.relative_to(package)}/" for path in package.rglob("__init__.py")} - {
        "./"
    }
    page = (ROOT / "ARCHITECTURE.md").read_text()
    assert set(re.findall(r"^\| `([\w/]+/)` \|", page, re.MULTILINE)) == here
