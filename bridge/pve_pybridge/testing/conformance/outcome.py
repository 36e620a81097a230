# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""What came of a statement, and the three ways to leave its function early."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from .statements import Statement

PASSED: Final = "passed"
FAILED: Final = "failed"
BLOCKED: Final = "not tried"
"""A step that leads to the statement failed; the statement about that step says how."""
NOT_APPLICABLE: Final = "not applicable"
ELSEWHERE: Final = "not about the plugin"

BAD: Final = (FAILED, BLOCKED)
"""Outcomes that make the command's exit status 1."""


class Failed(Exception):
    """The plugin breaks the statement."""


class Blocked(Exception):
    """The statement can't be tried, because something before it fails."""


class NotApplicable(Exception):
    """The statement doesn't concern this plugin, or can't be tried here; says why."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call as PVE made it, and what came back; both in Perl's words."""

    text: str
    answer: str
    seconds: float
    died: bool = False
    stderr: str = ""


@dataclass(slots=True)
class Result:
    """One row of the report."""

    statement: Statement
    outcome: str
    reason: str = ""
    """Why it failed or doesn't apply; empty when passed."""
    calls: list[Call] = field(default_factory=list)
    telling: Call | None = None
    """The one of them that shows what is wrong."""
    remarks: list[str] = field(default_factory=list)
    """What is worth mending although the contract allows it."""
    seconds: float = 0.0

    @property
    def number(self) -> str:
        """``C-035``."""
        return self.statement.number
