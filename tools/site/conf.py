# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""The site made of docs/: Sphinx reads the Markdown as it is; a broken link or anchor is an error.

The pages carry nothing of Sphinx; what belongs together stands in ``pages.py``.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any, Final

from pve_pybridge import __version__

sys.path.insert(0, str(Path(__file__).parent))
import pages

ROOT: Final = Path(__file__).resolve().parents[2]
project = "pve-pybridge"
author = "pve-pybridge contributors"
project_copyright = "2026 pve-pybridge contributors"
version = release = __version__

extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
myst_heading_anchors = 4
myst_links_external_new_tab = True
nitpicky = True
suppress_warnings = ["misc.highlighting_failure"]  # Perl newer than the highlighter is still shown

html_theme = "furo"
html_title = f"pve-pybridge {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_permalinks_icon = "#"
html_theme_options: dict[str, Any] = {"top_of_page_buttons": []}
pygments_style = "default"
pygments_dark_style = "monokai"


def setup(app: Any) -> None:
    """Sphinx asks every configuration for this."""
    app.connect("source-read", _prepare)
    app.connect("html-page-context", _no_contents, priority=900)


def _no_contents(app: Any, page: str, template: str, context: dict[str, Any], tree: Any) -> None:
    """Pages that are one wide table have the whole width."""
    if page in ("methods", "checklist"):
        context["furo_hide_toc"] = True


def _prepare(app: Any, docname: str, source: list[str]) -> None:
    """Navigation for the first page; links that leave docs/ become the names of those files."""
    docs = Path(app.srcdir)
    page = docs / f"{docname}.md"

    def outside(link: re.Match[str]) -> str:
        text, target = link[1], (page.parent / link[2]).resolve()
        if target.is_relative_to(docs) or not (target.is_relative_to(ROOT) and target.exists()):
            return link[0]  # the generator's own affair, broken or not
        name = target.relative_to(ROOT)
        return text if text.strip("`") in str(name) else f"{text} (`{name}`)"

    source[0] = re.sub(r"(?<!!)\[([^\]]+)\]\((?![a-z]+:|#)([^)#\s]+)\)", outside, source[0])
    if docname == "index":
        source[0] += pages.toctrees(docs)
