# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""JUnit XML, which CI systems show as tests: one test case per statement."""

from __future__ import annotations

import re
import time
from typing import Final
from xml.etree import ElementTree

from ..outcome import BLOCKED, ELSEWHERE, FAILED, NOT_APPLICABLE, Result
from .account import Account

_FORBIDDEN: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ELEMENT: Final = {FAILED: "failure", BLOCKED: "error", NOT_APPLICABLE: "skipped"} | {
    ELSEWHERE: "skipped"
}


def as_junit(account: Account) -> str:
    """The document."""
    skipped = account.count(NOT_APPLICABLE) + account.count(ELSEWHERE)
    suite = ElementTree.Element(
        "testsuite",
        name=f"pve-pybridge check {account.type}",
        tests=str(len(account.results)),
        failures=str(account.count(FAILED)),
        errors=str(account.count(BLOCKED)),
        skipped=str(skipped),
        time=f"{account.seconds:.3f}",
        timestamp=time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(account.started)),
    )
    for result in account.ordered():
        _case(suite, account, result)
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    return ElementTree.tostring(root, "unicode", xml_declaration=True) + "\n"


def _case(suite: ElementTree.Element, account: Account, result: Result) -> None:
    case = ElementTree.SubElement(
        suite,
        "testcase",
        classname=f"{account.type}.{result.statement.group.partition('.')[0]}",
        name=_clean(f"{result.number} {result.statement.text}"),
        time=f"{result.seconds:.3f}",
    )
    if element := _ELEMENT.get(result.outcome):
        child = ElementTree.SubElement(case, element, message=_clean(result.reason))
        if element != "skipped":
            child.text = _clean("\n".join(f"{c.text} → {c.answer}" for c in result.calls))
    if result.remarks:
        ElementTree.SubElement(case, "system-out").text = _clean("\n".join(result.remarks))


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("�", text)
