# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Answers and arguments for people: used by ``call`` and ``trace``."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final, TextIO

_CODES: Final = {
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "cyan": "36",
}
_SIZES: Final = frozenset(
    {"size", "used", "avail", "total", "approximate-size", "virtual-size", "done"}
)


class Paint:
    """Colours, where they are wanted: a terminal without NO_COLOR, or asked for."""

    def __init__(self, when: str = "auto", stream: TextIO | None = None):
        stream = stream or sys.stdout
        wanted = stream.isatty() and not os.environ.get("NO_COLOR")
        self.on = wanted if when == "auto" else when == "always"

    def __call__(self, what: str, text: str) -> str:
        """*text* in one or several of the colours, separated by blanks."""
        if not self.on or not text:
            return text
        codes = ";".join(_CODES[word] for word in what.split())
        return f"\033[{codes}m{text}\033[0m"


def human(size: int) -> str:
    """Bytes with a unit."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if abs(value) < 1024 or unit == "PiB":
            break
        value /= 1024
    return f"{size} B" if unit == "B" else f"{value:.4g} {unit}"


def short(value: Any, key: str = "", width: int = 200) -> str:
    """A value on one line; sizes with their unit, long ones with an end."""
    if isinstance(value, bool):
        text = "yes" if value else "no"
    elif isinstance(value, int) and key in _SIZES:
        text = human(value)
    elif isinstance(value, Mapping):
        text = " ".join(f"{name}={short(item, name, width)}" for name, item in value.items())
        text = "{" + text + "}"
    elif isinstance(value, list):
        text = "[" + ", ".join(short(item, "", width) for item in value) + "]"
    elif value is None:
        text = "-"
    else:
        text = str(value).replace("\n", "⏎")
    return text if len(text) <= width else text[: width - 1] + "…"


def answer_line(result: str, value: Any) -> str:
    """What a method returned, in a few words, by its result type."""
    if value is None:
        return "inactive" if result == "status" else "ok"
    if result in ("none", "true"):
        return "ok"
    if result == "bool":
        return "yes" if value else "no"
    if result == "status":
        total, avail, used, active = value
        figures = f"{human(used)} of {human(total)} used, {human(avail)} free"
        return figures if active else f"inactive, {figures}"
    if result == "path":
        path, vmid, _ = value
        return f"{path}" + (f" (guest {vmid})" if vmid is not None else "")
    if result == "sizeinfo":
        return human(value[0]) + f", {value[1]}"
    if result in ("volumes", "prune"):
        names = [row.get("volid", "?").partition(":")[2] for row in value]
        return f"{len(names)} volume{'s' * (len(names) != 1)}" + (
            ": " + ", ".join(names) if names else ""
        )
    return short(value)


def pretty(result: str, value: Any) -> str:
    """What a method returned, in full."""
    if result in ("volumes", "prune") and value:
        return table(value)
    if result == "snapinfo" and value:
        return table([{"snapshot": name, **info} for name, info in value.items()])
    if isinstance(value, Mapping) or (isinstance(value, list) and result == "strlist"):
        return json.dumps(value, indent=1, ensure_ascii=False)
    return answer_line(result, value)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows under the keys that any of them has."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    cells = [[short(row[key], key, 60) if key in row else "" for key in keys] for row in rows]
    return columns([keys, *cells])


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Cells below each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "\n".join(lines)
