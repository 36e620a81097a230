# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""What arrives, by declared type (D9); ``results`` is the way back.

Perl's scalars don't know whether they are numbers and its strings don't know whether they are
text, so nothing is ever guessed from what arrives: the method table says what a value is.
Strings come as bytes and may hold anything (paths, V16).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from .errors import StorageError


def text(value: object) -> str:
    """A wire string as Python text; bytes that are no UTF-8 survive as surrogates."""
    if type(value) is bytes:
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value.decode("utf-8", "surrogateescape")
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, float):
        return f"{value:.15g}"  # as Perl spells it
    raise ValueError(f"must be a string, not {_kind(value)}")


def integer(value: object) -> int:
    """An integer, however Perl happened to hold it: 5, "5" or 5.0 (V11, V12)."""
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bytes | str):
        try:
            return int(text(value))
        except ValueError:
            pass
    raise ValueError(f"must be an integer, not {_shown(value)}")


def number(value: object) -> float:
    """A number, integral or not."""
    try:
        return float(text(value))
    except ValueError:
        raise ValueError(f"must be a number, not {_shown(value)}") from None


def truth(value: object) -> bool:
    """Perl's truth: undef, 0, "0" and "" are false."""
    return value not in (None, 0, "", "0", b"", b"0", False)


def plain(value: object) -> Any:
    """Any nested value with its strings made text."""
    if type(value) is bytes:
        return value.decode("utf-8", "surrogateescape")
    if type(value) is dict:
        return _map(value)
    if type(value) is list:
        return [plain(item) for item in value]
    return value


def _map(value: dict[object, object]) -> dict[str, Any]:
    # A loop: in Python 3.11 a comprehension is a call, which takes as long as a map of two.
    found: dict[str, Any] = {}
    for key, item in value.items():
        found[_names.get(key) or _name(key)] = item if item.__class__ is int else plain(item)
    return found


def _name(key: object) -> str:
    name = text(key)
    if type(key) is bytes and len(_names) < _MAX_NAMES:
        _names[key] = name
    return name


_names: dict[object, str] = {}
"""Keys that came before, as text: hints and properties come with each call."""
_MAX_NAMES: Final = 1000


def mapping(value: object) -> dict[str, Any]:
    """A hash with text keys; undef is an empty one."""
    if type(value) is dict:
        return _map(value)
    if value is None:
        return {}
    raise ValueError(f"must be a map, not {_kind(value)}")


_FLAGS: Final = {"0": 0, "1": 1, "": 0}


def _integers(value: object) -> dict[str, int]:
    result = {}
    for key, item in mapping(value).items():
        try:
            if item is not None:
                result[key] = integer(item)
        except ValueError as err:
            raise ValueError(f"holds '{key}', which {err}") from None
    return result


def _hints(value: object) -> dict[str, Any]:
    """A map in which Perl's "0" is false and "1" true, as in its integers (V9)."""
    given = _map(value) if type(value) is dict else mapping(value)
    if str in map(type, given.values()):
        for key, item in given.items():
            if type(item) is str:
                given[key] = _FLAGS.get(item, item)
    return given


def strings(value: object) -> list[str]:
    """A list of strings."""
    if not isinstance(value, list):
        raise ValueError(f"must be a list, not {_kind(value)}")
    return [text(item) for item in value]


def _snapshots(value: object) -> bool | list[str]:
    return strings(value) if isinstance(value, list) else truth(value)


def _size(value: object) -> int:
    size = integer(value)
    if size < 0:
        raise ValueError(f"must not be negative, not {size}")
    return size


ARGUMENTS: Final[dict[str, Callable[[object], Any]]] = {
    "str": text,
    "text": text,
    "int": integer,
    "number": number,
    "bool": truth,
    "kib": _size,
    "map": mapping,
    "mutable": mapping,
    "slurpy": mapping,
    "hints": _hints,
    "intmap": _integers,
    "strlist": strings,
    "snapshots": _snapshots,
}
"""Argument type of the method table → how its value becomes Python's."""

FILLED: Final = frozenset({"bool", "map", "slurpy", "hints", "snapshots"})
"""Types for which undef has a Python value of its own (False, an empty map)."""


def argument(type_: str, name: str, value: object) -> Any:
    """One argument by its declared type; StorageError names it when it doesn't fit."""
    try:
        return ARGUMENTS[type_](value)
    except ValueError as err:
        raise StorageError(f"'{name}' {err}") from None


def _kind(value: object) -> str:
    names: dict[type, str] = {
        dict: "a map",
        list: "a list",
        type(None): "undef",
        bytes: "a string",
        str: "a string",
        int: "a number",
        float: "a number",
    }
    return names.get(type(value), type(value).__name__)


def _shown(value: object) -> str:
    return repr(text(value)) if isinstance(value, bytes | str | int | float) else _kind(value)
