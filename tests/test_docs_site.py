# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""The site: every page is on it, nothing of it comes from elsewhere, no link leads nowhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from bridge_util import ROOT

pytest.importorskip("sphinx", reason="the site's generator isn't installed (make site does it)")
pytest.importorskip("furo")
pytest.importorskip("myst_parser")

LOADING = {("script", "src"), ("img", "src"), ("iframe", "src"), ("source", "src")} | {
    *(("object", "data"), ("use", "href"), ("image", "href"), ("form", "action")),
}
"""What a browser fetches, or sends, without being asked; ``link`` depends on its ``rel``."""


def build(target: Path, docs: Path = ROOT / "docs") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["tools/make-site", str(target), str(docs)],
        cwd=ROOT,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site") / "site"
    done = build(target)
    assert done.returncode == 0, done.stderr
    return target


class Page(HTMLParser):
    """The resources a page has a browser load, its links, and its anchors."""

    def __init__(self, path: Path):
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attrs}
        self.anchors.add(given.get("id", ""))
        for key, value in given.items():
            if (tag, key) in LOADING or key in ("srcset", "poster", "background"):
                self.loads.append(value)
            if key == "style":
                self.loads += urls(value)
        if tag == "link" and given.get("rel") not in ("index", "search", "next", "prev"):
            self.loads.append(given.get("href", ""))
        if tag == "a":
            self.links.append(given.get("href", ""))


def urls(css: str) -> list[str]:
    found = re.findall(r"(?:url\(\s*|@import\s+)['\"]?([^'\")]+)", css)
    return [url for url in found if not url.startswith("data:")]


def pages(site: Path) -> Iterator[Path]:
    found = sorted(site.rglob("*.html"))
    assert len(found) > 20
    yield from found


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    foreign = []
    for path in pages(site):
        foreign += [f"{path.name}: {url}" for url in Page(path).loads if is_foreign(url)]
    for path in [*site.rglob("*.css"), *site.rglob("*.svg")]:
        text = path.read_text("utf-8")
        foreign += [f"{path.name}: {url}" for url in urls(text) if is_foreign(url)]
    for path in site.rglob("*.js"):
        text = path.read_text("utf-8")
        calls = re.findall(
            r"(?:fetch|import|importScripts|\.src\s*=)\s*\(?\s*['\"`](https?:[^'\"`]+)", text
        )
        foreign += [f"{path.name}: {url}" for url in calls]
    assert foreign == []


def is_foreign(url: str) -> bool:
    return re.match(r"(?:[a-z]+:)?//", url) is not None


def test_links_and_anchors_lead_somewhere(site: Path) -> None:
    """Asked of the finished pages: the generator's own word is not enough."""
    parsed = {path: Page(path) for path in pages(site)}
    broken = []
    for path, page in parsed.items():
        for link in page.links:
            if is_foreign(link) or link.startswith("mailto:") or not link:
                continue
            file, _, anchor = link.partition("#")
            target = (path.parent / file).resolve() if file else path
            known = parsed[target].anchors if target in parsed else {anchor}
            if not target.exists() or (anchor and anchor not in known):
                broken.append(f"{path.name}: {link}")
    assert broken == []


def test_every_page_is_on_the_site_and_in_its_navigation(site: Path) -> None:
    first = Page(site / "index.html")
    for page in (ROOT / "docs").rglob("*.md"):
        name = page.relative_to(ROOT / "docs").with_suffix(".html")
        assert (site / name).exists(), name
        assert page.stem == "index" or str(name) in first.links, f"{name} is not in the navigation"


def test_search_works_without_a_server(site: Path) -> None:
    index = (site / "searchindex.js").read_text("utf-8")
    assert index.startswith("Search.setIndex(")
    for word in ("multipath", "checkpoint", "volid"):
        assert f"{word}:" in index or f'"{word}":' in index


def test_drawings_are_current_and_stand_alone() -> None:
    done = subprocess.run(
        [sys.executable, "tools/drawings.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    for drawing in (ROOT / "docs/drawings").glob("*.svg"):
        text = drawing.read_text("utf-8")
        assert "prefers-color-scheme: dark" in text
        assert "<script" not in text
        assert re.findall(r"https?://[^\"\s]+", text) == ["http://www.w3.org/2000/svg"]


@pytest.mark.parametrize(
    ("link", "complaint"),
    [
        ("[x](architecture.md#words)", None),
        ("[x](nowhere.md)", "nowhere.md"),
        ("[x](architecture.md#nowhere)", "'nowhere'"),
        ("[x](#nowhere)", "'nowhere'"),
        ("![x](drawings/no.svg)", "drawings/no.svg"),
    ],
)
def test_a_broken_link_is_a_failure(tmp_path: Path, link: str, complaint: str | None) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "architecture.md").write_text("# Other\n\n## Words\n\nSome.\n")
    (docs / "index.md").write_text(f"# Home\n\n{link}\n")
    done = build(tmp_path / "site", docs)
    if complaint is None:
        assert done.returncode == 0, done.stderr
    else:
        assert done.returncode != 0, "built all the same"
        assert complaint in done.stderr
