# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""How ``pve-pybridge trace`` shows calls: who asked, what, what was logged, answered, how long.

A line of its own for each new caller; below it that caller's calls, each with its log lines and
its answer.  Colours say what is an error, slow, or only said by the way.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from typing import Any, Final

from ..methods import METHODS
from .show import Paint, answer_line, short

SLOW_MS: Final = 1000
_TIME_COLUMN: Final = 14
_LEVELS: Final = {"warn": "yellow", "err": "red"}


class View:
    """Renders one record after the other; remembers who called last."""

    def __init__(self, paint: Paint, width: int | None = None):
        self._paint = paint
        self._width = width or max(shutil.get_terminal_size((110, 40)).columns, 60)
        self._caller: tuple[object, ...] | None = None
        self._column = 10

    def head(self) -> str:
        """The names of the columns."""
        line = "TIME".ljust(_TIME_COLUMN) + "STORAGE".ljust(self._column) + "CALL, → ANSWER"
        return self._paint("dim", line.ljust(self._width - 4) + "TOOK")

    def call(self, record: Mapping[str, Any]) -> str:
        """A finished call."""
        lines = self._who(record)
        self._column = max(self._column, len(record["storeid"]) + 2)
        when = time.strftime("%H:%M:%S", time.localtime(record["time"]))
        when += f".{int(record['time'] % 1 * 1000):03d}"
        took = self._took(record["ms"])
        space = self._width - _TIME_COLUMN - self._column - len(took) - 2
        method, arguments = record["method"], self._arguments(record)
        first, rest = arguments, ""
        if len(method) + 2 + len(arguments) > space:
            first, rest = "", arguments
        text = f"{method}  {first}".rstrip()
        painted = self._paint("bold cyan", method) + (f"  {first}" if first else "")
        lines.append(
            self._paint("dim", when.ljust(_TIME_COLUMN))
            + record["storeid"].ljust(self._column)
            + painted
            + " " * max(space - len(text) + 2, 1)
            + self._paint("yellow bold" if record["ms"] >= SLOW_MS else "dim", took)
        )
        indent = " " * (_TIME_COLUMN + self._column)
        room = self._width - len(indent) - 2
        if rest:
            lines.append(indent + "  " + short(rest, width=room))
        for level, text in record.get("log") or ():
            colour = _LEVELS.get(level, "dim")
            mark = "! " if level in _LEVELS else "│ "
            lines.append(indent + self._paint(colour, mark + short(text, width=room)))
        lines.append(indent + self.answer(record, room))
        return "\n".join(lines)

    def answer(self, record: Mapping[str, Any], room: int = 200) -> str:
        """What the caller got: an arrow, or a cross for an error."""
        late = "too late, the caller had given up; it was: " if record.get("late") else ""
        error = record.get("error")
        if error:
            kind = "" if error["kind"] == "user" else f"{error['kind']}: "
            blockers = f" (in the way: {', '.join(b)})" if (b := error.get("blockers")) else ""
            text = f"✗ {late}{kind}{error.get('message', '')}{blockers}"
            return self._paint("red", short(text, width=room + 100))
        row = METHODS.get(record["method"])
        text = "(too long for a record)"
        if "result" not in record.get("cut", ()):
            text = answer_line(row.result if row else "any", record.get("result"))
        if late:
            return self._paint("red", f"✗ {late}{text}")
        return self._paint("green", short(f"→ {text}", width=room))

    def note(self, text: str) -> str:
        """A line about the trace itself."""
        self._caller = None
        return self._paint("yellow", f"-- {text}")

    def _who(self, record: Mapping[str, Any]) -> list[str]:
        caller = (record.get("pid"), record.get("command"))
        if caller == self._caller:
            return []
        self._caller = caller
        return ["", self._paint("bold", short(who(record), width=self._width))]

    def _arguments(self, record: Mapping[str, Any]) -> str:
        """Arguments in PVE's order; hints, which one looks for, in full."""
        args = dict(record.get("args") or {})
        row = METHODS.get(record["method"])
        order = [arg.name for arg in row.args if arg.name in args] if row else list(args)
        types = {arg.name: arg.type for arg in row.args} if row else {}
        words = []
        for name in order:
            value = args[name]
            if value is None or value == {}:
                continue
            if types.get(name) == "hints" and isinstance(value, dict):
                words += [f"hint {key}={short(item)}" for key, item in value.items()]
            elif types.get(name) == "bool":
                words.append(f"{name}={'yes' if value in (1, '1', True) else 'no'}")
            elif name in ("volname", "source_volname"):
                words.append(str(value))
            else:
                words.append(f"{name}={short(value, name, 80)}")
        return "  ".join(words)

    def _took(self, ms: float) -> str:
        return f"{ms / 1000:.1f} s" if ms >= SLOW_MS else f"{ms:.1f} ms"


def who(record: Mapping[str, Any]) -> str:
    """The caller of a record: a task by its kind, guest and user, others by their command."""
    pid, task = record.get("pid"), str(record.get("task") or "")
    parts = task.split(":")
    if len(parts) >= 8:  # UPID:node:pid:pstart:starttime:kind:id:user:
        about = f" {parts[6]}" if parts[6] else ""
        return f"task {parts[5]}{about}, started by {parts[7]} (process {pid})"
    command = str(record.get("command") or "unknown program").split()
    program = command[0].rpartition("/")[2] if command else "?"
    return f"{' '.join([program, *command[1:]])} (process {pid})"
