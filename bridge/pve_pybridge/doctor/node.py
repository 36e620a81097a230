# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""What several checks look at, found out once: manifests, storage.cfg, PVE's own view, servers."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from .. import installed, pve, units
from ..errors import StorageError
from ..installed import Installed
from ..paths import socket_path
from ..storagecfg import Section, sections
from .procfs import Process, pve_processes

T = TypeVar("T")

PVE_SECONDS: Final = 15.0
SERVER_SECONDS: Final = 3.0


class Node:
    """This machine.  Checks run beside each other: the first that asks finds out, others wait."""

    def __init__(self) -> None:
        self.name = os.uname().nodename.split(".")[0]
        self._lock = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}
        self._known: dict[str, tuple[object, StorageError | None]] = {}

    def _once(self, key: str, find: Callable[[], T]) -> T:
        with self._lock:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            if key not in self._known:
                try:
                    self._known[key] = (find(), None)
                except StorageError as err:
                    self._known[key] = (None, err)
        value, error = self._known[key]
        if error:
            raise error
        return cast(T, value)

    def manifest_files(self) -> list[Path]:
        """All manifests, good or bad."""
        return self._once("files", installed.files)

    def manifests(self) -> list[Installed]:
        """Those that can be read."""
        return self._once("manifests", self._read_manifests)

    def _read_manifests(self) -> list[Installed]:
        found = []
        for file in self.manifest_files():
            try:
                found.append(installed.read(file))
            except StorageError:  # the check of manifests tells
                continue
        return found

    def sections(self) -> list[Section]:
        """All storages in storage.cfg."""
        return self._once("sections", sections)

    def storages(self, type_: str) -> list[Section]:
        """Those of a type that this node shall have."""
        return [s for s in self.sections() if s.type == type_ and s.on_node(self.name)]

    def pve(self) -> pve.Registered:
        """What a PVE process has after loading its plugins; NoPve where there is no PVE."""
        return self._once("pve", lambda: pve.load(timeout=PVE_SECONDS))

    def decoded(self, storeid: str) -> dict[str, Any] | None:
        """A storage's configuration as PVE decodes it, None when PVE skips it."""
        found: dict[str, Any] | None = self.pve().facts["ids"].get(storeid)
        return found

    def processes(self) -> dict[int, Process]:
        """All PVE processes, by number."""
        return self._once("processes", pve_processes)

    def expected(self, type_: str) -> bool:
        """Whether somebody should answer for a type now; an idle one must not be woken."""
        return self._once(f"expected {type_}", lambda: self._expected(type_))

    def _expected(self, type_: str) -> bool:
        if self.storages(type_):
            return True
        if units.systemd_runs():
            return units.state(type_) == "running"
        return socket_path(type_).exists()

    def server(self, type_: str) -> dict[str, Any]:
        """A server's own account (``_stats``); StorageError when it can't be asked."""
        return self._once(f"server {type_}", lambda: _ask(type_))


def _ask(type_: str) -> dict[str, Any]:
    from ..client import Client  # noqa: PLC0415  # needs msgpack, the rest of us doesn't

    with Client(type_, socket_path(type_), SERVER_SECONDS) as client:
        account: dict[str, Any] = client.call("_stats")
    return {**account, "wire": client.about.get("wire"), "table": client.about.get("table")}
