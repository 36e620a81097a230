# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Typed storage configuration: a dataclass that is also the schema PVE sees.

A plugin's configuration class names its options once; the manifest derives PVE's ``properties()``
and ``options()`` from it, and every call gets an instance made from the storage.cfg section.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, Self, TypeVar, Union

from .errors import StorageError

_TRUE_FALSE: Final = {"1": True, "0": False, "": False, "yes": True, "no": False}


class Secret(str):
    """A secret's text, used like any str; printed, formatted or logged it is ``***``.

    Joining (``"Bearer " + secret``), encoding and writing use the real text.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "Secret('***')"

    def __str__(self) -> str:
        return "***"

    def __format__(self, spec: str) -> str:
        return "***"


class Option(NamedTuple):
    """What one configuration field means to PVE; made by ``option``, ``builtin`` and ``secret``."""

    schema: Mapping[str, object]
    fixed: bool = False
    builtin: str | None = None
    secret: bool = False


def option(
    description: str,
    *,
    default: object = dataclasses.MISSING,
    fixed: bool = False,
    **schema: object,
) -> Any:
    """A property of this plugin, called ``<type>-<field>`` in storage.cfg.

    Without *default* it is required: only possible in a plugin's first release (T-02).  *fixed*
    can be set at creation only.  *schema* takes PVE's JSON schema words: minimum, maximum,
    minLength, maxLength, pattern, format.
    """
    meta = Option({"description": description, **schema}, fixed=fixed)
    return dataclasses.field(default=default, metadata={"option": meta})


def builtin(
    name: str | None = None, *, default: object = dataclasses.MISSING, fixed: bool = False
) -> Any:
    """A property that PVE itself owns (``path``, ``content-dirs`` …), by its own name."""
    meta = Option({}, fixed=fixed, builtin=name or "")
    return dataclasses.field(default=default, metadata={"option": meta})


def secret(description: str, *, builtin: str | None = None) -> Any:
    """A sensitive property: kept in /etc/pve/priv, never in storage.cfg.  Always optional.

    *builtin* reuses one of PVE's four (password, encryption-key, master-pubkey, keyring), the only
    ones that hosts before APIVER 11 treat as sensitive.  Read it with ``storage.secret(field)``.
    """
    meta = Option({"description": description}, builtin=builtin, secret=True)
    return dataclasses.field(default=None, metadata={"option": meta})


@dataclass(frozen=True, kw_only=True)
class StorageConfig:
    """The storage.cfg section of one storage.  Subclass it with the options of your plugin."""

    content: frozenset[str] = builtin(default=frozenset())
    nodes: frozenset[str] | None = builtin(default=None)
    shared: bool = builtin(default=False)
    disable: bool = builtin(default=False)
    bwlimit: str | None = builtin(default=None)
    prune_backups: str | None = builtin(default=None)
    max_protected_backups: int | None = builtin(default=None)

    @classmethod
    def from_scfg(cls, storeid: str, type_: str, scfg: Mapping[str, object]) -> Self:
        """The typed form of PVE's ``$scfg``; StorageError names the property that doesn't fit."""
        values: dict[str, Any] = {}
        for item in options_of(cls, type_):
            raw = scfg.get(item.property)
            if item.option.secret:
                continue
            if raw is None:
                if item.required:
                    raise StorageError(
                        f"storage '{storeid}': property '{item.property}' is missing"
                    )
                continue
            try:
                values[item.field] = _coerce(item.kind, raw)
            except ValueError as err:
                raise StorageError(
                    f"storage '{storeid}': property '{item.property}' {err}"
                ) from None
        return cls(**values)


ConfigT = TypeVar("ConfigT", bound=StorageConfig)


class ConfigField(NamedTuple):
    """One field of a configuration class as PVE sees it: property name, kind, requiredness."""

    field: str
    property: str
    kind: object
    option: Option
    required: bool
    default: object


def options_of(config: type[StorageConfig], type_: str) -> list[ConfigField]:
    """The fields of *config* with the property names they have for storage type *type_*."""
    cached = _CACHE.get((config, type_))
    if cached is None:
        cached = _CACHE[config, type_] = _options_of(config, type_)
    return cached


_CACHE: Final[dict[tuple[type[StorageConfig], str], list[ConfigField]]] = {}


def _options_of(config: type[StorageConfig], type_: str) -> list[ConfigField]:
    _check_decorated(config)
    try:
        hints = typing.get_type_hints(config)
    except (NameError, TypeError) as err:
        raise StorageError(
            f"the types of {config.__name__}'s options can't be read: {err}"
        ) from None
    found = []
    for field in dataclasses.fields(config):
        meta = field.metadata.get("option")
        if meta is None:
            raise StorageError(
                f"{config.__name__}.{field.name} has no description for PVE, which would refuse "
                f"it in storage.cfg: write {field.name}: … = option('what it is'), or secret()"
            )
        dashed = field.name.replace("_", "-")
        name = f"{type_}-{dashed}" if meta.builtin is None else meta.builtin or dashed
        required = field.default is dataclasses.MISSING
        default = None if required else field.default
        kind = _strip_none(hints[field.name])
        found.append(ConfigField(field.name, name, kind, meta, required, default))
    return found


def _check_decorated(config: type[StorageConfig]) -> None:
    for cls in config.__mro__:
        lost = [name for name, item in vars(cls).items() if isinstance(item, dataclasses.Field)]
        if lost and "__dataclass_fields__" not in vars(cls):
            raise StorageError(
                f"class {cls.__name__} is no dataclass, so PVE would know nothing of '{lost[0]}': "
                "write @dataclass(frozen=True, kw_only=True) above it"
            )


def _strip_none(hint: Any) -> object:
    if typing.get_origin(hint) in (Union, types.UnionType):
        rest = [arg for arg in typing.get_args(hint) if arg is not type(None)]
        if len(rest) == 1:
            return rest[0]
    return hint


def schema_type(kind: object) -> dict[str, object]:
    """The JSON schema words for a field's Python type; StorageError when PVE has none for it."""
    if typing.get_origin(kind) is Literal:
        return {"type": "string", "enum": list(typing.get_args(kind))}
    if typing.get_origin(kind) is list:
        return {"type": "array", "items": schema_type(typing.get_args(kind)[0])}
    names = {str: "string", Secret: "string", bool: "boolean", int: "integer", float: "number"}
    if isinstance(kind, type) and kind in names:
        return {"type": names[kind]}
    raise StorageError(
        f"PVE has no property type for {kind}; use str, int, float, bool, Literal or list"
    )


