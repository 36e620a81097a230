# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""The statements of the checklist: number, group and text.

Their home is docs/contract.md, section 9; ``make docs`` writes them to ``statements.txt``, because
an installed package has no docs/.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement of the checklist."""

    number: str
    group: str
    text: str


def _read(file: Path) -> dict[str, Statement]:
    found = {}
    group = ""
    for line in file.read_text("utf-8").splitlines():
        if line.startswith("C-"):
            number, _, text = line.partition(" ")
            found[number] = Statement(number, group, text)
        elif line and not line.startswith("#"):
            group = line
    return found


STATEMENTS: Final = _read(Path(__file__).with_name("statements.txt"))
"""Number → statement, in the checklist's order."""
