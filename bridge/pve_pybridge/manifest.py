# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Plugin class → manifest: every fact PVE gets without asking the server (D2).

The manifest is the contract between the Python class and the shim.  Whatever would disturb PVE at
load time (contract section 1) is refused here first, so that the author sees it, not the node.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NoReturn

from . import advice
from .codec import WIRE_VERSION
from .config import ConfigField, options_of, schema_type
from .errors import StorageError
from .installed import check_interpreter, check_location
from .methods import LOCAL, METHODS, TABLE_VERSION, Method
from .plugin import CONTENT_TYPES, StoragePlugin, config_class, implemented

MANIFEST_VERSION: Final = 2
"""2: methods by the kind of call, each row one string; every PVE process reads it in a third of the
time.  The shim reads version 1, too."""

CALLS: Final = ("forward", "static", "refuse")
"""How the shim answers; a method that is in none of them is PVE's base method."""

PVE_TYPES: Final = frozenset(
    {"btrfs", "cephfs", "cifs", "dir", "drbd", "esxi", "iscsi", "iscsidirect", "lvm", "lvmthin"}
    | {"nfs", "pbs", "rbd", "zfs", "zfspool"}
)
"""PVE's own storage types (contract 1.2)."""

PVE_PROPERTIES: Final = frozenset(
    # ruff: noqa: SIM905  word lists read best as words
    """
    type storage nodes content disable prune-backups max-protected-backups shared subdir format
    preallocation content-dirs options port snapshot-as-volume-chain path mkdir create-base-path
    create-subdirs is_mountpoint bwlimit server export share domain smbversion password username
    monhost pool data-pool namespace authsupported krbd keyring fuse fs-name target portal
    vgname base saferemove saferemove-stepsize saferemove_throughput tagged_only thinpool nocow
    blocksize sparse mountpoint iscsiprovider nowritecache comstar_tg comstar_hg lio_tpg
    zfs-base-path datastore fingerprint encryption-key master-pubkey skip-cert-verification
    maxfiles redundancy transport volume server2
    """.split()
)
"""Properties that PVE has, in any of its releases (contract 1.4)."""

GRACE_SECONDS: Final = 0.3
"""How much longer the shim waits than the server takes: only a stuck interpreter needs that."""

PVE_FORMATS: Final = frozenset({"raw", "qcow2", "vmdk", "subvol"})
_BACKUP_ONLY: Final = frozenset({"prune-backups", "max-protected-backups"})
_CONCURRENCY: Final = ("parallel", "per-storage", "serial")

Plugin = type[StoragePlugin[Any]]


def build(
    plugin: Plugin, location: str | None = None, interpreter: str | None = None
) -> dict[str, object]:
    """The manifest of *plugin* as plain data; StorageError says what PVE would choke on.

    *location* (a file or module) and *interpreter* are for ``pve-pybridge serve --type``.
    """
    check(plugin)
    options = _options(plugin)
    served = {}
    if location is not None:
        served["plugin"] = check_location(location)
    if interpreter is not None:
        served["interpreter"] = check_interpreter(interpreter)
    return {
        "manifest": MANIFEST_VERSION,
        "wire": WIRE_VERSION,
        "table": TABLE_VERSION,
        "type": plugin.type,
        **served,
        "shared": plugin.shared,
        "content": [[*plugin.content, "none"], list(_default_content(plugin))],
        "formats": [list(plugin.formats), plugin.formats[0]],
        "properties": {
            item.property: _property(item) for item in options if item.option.builtin is None
        },
        "options": {item.property: _flags(item) for item in options},
        "sensitive": sorted(item.property for item in options if item.option.secret),
        "names": [
            {"vtype": name.vtype, "pattern": name.pattern, "format": name.format}
            for name in plugin.names
        ],
        "rules": {
            method: [[dict(rule.when), rule.answer] for rule in rules]
            for method, rules in plugin.static_rules().items()
        },
        "methods": _methods(plugin),
    }


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What of the facts PVE holds is different in a newer manifest, in words."""
    found = []
    for key in sorted(set(old) | set(new)):
        before, after = (
            _by_name(facts) if key == "methods" else facts.get(key) for facts in (old, new)
        )
        if before == after:
            continue
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            words = {"new": set(after) - set(before), "gone": set(before) - set(after)}
            words["changed"] = {k for k in set(before) & set(after) if before[k] != after[k]}
            what = [f"{word} {', '.join(sorted(names))}" for word, names in words.items() if names]
            found.append(f"{key} ({'; '.join(what)})")
        else:
            found.append(key)
    return found


def _by_name(manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    """All methods with what is said of them, whatever the kind of call."""
    methods = manifest.get("methods", {})
    return {name: (call, row) for call, rows in methods.items() for name, row in rows.items()}


def refuse_new_requirements(old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """A required option can't be added later: sections without it would disturb PVE (T-02)."""
    known = old.get("options")
    if not isinstance(known, Mapping):
        return
    required = [
        name
        for name, flags in new["options"].items()
        if not flags.get("optional") and known.get(name, {"optional": 1}).get("optional")
    ]
    if required:
        raise StorageError(
            f"option '{required[0]}' is required, but wasn't before: PVE could read no storage.cfg "
            f"with an older '{new['type']}' section, and show no storage at all; give it a default"
        )