def _coerce(kind: Any, raw: object) -> object:
    origin = typing.get_origin(kind)
    if origin is frozenset:
        return (
            frozenset(str(key) for key, on in raw.items() if on)
            if _is_map(raw)
            else _bad(raw, "a set")
        )
    if origin is dict:
        return {str(k): str(v) for k, v in raw.items()} if _is_map(raw) else _bad(raw, "a map")
    if origin is list:
        items = raw if isinstance(raw, list) else [raw]
        return [_coerce(typing.get_args(kind)[0], item) for item in items]
    if origin is Literal:
        allowed = typing.get_args(kind)
        return raw if raw in allowed else _bad(raw, "one of " + ", ".join(map(str, allowed)))
    if isinstance(raw, Mapping | list):
        return _bad(raw, "a single value")
    return _scalar(kind, raw)


def _scalar(kind: Any, raw: object) -> object:
    text = str(raw)
    if kind is bool:
        return (
            raw
            if isinstance(raw, bool)
            else _TRUE_FALSE.get(text, None)
            if text in _TRUE_FALSE
            else _bad(raw, "0 or 1")
        )
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            return _bad(raw, "an integer" if kind is int else "a number")
    return text


def _is_map(raw: object) -> typing.TypeGuard[Mapping[object, object]]:
    return isinstance(raw, Mapping)


def _bad(raw: object, wanted: str) -> typing.NoReturn:
    raise ValueError(f"must be {wanted}, not {raw!r}")
