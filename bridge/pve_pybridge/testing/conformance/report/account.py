# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""All that a report says, whatever its form."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field

from ....version import __version__
from ..outcome import BAD, BLOCKED, ELSEWHERE, FAILED, NOT_APPLICABLE, PASSED, Result
from ..statements import STATEMENTS

OUTCOMES = (FAILED, BLOCKED, PASSED, NOT_APPLICABLE, ELSEWHERE)
"""In the order of interest."""


@dataclass(slots=True)
class Account:
    """One run of the suite."""

    plugin: str
    type: str
    modules: str
    apiver: int
    config: Mapping[str, str]
    """The options of the storage under test; secrets are ``***``."""
    results: list[Result] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.time)
    seconds: float = 0.0

    def count(self, outcome: str) -> int:
        """How many statements came out so."""
        return sum(result.outcome == outcome for result in self.results)

    @property
    def bad(self) -> list[Result]:
        """What must be mended, in the checklist's order."""
        return [result for result in self.ordered() if result.outcome in BAD]

    def ordered(self) -> list[Result]:
        """All results in the checklist's order."""
        numbers = list(STATEMENTS)
        return sorted(self.results, key=lambda result: numbers.index(result.number))

    def groups(self) -> Iterator[tuple[str, list[Result]]]:
        """Group → its results."""
        results = self.ordered()
        for group in dict.fromkeys(result.statement.group for result in results):
            yield group, [result for result in results if result.statement.group == group]

    def verdict(self) -> str:
        """The run in one line."""
        tried = self.count(PASSED) + len(self.bad)
        if self.bad:
            return f"{len(self.bad)} of {tried} statements that concern this plugin don't hold"
        return f"all {tried} statements that concern this plugin hold"


def as_json(account: Account) -> str:
    """For other programs."""
    results = []
    for result in account.ordered():
        row = asdict(result)
        statement = row.pop("statement")
        results.append({**statement, **row})
    data = {
        "format": 1,
        "pve_pybridge": __version__,
        "plugin": account.plugin,
        "type": account.type,
        "against": account.modules,
        "apiver": account.apiver,
        "config": dict(account.config),
        "started": int(account.started),
        "seconds": round(account.seconds, 3),
        "ok": not account.bad,
        "counts": {outcome: account.count(outcome) for outcome in OUTCOMES},
        "volumes_left_behind": account.left,
        "results": results,
    }
    return json.dumps(data, indent=1, ensure_ascii=False) + "\n"
