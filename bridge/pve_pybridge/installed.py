# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""The manifests of this node, as Python reads them: which type, whose code, which interpreter.

For everything that starts from a type and not from a plugin file: ``serve --type``, ``list``,
``disable``, ``doctor``.  What the facts in a manifest mean to PVE is the shim's to judge.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from . import trust
from .errors import StorageError
from .paths import manifests_dir

TYPE: Final = re.compile(r"[a-z][a-z0-9-]*[a-z0-9]")
_MODULE: Final = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


class Installed(NamedTuple):
    """A manifest in plugins.d."""

    file: Path
    type: str
    data: Mapping[str, Any]

    @property
    def plugin(self) -> str | None:
        """Absolute path of the plugin's file, or its module; None: the manifest doesn't say."""
        return self._checked(check_location, "plugin")

    @property
    def plugin_file(self) -> Path | None:
        """The plugin's file, None for a module."""
        return Path(self.plugin) if self.plugin and self.plugin.startswith("/") else None

    @property
    def interpreter(self) -> str | None:
        """Absolute path of the Python that serves the plugin; None: the bridge's own."""
        return self._checked(check_interpreter, "interpreter")

    def _checked(self, check: Callable[[object], str], key: str) -> str | None:
        try:
            return None if self.data.get(key) is None else check(self.data[key])
        except StorageError as err:
            raise StorageError(f"manifest {self.file}: {err}") from None


def check_location(value: object) -> str:
    """Where a plugin is, as a manifest may say it."""
    if isinstance(value, str):
        wanted = value.startswith("/") if value.endswith(".py") else _MODULE.fullmatch(value)
        if wanted:
            return value
    raise StorageError(f"plugin {value!r} must be the absolute path of a .py file or a module name")


def check_interpreter(value: object) -> str:
    """Which Python serves a plugin, as a manifest may say it."""
    if isinstance(value, str) and value.startswith("/"):
        return value
    raise StorageError(f"interpreter {value!r} must be an absolute path")


def files() -> list[Path]:
    """All manifests, as the shim finds them; none when the directory doesn't exist."""
    try:
        return sorted(f for f in manifests_dir().iterdir() if re.fullmatch(r"[^.].*\.json", f.name))
    except FileNotFoundError:
        return []
    except OSError as err:
        raise StorageError(f"can't read {manifests_dir()}: {err.strerror}") from None


def file_of(type_: str) -> Path:
    """Where the manifest of a storage type is, or would be."""
    if not TYPE.fullmatch(type_):
        raise StorageError(f"'{type_}' is no storage type")
    return manifests_dir() / f"{type_}.json"


def find(type_: str) -> Installed:
    """The manifest of a storage type; StorageError when it isn't enabled or can't be read."""
    file = file_of(type_)
    if not file.exists():
        raise StorageError(f"storage type '{type_}' is not enabled here: there is no {file}")
    return read(file)


def read(file: Path) -> Installed:
    """One manifest; StorageError says what is wrong with the file."""
    try:
        data = json.loads(file.read_bytes())
    except OSError as err:
        raise StorageError(f"manifest {file}: can't read it: {err.strerror}") from None
    except ValueError as err:
        raise StorageError(f"manifest {file}: no valid JSON: {err}") from None
    if not isinstance(data, dict):
        raise StorageError(f"manifest {file}: it holds no object")
    if data.get("type") != file.stem:
        raise StorageError(f"manifest {file}: it describes type '{data.get('type')}'")
    return Installed(file, file.stem, data)


def check_trust(manifest: Installed) -> None:
    """Refuse to run code that others than root could have named or written."""
    plugin, python = manifest.plugin_file, manifest.interpreter
    for path in filter(None, (manifest.file, plugin)):
        try:
            _refuse(manifest, path, trust.flaw(path))
        except OSError as err:
            raise StorageError(
                f"storage type '{manifest.type}': can't read {path}: {err.strerror}"
            ) from None
    for path in filter(None, (plugin, Path(python) if python else None)):
        if path.exists():
            _refuse(manifest, path, trust.path_flaw(path))


def _refuse(manifest: Installed, path: Path, flaw: str | None) -> None:
    if flaw:
        raise StorageError(f"storage type '{manifest.type}': {path} is not trusted: {flaw}")
