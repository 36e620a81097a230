# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Run the checks beside each other, each for a bounded time, whatever hangs.

A stuck check costs its own line.  Its thread is a daemon: it doesn't keep the command from ending.
"""

from __future__ import annotations

import importlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from ..errors import StorageError, one_line
from .findings import Check, Report, fault
from .node import Node

logger = logging.getLogger(__name__)

SECONDS: Final = 25.0
"""How long all checks together may take."""

T = TypeVar("T")


@dataclass(frozen=True)
class Outcome:
    """One check and what it said."""

    name: str
    report: Report
    seconds: float


def run(node: Node, checks: Mapping[str, Check], seconds: float = SECONDS) -> list[Outcome]:
    """All checks, in the order of the table."""
    ends = time.monotonic() + seconds
    started = [_Running(name, check, node) for name, check in checks.items()]
    return [one.outcome(max(0.0, ends - time.monotonic())) for one in started]


class _Running:
    def __init__(self, name: str, check: Check, node: Node):
        self._name = name
        self._check = check
        self._node = node
        self._report = Report()
        self._began = time.monotonic()
        self._seconds = 0.0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        report = Report()
        try:
            self._check(self._node, report)
        except Exception as err:  # one that fails must not silence the others
            logger.debug("check %s failed", self._name, exc_info=True)
            report.add([fault(self._name, _said(err), "mend that and look again")])
        self._seconds = time.monotonic() - self._began
        self._report = report  # in one step: whoever is late says nothing half

    def outcome(self, seconds: float) -> Outcome:
        self._thread.join(seconds)
        if self._thread.is_alive():
            late = Report()
            late.add([fault(self._name, "this check hangs", "see what its files or servers do")])
            return Outcome(self._name, late, time.monotonic() - self._began)
        return Outcome(self._name, self._report, self._seconds)


def _said(err: Exception) -> str:
    # Any: when threads import one module at once and it fails, not each sees why.
    if isinstance(err, ImportError) and _lacks_msgpack():
        return "not checked: the Python module msgpack is missing"
    if isinstance(err, StorageError):
        return f"not checked: {err}"
    return one_line(f"not checked: {type(err).__name__}: {err}")


def _lacks_msgpack() -> bool:
    try:
        importlib.import_module("msgpack")
    except ImportError:
        return True
    return False


def beside_each_other(work: Callable[[T], None], items: Iterable[T]) -> None:
    """Do *work* for all items at once and wait: hanging servers hang together, not in turn."""
    failed: list[Exception] = []

    def one(item: T) -> None:
        try:
            work(item)
        except Exception as err:
            failed.append(err)

    threads = [threading.Thread(target=one, args=(item,), daemon=True) for item in items]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
