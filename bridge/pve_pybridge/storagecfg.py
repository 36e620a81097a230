# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""The sections of storage.cfg, as text: who uses which type, PVE's own parser not needed.

For ``list``, ``disable`` and ``doctor``, which must see sections that PVE itself would skip.
Nothing here ever writes that file: it is PVE's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from .errors import StorageError
from .paths import etc_pve

_HEADER: Final = re.compile(r"(\S+):\s*(\S+)\s*")
_PROPERTY: Final = re.compile(r"\s+(\S+)(?:\s+(.*?))?\s*")


@dataclass(frozen=True)
class Section:
    """One storage as it is written."""

    type: str
    storeid: str
    properties: Mapping[str, str] = field(default_factory=dict)
    text: str = ""

    def on_node(self, node: str) -> bool:
        """Whether the storage is there for *node* and not disabled."""
        if self.properties.get("disable", "0") not in ("0", "no", "off", "false"):
            return False
        nodes = re.split(r"[\s,;]+", self.properties.get("nodes", "").strip())
        return nodes == [""] or node in nodes


def sections() -> list[Section]:
    """All sections in their order; none when there is no storage.cfg."""
    file = etc_pve() / "storage.cfg"
    try:
        text = file.read_text("utf-8", "surrogateescape")
    except FileNotFoundError:
        return []
    except OSError as err:
        raise StorageError(f"can't read {file}: {err.strerror}") from None
    return parse(text)


def parse(text: str) -> list[Section]:
    """The sections of a text; lines that belong to none are passed over, as PVE does."""
    found: list[Section] = []
    lines: list[str] = []
    for line in [*text.splitlines(), ""]:
        if not line.strip():
            if lines:
                found += _section(lines)
            lines = []
        elif not line.lstrip().startswith("#"):
            lines.append(line)
    return found


def _section(lines: list[str]) -> list[Section]:
    header = _HEADER.fullmatch(lines[0])
    if header is None:
        return []
    properties = {}
    for line in lines[1:]:
        if match := _PROPERTY.fullmatch(line):
            properties[match[1]] = match[2] or "1"
    return [Section(header[1], header[2], properties, "\n".join(lines) + "\n")]