def check(plugin: Plugin) -> None:
    """Refuse what would break a PVE node, naming the class and what to write instead."""
    where = plugin.__name__
    type_ = getattr(plugin, "type", None)
    if not isinstance(type_, str) or not re.fullmatch(r"[a-z][a-z0-9-]*[a-z0-9]", type_):
        _refuse(where, f"type {type_!r} must be lower case letters, digits and dashes")
    if type_ in PVE_TYPES:
        _refuse(where, f"type '{type_}' is PVE's own; choose another name")
    _check_facts(plugin, where)
    for method in plugin.static_rules():
        if method not in METHODS or METHODS[method].absent != "static":
            _refuse(where, f"rules for '{method}': not a method that can be answered statically")
    _check_options(plugin, where)
    for method in plugin.missing():
        _refuse(where, advice.missing(plugin, method))
    for problem in advice.problems(plugin):
        _refuse(where, problem)


def _check_options(plugin: Plugin, where: str) -> None:
    """A property that nobody defines would be left out by the shim, or end PVE (T-01)."""
    try:
        options = _options(plugin)
        for item in options:
            if item.option.builtin is None:
                schema_type(item.kind)
    except StorageError as err:
        _refuse(where, str(err))
    for item in options:
        if item.option.builtin is not None and item.property not in PVE_PROPERTIES:
            _refuse(
                where,
                f"PVE has no property '{item.property}', so hosts would leave the option out; "
                f"{item.field} = option(…) makes it '{plugin.type}-{item.field.replace('_', '-')}'",
            )


def _check_facts(plugin: Plugin, where: str) -> None:
    for content in plugin.content:
        if content not in CONTENT_TYPES:
            _refuse(where, f"unknown content type '{content}'")
    for format_ in plugin.formats:
        if format_ not in PVE_FORMATS:
            _refuse(where, f"unknown image format '{format_}'; PVE knows {sorted(PVE_FORMATS)}")
    if not plugin.formats:
        _refuse(where, "formats must name at least one format")
    if plugin.concurrency not in _CONCURRENCY:
        _refuse(where, f"concurrency must be one of {', '.join(_CONCURRENCY)}")
    for pattern in plugin.names:
        try:
            groups = re.compile(pattern.pattern).groupindex
        except re.error as err:
            _refuse(where, f"name pattern {pattern.pattern!r} is no regular expression: {err}")
        if "name" not in groups:
            _refuse(where, f"name pattern {pattern.pattern!r} has no group (?P<name>…)")


def _refuse(where: str, what: str) -> NoReturn:
    raise StorageError(f"plugin {where}: {what}")


def _default_content(plugin: Plugin) -> tuple[str, ...]:
    chosen = plugin.content if plugin.default_content is None else plugin.default_content
    return tuple(chosen) or ("none",)


def _options(plugin: Plugin) -> list[ConfigField]:
    """The options PVE shall accept: retention only where there are backups."""
    found = options_of(config_class(plugin), plugin.type)
    return [
        item
        for item in found
        if not (item.property in _BACKUP_ONLY and "backup" not in plugin.content)
    ]


def _property(item: ConfigField) -> dict[str, object]:
    schema = {**schema_type(item.kind), **item.option.schema}
    if item.default is not None and not item.option.secret:
        schema.setdefault("default", _default(item.default))
    return schema


def _default(value: object) -> object:
    return int(value) if isinstance(value, bool) else value


def _flags(item: ConfigField) -> dict[str, int]:
    flags = {} if item.required else {"optional": 1}
    return {**flags, "fixed": 1} if item.option.fixed else flags


def call_of(manifest: Mapping[str, Any], method: str) -> str:
    """One of CALLS; ``inherit``: PVE's base method answers."""
    methods = manifest["methods"]
    if manifest["manifest"] == 1:
        return str(methods[method]["call"]) if method in methods else "inherit"
    return next((call for call in CALLS if method in methods.get(call, ())), "inherit")


def _methods(plugin: Plugin) -> dict[str, dict[str, str]]:
    """How the shim answers, and the row of each method: ``context result key=value… args…``."""
    found: dict[str, dict[str, str]] = {call: {} for call in CALLS}
    for row in METHODS.values():
        if row.name in LOCAL:
            continue
        if _forwarded(plugin, row.name):
            found["forward"][row.name] = _row(row, *_limits(plugin, row))
        elif row.absent == "static":
            found["static"][row.name] = _row(row)
        elif row.absent == "refuse" and row.name != "free_image_cleanup":
            found["refuse"][row.name] = ""
    return found


def _forwarded(plugin: Plugin, method: str) -> bool:
    hooks = ("on_add_hook", "on_update_hook", "on_update_hook_full", "on_delete_hook")
    if method in hooks and any(item.option.secret for item in _options(plugin)):
        return True  # the host stores the secrets
    if method == "on_update_hook":
        return implemented(plugin, "on_update_hook_full")
    if method == "parse_volname":
        return False  # pure, without storage: always from ``names`` (C-015)
    return implemented(plugin, method)


def _limits(plugin: Plugin, row: Method) -> Iterator[str]:
    if row.retry:
        yield "retry=1"
    limit = plugin.deadlines.get(row.name, row.limit)
    if limit is not None:
        yield f"deadline={limit + GRACE_SECONDS:.10g}"


def _row(row: Method, *more: str) -> str:
    args = [arg.name if arg.name == arg.type else f"{arg.name}:{arg.type}" for arg in row.args]
    return " ".join([row.context, row.result, *more, *args])
