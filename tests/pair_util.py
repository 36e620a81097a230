# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""One of PVE's own ``dir`` and one ``pydir`` that get the same calls."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydir_util import PyDir, Store

VOID = ("volume_resize", "volume_snapshot", "volume_snapshot_delete", "volume_snapshot_rollback")
"""PVE looks at nothing these return (contract 2.5, 2.6)."""


@dataclass(frozen=True)
class Outcome:
    """What a call came to, without what may differ: storage ID, type and directory."""

    value: object
    died: bool
    error: str


class Pair:
    """Two storages that get the same calls."""

    def __init__(self, pydir: PyDir, base: Path, **options: object):
        self.dir = pydir.store(base / "dir-root", "dir", **options)
        self.pydir = pydir.store(base / "pydir-root", "pydir", **options)
        self.both = (self.dir, self.pydir)

    def neutral(self, store: Store, value: object) -> Any:
        """*value* with what must differ replaced."""
        if isinstance(value, dict):
            return {str(self.neutral(store, k)): self.neutral(store, v) for k, v in value.items()}
        if isinstance(value, list):
            return [self.neutral(store, item) for item in value]
        if isinstance(value, bool):
            return int(value)
        if isinstance(value, str):
            if re.fullmatch("[0-9]+", value):  # all the same to Perl
                return int(value)
            text = value.replace(str(store.root), "<root>")
            return re.sub(rf"\b{store.id}\b", "<id>", text)
        return value.decode("latin-1") if isinstance(value, bytes) else value

    def outcome(self, store: Store, function: str, *args: Any, context: str = "scalar") -> Outcome:
        given = [self.own(store, arg) for arg in args]
        result = store.run(function, *given, context=context)
        value = self.neutral(store, result.value)
        error = str(self.neutral(store, result.error or ""))
        return Outcome(value, result.error is not None, error)

    def own(self, store: Store, arg: Any) -> Any:
        if isinstance(arg, str) and arg.startswith(":"):
            return f"{store.id}{arg}"
        return store.id if arg == "<id>" else arg

    def same(self, function: str, *args: Any, context: str = "scalar", text: bool = True) -> Any:
        """Call both; *args* that begin with ``:`` are volume IDs.  Returns the common answer."""
        theirs, ours = (self.outcome(s, function, *args, context=context) for s in self.both)
        if function in VOID:
            theirs, ours = replace(theirs, value=None), replace(ours, value=None)
        assert (ours.value, ours.died) == (theirs.value, theirs.died), (
            function,
            args,
            theirs,
            ours,
        )
        if text:
            assert plain(ours.error) == plain(theirs.error), (function, args)
        assert self.files() is not None
        return ours.value

    def files(self) -> list[tuple[str, int, int]]:
        """Both directories hold the same files with the same modes and sizes."""
        theirs, ours = ([entry(store.root, p) for p in walk(store.root)] for store in self.both)
        assert ours == theirs
        return ours


def walk(root: Path) -> list[Path]:
    return sorted(root.rglob("*"))


def entry(root: Path, path: Path) -> tuple[str, int, int]:
    """Name, mode and size.

    What is for group and others is left out: ``pydir`` treats whatever it makes as an allocation,
    PVE's ``dir`` leaves clones and the directories of renamed images to the process' umask.
    """
    found = path.lstat()
    return (
        str(path.relative_to(root)),
        found.st_mode & ~0o077,
        0 if path.is_dir() else found.st_size,
    )


def plain(error: str) -> str:
    """An error without the type's name, and without what Perl and Python say differently."""
    error = re.sub(r"\bpydir\b|\bdirectory\b", "dir", error)
    return error.strip()


def listing(pair: Pair, function: str, *args: Any) -> None:
    """Lists agree but for the moment of creation and, by a block, the space used."""

    def stable(store: Store) -> list[Any]:
        rows = store(function, *[pair.own(store, arg) for arg in args])
        rows = pair.neutral(store, rows)
        rows = rows["<id>"] if isinstance(rows, dict) else rows
        for row in rows:
            age = abs(row.pop("ctime") - os.stat(store.root).st_ctime)
            assert age < 120 or row.get("content") == "backup"
            row.pop("used", None)
            row["vmid"] = int(row["vmid"]) if "vmid" in row else None
            if row.get("parent", "") is None:
                del row["parent"]
        return sorted(rows, key=lambda row: str(row["volid"]))

    theirs, ours = (stable(store) for store in pair.both)
    assert ours == theirs


def refused(pair: Pair, function: str, *args: Any) -> None:
    """Both die, each in its tool's words."""
    theirs, ours = (pair.outcome(store, function, *args) for store in pair.both)
    assert (theirs.died, ours.died) == (True, True), (function, args, theirs, ours)
    pair.files()


def on_both(pair: Pair, change: Callable[[Path], object]) -> None:
    for store in pair.both:
        change(store.root)
