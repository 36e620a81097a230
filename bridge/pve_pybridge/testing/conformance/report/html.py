# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""One HTML file that needs nothing else: the verdict, what failed and how, every statement."""

from __future__ import annotations

import html
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ....version import __version__
from ..outcome import BLOCKED, ELSEWHERE, FAILED, NOT_APPLICABLE, PASSED, Call, Result
from ..subject import CALL_MARK
from .account import OUTCOMES, Account

_STYLE: Final = Path(__file__).with_name("report.css")
_CLASS: Final = {
    PASSED: "passed",
    FAILED: "failed",
    BLOCKED: "blocked",
    NOT_APPLICABLE: "na",
    ELSEWHERE: "elsewhere",
}
_MEANING: Final = {
    FAILED: "the plugin breaks the statement",
    BLOCKED: "a step before it failed",
    PASSED: "tried, and it holds",
    NOT_APPLICABLE: "doesn't concern this plugin, or can't be tried here",
    ELSEWHERE: "about the bridge, proven by its own tests",
}


def as_html(account: Account) -> str:
    """The page."""
    good = not account.bad
    title = f"{account.type}: {'conforms' if good else 'does not conform'}"
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{_text(title)}</title>",
            f"<style>{_STYLE.read_text('utf-8')}</style></head><body>",
            *_head(account),
            *_failures(account),
            "<h2>Every statement</h2>",
            *_table(account),
            f"<footer>pve-pybridge {__version__}; statements: docs/contract.md, section 9</footer>",
            "</body></html>",
            "",
        ]
    )


def _head(account: Account) -> Iterator[str]:
    good = not account.bad
    yield f'<header class="{"good" if good else "bad"}">'
    yield f"<p>PVE storage plugin <b>{_text(account.type)}</b></p>"
    yield f"<h1>{'✓' if good else '✗'} {_text(account.verdict().capitalize())}</h1>"
    yield "</header>"
    config = ", ".join(f"{key} {value}" for key, value in account.config.items())
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(account.started))
    facts = {
        "Plugin": account.plugin,
        "Storage": config,
        "Tried against": f"{account.modules}, APIVER {account.apiver}",
        "When": f"{when}, {account.seconds:.0f} s",
    }
    yield "<dl>"
    for name, value in facts.items():
        yield f"<div><dt>{name}</dt><dd>{_text(value)}</dd></div>"
    yield "</dl>"
    if account.left:
        left = ", ".join(account.left)
        yield f"<p class=remark>These volumes could not be freed: {_text(left)}</p>"
    yield '<form class="tiles">'
    for outcome in OUTCOMES:
        count = account.count(outcome)
        if not count and outcome in (BLOCKED,):
            continue
        name = _CLASS[outcome]
        checked = " checked" if outcome != ELSEWHERE else ""
        yield (
            f'<label class="tile {name}" title="{_text(_MEANING[outcome])}">'
            f'<input type="checkbox" id="show-{name}"{checked}>'
            f"<strong>{count}</strong><span>{outcome}</span>"
            f"<small>{_text(_MEANING[outcome])}</small></label>"
        )
    yield "</form>"


def _failures(account: Account) -> Iterator[str]:
    if not account.bad:
        return
    yield "<h2>What to mend</h2>"
    for result in account.bad:
        name = _CLASS[result.outcome]
        yield f'<section class="card {name}" id="{result.number}">'
        yield f"<h3><b>{result.number}</b> {_marked(result.statement.text)}</h3>"
        message, _, _ = result.reason.partition(CALL_MARK)
        yield f"<p class=why>{_text(message)}</p>"
        telling = result.telling or (result.calls[-1] if result.calls else None)
        if telling:
            yield "<p class=label>The call, and what came back</p>"
            yield _call(telling)
            yield _calls(result.calls, "calls of this statement")
        yield "</section>"


def _table(account: Account) -> Iterator[str]:
    yield "<table>"
    for group, results in account.groups():
        yield f"<tbody><tr class=group><th colspan=3>{_text(group)}</th></tr>"
        for result in results:
            name = _CLASS[result.outcome]
            yield f'<tr class="{name}"><td class=number>{result.number}</td>'
            yield f"<td><span class=pill>{result.outcome}</span></td>"
            yield f"<td>{_marked(result.statement.text)}{''.join(_details(result))}</td></tr>"
        yield "</tbody>"
    yield "</table>"


def _details(result: Result) -> Iterator[str]:
    if result.outcome in (FAILED, BLOCKED):
        yield f'<p class=why><a href="#{result.number}">why, and how it was found</a></p>'
        return
    if result.reason:
        yield f"<p class=note>{_text(result.reason)}</p>"
    for remark in result.remarks:
        yield f"<p class=remark>Remark: {_text(remark)}</p>"
    if result.outcome == PASSED:
        yield _calls(result.calls, "calls")


def _calls(calls: list[Call], what: str) -> str:
    if not calls:
        return ""
    what = what if len(calls) > 1 else what.replace("calls", "call")
    inner = "".join(map(_call, calls))
    return f"<details><summary>{len(calls)} {what}</summary>{inner}</details>"


def _call(call: Call) -> str:
    said = call.stderr.strip()
    log = f"\n<span class=log>{_text(said[-2000:])}</span>" if said else ""
    kind = "died" if call.died else "answer"
    return (
        f"<pre>{_text(call.text)}\n<span class={kind}>→ {_text(call.answer)}</span>"
        f" <span class=time>{call.seconds * 1000:.0f} ms</span>{log}</pre>"
    )


def _text(text: str) -> str:
    return html.escape(text.encode("utf-8", "replace").decode())


def _marked(text: str) -> str:
    """Text with `code` in it."""
    return re.sub("`([^`]*)`", r"<code>\1</code>", _text(text))
