# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""The run on a terminal: a row per statement as it comes, then what failed in full."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Final, TextIO

from ..outcome import BLOCKED, ELSEWHERE, FAILED, NOT_APPLICABLE, PASSED, Call, Result
from ..subject import CALL_MARK
from .account import OUTCOMES, Account

_LABEL: Final[Mapping[str, tuple[str, str]]] = {
    PASSED: ("passed", "32"),
    FAILED: ("FAILED", "31;1"),
    BLOCKED: ("not tried", "33;1"),
    NOT_APPLICABLE: ("n/a", "2"),
}


class Terminal:
    """Prints to one stream."""

    def __init__(self, stream: TextIO, *, quiet: bool = False):
        self._stream = stream
        self._quiet = quiet
        self._colour = stream.isatty()
        self._group = ""

    def _print(self, text: str = "") -> None:
        print(text, file=self._stream, flush=True)

    def _coloured(self, text: str, code: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self._colour else text

    def begin(self, account: Account) -> None:
        """What is tried."""
        self._print(
            f"{account.plugin}: storage type '{account.type}' against {account.modules},"
            f" APIVER {account.apiver}"
        )

    def row(self, result: Result) -> None:
        """One statement; those about others are only counted."""
        if self._quiet or result.outcome == ELSEWHERE:
            return
        if result.statement.group != self._group:
            self._group = result.statement.group
            self._print(f"\n{self._coloured(self._group, '1')}")
        label, colour = _LABEL[result.outcome]
        width = max(shutil.get_terminal_size((100, 24)).columns, 60) - 20
        text = result.statement.text.replace("`", "")
        shown = text if len(text) <= width else text[: width - 1] + "…"
        self._print(f"  {self._coloured(f'{label:<9}', colour)} {result.number}  {shown}")
        for line in [result.reason] if result.outcome == NOT_APPLICABLE else result.remarks:
            self._print(f"{'':19}{self._coloured(line, '2')}")

    def end(self, account: Account) -> None:
        """What failed, and the sum."""
        for result in account.bad:
            label, colour = _LABEL[result.outcome]
            self._print(f"\n{self._coloured(f'{label} {result.number}', colour)}"
                        f"  {result.statement.text}")  # fmt: skip
            self._print(f"  {result.reason.partition(CALL_MARK)[0]}")
            if telling := result.telling or (result.calls[-1] if result.calls else None):
                self._call(telling)
            if len(result.calls) > 1:
                self._print(f"    (one of {len(result.calls)} calls; --html shows all)")
        if account.left:
            self._print(f"\nleft behind, remove by hand: {' '.join(account.left)}")
        counts = ", ".join(f"{account.count(o)} {o}" for o in OUTCOMES if account.count(o))
        self._print(f"\n{account.verdict()}: {counts}; {account.seconds:.1f} s")

    def _call(self, call: Call) -> None:
        self._print(f"    {call.text}")
        self._print(f"      → {call.answer}")
        for line in call.stderr.strip().splitlines()[-3:]:
            self._print(f"      {self._coloured(line, '2')}")
