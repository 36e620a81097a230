# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Storages without PVE: the files in which a node has them, in a directory of their own.

For a developer's machine (``serve --storage``, ``trace --replay --serve``) and for the sandbox; on
a node these files are PVE's.  ``section_of`` makes a section of what ``--config`` gives.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .config import ConfigField, options_of
from .errors import StorageError
from .plugin import StoragePlugin, config_class
from .storagecfg import decoded, put


class Files:
    """A node's files below *base*; its sockets are in *run*."""

    def __init__(self, base: Path, run: Path):
        self.etc = base / "etc-pve"
        self.manifests = base / "plugins.d"
        self.storage_cfg = self.etc / "storage.cfg"
        self._lock = base / "lock"
        self.env = {
            "PVE_PYBRIDGE_ETC_PVE": str(self.etc),
            "PVE_PYBRIDGE_MANIFESTS": str(self.manifests),
            "PVE_PYBRIDGE_RUN": str(run),
            "PVE_STANDIN_LOCK_DIR": str(self._lock),
        }
        """Where the bridge, the shim and the stand-in look for them."""

    def make(self) -> None:
        """Make the directories."""
        for directory in (self.etc, self.manifests, self._lock):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def enable(self, facts: Mapping[str, Any]) -> None:
        """Write a manifest."""
        (self.manifests / f"{facts['type']}.json").write_text(json.dumps(facts), "ascii")

    def add(self, storeid: str, section: Mapping[str, Any]) -> None:
        """Put a section into storage.cfg, in place of the one that was there."""
        sections = {**decoded(self.storage_cfg), storeid: dict(section)}
        blocks = []
        for name, one in sections.items():
            lines = [f"{one['type']}: {name}"]
            for key, value in one.items():
                if key != "type":
                    lines += [f"\t{key} {item}" for item in _lines(key, value)]
            blocks.append("\n".join(lines) + "\n")
        self.storage_cfg.write_text("\n".join(blocks), "utf-8", "surrogateescape")


def section_of(
    plugin: type[StoragePlugin[Any]], given: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """What ``--config`` gives, by field or property name: (section, secrets).

    StorageError says which options there are when one is unknown or missing.
    """
    options = options_of(config_class(plugin), plugin.type)
    section: dict[str, Any] = {"type": plugin.type, "content": dict.fromkeys(plugin.content, 1)}
    secrets: dict[str, str] = {}
    hidden = {item.property for item in options if item.option.secret}
    for name, value in options_by_property(plugin, given).items():
        if name in hidden:
            secrets[name] = value
        else:
            section.pop(name, None)
            put(section, name, value)
    missing = [item.field for item in options if item.required and item.property not in section]
    if missing:
        wanted = " ".join(f"--config {name}=…" for name in missing)
        raise StorageError(f"type '{plugin.type}' needs {wanted}")
    config_class(plugin).from_scfg("--config", plugin.type, section)
    return section, secrets


def options_by_property(
    plugin: type[StoragePlugin[Any]], given: Mapping[str, str]
) -> dict[str, str]:
    """Options that may go by the name of their field, by the name PVE knows them by."""
    options = options_of(config_class(plugin), plugin.type)
    names = {item.field: item.property for item in options}
    names |= {item.field.replace("_", "-"): item.property for item in options}
    names |= {item.property: item.property for item in options}
    names |= {item.property.replace("-", "_"): item.property for item in options}
    for name in given:
        if name not in names:
            raise StorageError(f"--config {name}: no such option; {_offered(options)}")
    return {names[name]: value for name, value in given.items()}


def _offered(options: list[ConfigField]) -> str:
    mine = [item for item in options if item.option.builtin is None or item.required]
    return "there are " + ", ".join(item.field for item in mine or options)


def _lines(key: str, value: Any) -> list[str]:
    if isinstance(value, list):
        return [str(item) for item in value]
    if key == "content-dirs":
        return [",".join(f"{name}={path}" for name, path in value.items())]
    if isinstance(value, dict):
        return [",".join(value)]
    return [str(value)]
