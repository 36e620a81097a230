# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""storage.cfg as the command line reads it: sections with their values in PVE's decoded form.

For ``call`` and ``trace``, which ask a server without PVE in between; what PVE itself reads is its
own affair.  ``write`` is for storages on a developer's machine.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from .config import ConfigField, options_of
from .errors import StorageError
from .plugin import StoragePlugin, config_class

_SETS: Final = frozenset({"content", "nodes"})
_HEADER: Final = re.compile(r"(\S+):\s*(\S+)\s*")

Sections = dict[str, dict[str, Any]]


def read(file: Path) -> Sections:
    """Storage ID → section, ``type`` included; none when there is no such file."""
    try:
        text = file.read_text("utf-8", "surrogateescape")
    except FileNotFoundError:
        return {}
    except OSError as err:
        raise StorageError(f"can't read {file}: {err.strerror}") from None
    return dict(_sections(text))


def _sections(text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    section: dict[str, Any] | None = None
    for line in text.splitlines():
        header = _HEADER.fullmatch(line) if line and not line[0].isspace() else None
        if header:
            section = {"type": header[1].lower()}
            yield header[2], section
        elif line[:1].isspace() and line.strip() and section is not None:
            key, _, value = line.strip().partition(" ")
            _put(section, key, value.strip())


def _put(section: dict[str, Any], key: str, value: str) -> None:
    """One line of a section; a flag may stand without a value, an array has a line each."""
    if key in _SETS:
        section[key] = {item: 1 for item in re.split(r"[,;\s]+", value) if item}
    elif key == "content-dirs":
        section[key] = dict(item.partition("=")[::2] for item in value.split(",") if item)
    elif key in section:
        before = section[key] if isinstance(section[key], list) else [section[key]]
        section[key] = [*before, value]
    else:
        section[key] = value or "1"


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
            _put(section, name, value)
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


def write(file: Path, storeid: str, section: Mapping[str, Any]) -> None:
    """Put a section into *file*, in place of the one that was there."""
    sections = {**read(file), storeid: dict(section)}
    blocks = []
    for name, one in sections.items():
        lines = [f"{one['type']}: {name}"]
        for key, value in one.items():
            if key != "type":
                lines += [f"\t{key} {item}" for item in _lines(key, value)]
        blocks.append("\n".join(lines) + "\n")
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    file.write_text("\n".join(blocks), "utf-8", "surrogateescape")


def _lines(key: str, value: Any) -> list[str]:
    if isinstance(value, list):
        return [str(item) for item in value]
    if key == "content-dirs":
        return [",".join(f"{name}={path}" for name, path in value.items())]
    if isinstance(value, dict):
        return [",".join(value)]
    return [str(value)]
