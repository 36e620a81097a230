# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""I. Hooks and secrets: adding, changing and removing storages by PVE's own API."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ....secrets import path as secret_path
from ..node import CREATE
from ..outcome import NotApplicable
from ..settings import Values
from ..subject import Answer, Subject

TWIN: Final = "check-twin"


def _api(s: Subject, method: str, **param: str) -> Answer:
    given = ", ".join(f"{key} => {_shown(s, key, value)}" for key, value in param.items())
    text = f"PVE::API2::Storage::Config->{method}({{ {given} }})"
    answer = s.run(text, CREATE, {"-method": method, **param})
    s.node.refresh()
    return answer


def _shown(s: Subject, key: str, value: str) -> str:
    return "'***'" if key in s.manifest["sensitive"] else f"'{value}'"


def _secrets(s: Subject) -> Values:
    return {key: value for key, value in s.values.items() if key in s.manifest["sensitive"]}


def _files(s: Subject, storeid: str) -> list[Path]:
    directory = s.node.etc / "priv" / "storage"
    return sorted(directory.glob(f"{storeid}.*")) if directory.is_dir() else []


def _drop(s: Subject) -> None:
    s.node.api("delete", {"storage": TWIN})


def adding(s: Subject) -> None:
    """C-096: without a content line, and with what the plugin makes up."""
    s.need("on_add_hook")
    given = {key: value for key, value in s.values.items() if key != "content"}
    answer = _api(s, "create", storage=TWIN, type=s.type, **given)
    if answer.error is not None:
        s.fail("a storage must be possible to add without a content line")
    try:
        if f"{s.type}: {TWIN}" not in s.node.config_file.read_text():
            s.fail("the added storage is not in storage.cfg")
    finally:
        _drop(s)
    if _files(s, TWIN):
        s.fail(f"the removed storage leaves {[file.name for file in _files(s, TWIN)]}")


def failing_add(s: Subject) -> None:
    """C-097: nothing stays of a storage that couldn't be activated."""
    if s.unreachable is None:
        raise NotApplicable("no backend to miss was named (--unreachable key=value)")
    before = s.node.config_file.read_text()
    answer = _api(s, "create", storage=TWIN, type=s.type, **s.unreachable)
    if answer.error is None:
        _drop(s)
        s.fail("a storage whose backend is unreachable was added")
    if s.node.config_file.read_text() != before:
        s.fail("storage.cfg was changed by an add that failed")
    if _files(s, TWIN):
        s.fail(f"the add failed and left {[file.name for file in _files(s, TWIN)]}")


def secrets_stay_secret(s: Subject) -> None:
    """C-098: over the whole run, with the log at its most talkative."""
    given = [value for value in _secrets(s).values() if len(value) >= 4]
    if not given:
        raise NotApplicable("no secret of at least four characters was given (--config)")
    said = "".join(answer.stderr + (answer.error or "") for answer in s.history)
    places = {
        "storage.cfg": s.node.config_file.read_text(),
        "the plugin's log": s.node.log.read_text("utf-8", "replace"),
        "the trace": s.node.trace.read_text("utf-8", "replace"),
        "a task's log": said,
    }
    s.calls = []
    for place, text in places.items():
        for value in given:
            if value in text:
                line = next(line for line in text.splitlines() if value in line)
                s.fail(f"{place} shows a secret: {line.replace(value, '***').strip()[:300]}")


def changing_secrets(s: Subject) -> None:
    """C-099: set, left alone, deleted, on a storage that is disabled."""
    given = _secrets(s)
    if not given:
        raise NotApplicable("no secret was given (--config)")
    name, value = next(iter(given.items()))
    if _api(s, "create", storage=TWIN, type=s.type, **{**s.values, "disable": "1"}).error:
        s.fail("a disabled storage can't be added")
    stored = secret_path(TWIN, name, s.node.etc)
    try:
        for what, param in (("set", {name: value}), ("left alone", {"disable": "1"})):
            if _api(s, "update", storage=TWIN, **param).error is not None:
                s.fail(f"the update in which '{name}' is {what} failed")
            if not stored.exists():
                s.fail(f"'{name}' is gone after an update in which it is {what}")
        if _api(s, "update", storage=TWIN, delete=name).error is not None:
            s.fail(f"'{name}' can't be deleted")
        if stored.exists():
            s.fail(f"'{name}' was deleted and is still there")
    finally:
        _drop(s)


CHECKS: Final = {
    "C-096": adding,
    "C-097": failing_add,
    "C-099": changing_secrets,
}
LAST: Final = {"C-098": secrets_stay_secret}
