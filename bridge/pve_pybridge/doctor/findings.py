# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""What a check finds: what, where, and how to mend it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import IntEnum

from .node import Node


class Level(IntEnum):
    """How bad it is; also the exit status."""

    OK = 0
    WARNING = 1
    FAULT = 2


@dataclass(frozen=True)
class Finding:
    """One thing that isn't as it should be."""

    level: Level
    where: str
    """A file, a unit, a storage, a process."""
    what: str
    mend: str


def fault(where: object, what: str, mend: str) -> Finding:
    """Something doesn't work, or isn't safe."""
    return Finding(Level.FAULT, str(where), what, mend)


def warning(where: object, what: str, mend: str) -> Finding:
    """Something will not work later, or can't be told."""
    return Finding(Level.WARNING, str(where), what, mend)


@dataclass
class Report:
    """What one check has to say; it fills this while it looks."""

    findings: list[Finding] = field(default_factory=list)
    summary: str = ""
    """What was looked at, for the line of a check that found nothing."""

    def add(self, findings: Iterable[Finding]) -> None:
        """Keep findings."""
        self.findings.extend(findings)

    @property
    def level(self) -> Level:
        """The worst one."""
        return max((finding.level for finding in self.findings), default=Level.OK)


Check = Callable[[Node, Report], None]
"""A check looks at the node and tells the report."""
