# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""The sections of storage.cfg, read as PVE reads them, but without PVE.

For ``list``, ``disable`` and ``doctor``, which must see sections that PVE itself would skip; and
for ``call`` and ``trace``, which give a server what PVE would.  Nothing here writes that file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from .errors import StorageError
from .paths import etc_pve

_HEADER: Final = re.compile(r"(\S+):\s*(\S+)\s*")
_PROPERTY: Final = re.compile(r"\s+(\S+)(?:\s+(.*?))?\s*")
_SETS: Final = frozenset({"content", "nodes"})


@dataclass(frozen=True)
class Section:
    """One storage as it is written."""

    type: str
    storeid: str
    lines: Sequence[tuple[str, str]]
    """Properties and their values in order; an array has a line for each of its items."""
    text: str

    @property
    def properties(self) -> Mapping[str, str]:
        """Property → value; a flag may stand without one."""
        return {key: value or "1" for key, value in self.lines}

    def on_node(self, node: str) -> bool:
        """Whether the storage is there for *node* and not disabled."""
        properties = self.properties
        if properties.get("disable", "0") not in ("0", "no", "off", "false"):
            return False
        nodes = re.split(r"[\s,;]+", properties.get("nodes", "").strip())
        return nodes == [""] or node in nodes

    def decoded(self) -> dict[str, Any]:
        """The values as plugins get them, ``type`` included."""
        section: dict[str, Any] = {"type": self.type}
        for key, value in self.lines:
            put(section, key, value)
        return section


def put(section: dict[str, Any], key: str, value: str) -> None:
    """Decode one line into a section."""
    if key in _SETS:
        section[key] = {item: 1 for item in re.split(r"[,;\s]+", value) if item}
    elif key == "content-dirs":
        section[key] = dict(item.partition("=")[::2] for item in value.split(",") if item)
    elif key in section:
        before = section[key] if isinstance(section[key], list) else [section[key]]
        section[key] = [*before, value]
    else:
        section[key] = value or "1"


def sections(file: Path | None = None) -> list[Section]:
    """All sections of *file*, PVE's by default, in their order; none when there is no such file."""
    file = file or etc_pve() / "storage.cfg"
    try:
        text = file.read_text("utf-8", "surrogateescape")
    except FileNotFoundError:
        return []
    except OSError as err:
        raise StorageError(f"can't read {file}: {err.strerror}") from None
    return parse(text)


def decoded(file: Path) -> dict[str, dict[str, Any]]:
    """Storage ID → its section, decoded."""
    return {section.storeid: section.decoded() for section in sections(file)}


def parse(text: str) -> list[Section]:
    """The sections of a text; lines that belong to none are passed over, as PVE does.

    A section ends with an empty line, not with one of spaces; PVE takes a zero for one, too.
    """
    found: list[Section] = []
    lines: list[str] = []
    for line in [*text.split("\n"), ""]:
        if line.lstrip().startswith("#"):
            continue
        if lines and line not in ("", "0"):
            lines.append(line)
        elif lines:
            found.append(_section(lines))
            lines = []
        elif _HEADER.fullmatch(line):
            lines = [line]
    return found


def _section(lines: list[str]) -> Section:
    header = _HEADER.fullmatch(lines[0])
    assert header is not None
    found = [match for line in lines[1:] if (match := _PROPERTY.fullmatch(line))]
    pairs = [(match[1], match[2] or "") for match in found]
    return Section(header[1].lower(), header[2], pairs, "\n".join(lines) + "\n")
