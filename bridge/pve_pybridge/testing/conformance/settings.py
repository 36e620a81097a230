# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""From ``--config key=value`` to the storages the suite makes.

A required option that names a place (``path``, ``…-folder``, or PVE's format for paths) gets a
fresh directory by itself, and ``{dir}`` in a value stands for one; then there is also a second
storage beside the first.  Otherwise ``--second`` says what differs there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ...errors import StorageError

_PLACE: Final = re.compile(r"(?:.*-)?(?:path|dir|directory|folder|root)")
Values = dict[str, str]


@dataclass(frozen=True, slots=True)
class Settings:
    """What the suite was told."""

    config: Mapping[str, str] = field(default_factory=dict)
    second: Mapping[str, str] = field(default_factory=dict)
    """Differences of a second storage with other volumes; empty: made up if that's possible."""
    unreachable: Mapping[str, str] = field(default_factory=dict)
    """Differences of a storage whose backend doesn't answer."""
    previous: Mapping[str, Any] | None = None
    """The manifest of the plugin's release before this one."""
    etc: Path | None = None
    """A directory whose files appear in the pretended /etc/pve."""
    apiver: int = 15
    timeout: float = 30.0
    """Seconds until a call counts as hung."""


def pairs(words: Sequence[str]) -> Values:
    """``["a=b"]`` as a mapping; ``a=@FILE`` reads a file: secrets don't belong into commands."""
    found = {}
    for word in words:
        key, sign, value = word.partition("=")
        if not sign or not key:
            raise StorageError(f"'{word}': write it as key=value")
        try:
            found[key] = Path(value[1:]).read_text().strip() if value.startswith("@") else value
        except OSError as err:
            raise StorageError(f"'{word}': can't read the file: {err.strerror}") from None
    return found


def first(manifest: Mapping[str, Any], settings: Settings, directory: Callable[[], str]) -> Values:
    """Properties of the storage under test."""
    return _properties(manifest, settings.config, directory)


def second(
    manifest: Mapping[str, Any], settings: Settings, directory: Callable[[], str]
) -> Values | None:
    """Properties of another storage of the type; None when it would be the same."""
    made = []

    def counted() -> str:
        made.append(directory())
        return made[-1]

    values = _properties(manifest, {**settings.config, **settings.second}, counted)
    return values if made or settings.second else None


def unreachable(
    manifest: Mapping[str, Any], settings: Settings, directory: Callable[[], str]
) -> Values | None:
    """Properties of a storage that can't be reached, if we were told any."""
    if not settings.unreachable:
        return None
    return _properties(manifest, {**settings.config, **settings.unreachable}, directory)


def _properties(
    manifest: Mapping[str, Any], given: Mapping[str, str], directory: Callable[[], str]
) -> Values:
    options = manifest["options"]
    values = {_property(manifest, key): value for key, value in given.items()}
    for name, flags in options.items():
        if name in values or flags.get("optional"):
            continue
        schema = manifest["properties"].get(name, {})
        if schema.get("format") != "pve-storage-path" and not _PLACE.fullmatch(name):
            raise StorageError(
                f"storage type '{manifest['type']}' requires '{name}': --config {name}=VALUE"
            )
        values[name] = "{dir}"
    if "content" in options:
        content = [kind for kind in manifest["content"][0] if kind != "none"]
        values.setdefault("content", ",".join(content) or "none")
    return {
        name: value.replace("{dir}", directory()) if "{dir}" in value else value
        for name, value in values.items()
    }


def _property(manifest: Mapping[str, Any], key: str) -> str:
    """The option of that name, with or without the type before it."""
    known = {**manifest["options"], **dict.fromkeys(manifest["sensitive"])}
    for name in (key, f"{manifest['type']}-{key}"):
        if name in known:
            return name
    names = ", ".join(sorted(known))
    raise StorageError(f"storage type '{manifest['type']}' has no option '{key}'; it has {names}")
