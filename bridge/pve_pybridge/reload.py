# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""``serve --reload``: edit, save, and the next call runs the new code.

``Reloading`` stands in for the Host in a server on a developer's machine.  It looks at the plugin's
files when a call arrives; calls that run go on with the code they began with.  Code that can't be
used is said in one line, and the old goes on.  What PVE knows from the manifest can't be changed
from here, so a change of it says what must be done.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from . import manifest, units
from .errors import StorageError, one_line
from .host import Extra, Host
from .loader import load
from .methods import Arguments
from .plugin import StoragePlugin
from .storage import Call

logger = logging.getLogger(__name__)

Stamp = tuple[int, int, int]


class Reloading:
    """A Host whose plugin follows its files."""

    def __init__(self, source: str):
        self._source = source
        self._lock = threading.Lock()
        self._before = frozenset(sys.modules)
        sys.dont_write_bytecode = True  # its time stamps are too coarse for an edit a second
        self._host = Host(load(source))
        self._facts = manifest.build(type(self._host.plugin))
        self._stamps = self._look()

    # --- what a server asks of a Host ------------------------------------------------------------

    @property
    def plugin(self) -> StoragePlugin[Any]:
        """The plugin as it is now."""
        return self._host.plugin

    @property
    def type(self) -> str:
        """Its storage type, which can't change."""
        return self._host.type

    @property
    def secrets(self) -> list[str]:
        """Names of its secret properties."""
        return self._host.secrets

    def facts(self) -> Mapping[str, object]:
        """Its manifest as it is now, which may not be the one PVE has."""
        return self._facts

    def limit(self, method: str) -> float | None:
        """The first question of each call, so here is where the files are looked at."""
        if not method.startswith("_"):
            self._refresh()
        return self._host.limit(method)

    @property
    def shared(self) -> frozenset[str]:
        """Methods whose identical calls are answered by one run."""
        return self._host.shared

    def call(
        self, call: Call, storeid: str, scfg: Mapping[str, Any], args: Arguments
    ) -> tuple[object, Extra]:
        """Run one method."""
        return self._host.call(call, storeid, scfg, args)

    # --- following the files -------------------------------------------------------------------

    def _refresh(self) -> None:
        with self._lock:
            stamps = self._look()
            if stamps == self._stamps:
                return
            self._stamps = stamps
            try:
                self._reload()
            except Exception as err:
                what = str(err) if isinstance(err, StorageError) else f"{type(err).__name__}: {err}"
                _say(f"not reloaded, the old code goes on: {one_line(what)}")
            self._stamps = self._look()

    def _reload(self) -> None:
        dropped = {name: module for name, module in sys.modules.items() if self._ours(name, module)}
        for name, module in dropped.items():
            del sys.modules[name]
            _forget_bytecode(module)
        importlib.invalidate_caches()
        try:
            plugin = load(self._source)
            if plugin.type != self.type:
                raise StorageError(
                    f"the type is now '{plugin.type}', but this server's socket and PVE's "
                    f"storages are of type '{self.type}'; start another server for the new type"
                )
            host, facts = Host(plugin), manifest.build(plugin)
        except BaseException:
            sys.modules.update(dropped)
            raise
        self._host = host
        _say(f"{self.type}: reloaded {self._source}")
        changes = manifest.differences(self._facts, facts)
        self._facts = facts
        if changes:
            _say(
                f"{self.type}: PVE doesn't know yet: {'; '.join(changes)}. Write the manifest anew "
                f"(pve-pybridge manifest {self._source} -o …/{self.type}.json) and reload what "
                f"has read the old one: {units.RELOAD}"
            )

    def _look(self) -> dict[str, Stamp | None]:
        """A stamp for each file of the plugin; None for one that is away, as while it is saved."""
        files = {
            str(module.__file__)
            for name, module in list(sys.modules.items())
            if self._ours(name, module)
        }
        files |= {self._source} if self._source.endswith(".py") else set()
        return {file: _stamp(file) for file in files}

    def _ours(self, name: str, module: ModuleType) -> bool:
        """Modules that came with the plugin, and aren't of an installed library or the bridge."""
        file = getattr(module, "__file__", None)
        if name in self._before or not file or name.split(".", maxsplit=1)[0] == __package__:
            return False
        if not self._source.endswith(".py"):
            return name.split(".", maxsplit=1)[0] == self._source.split(".")[0]
        return Path(self._source).resolve().parent in Path(file).resolve().parents and not any(
            part in ("site-packages", "dist-packages") for part in Path(file).parts
        )


def _stamp(file: str) -> Stamp | None:
    try:
        found = Path(file).stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _forget_bytecode(module: ModuleType) -> None:
    with contextlib.suppress(OSError, NotImplementedError, TypeError, ValueError):
        Path(importlib.util.cache_from_source(str(module.__file__))).unlink(missing_ok=True)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
