# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""The Python samples of the documents, by the file name in their first line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from bridge_util import ROOT

PAGES: Final = (
    ROOT / "README.md",
    ROOT / "docs/plugin-author.md",
    *sorted((ROOT / "docs/guide").glob("*.md")),
    *sorted((ROOT / "docs/howto").glob("*.md")),
)
"""The pages whose samples are all run by a test."""
BLOCK: Final = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)


def blocks(page: Path) -> list[str]:
    """The Python blocks of a page."""
    return BLOCK.findall(page.read_text("utf-8"))


def sample(name: str) -> str:
    """The one block of all pages that begins with ``# <name>``."""
    found = [block for page in PAGES for block in blocks(page) if block.startswith(f"# {name}\n")]
    assert len(found) == 1, f"{len(found)} samples are called {name}"
    return found[0]
