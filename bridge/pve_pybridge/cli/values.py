# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""``name=value`` words of the shell as arguments of a method, typed by its row in the method table.

A wrong word is answered by one line that names the method's arguments and their types.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NoReturn

from ..coerce import FILLED, argument
from ..errors import StorageError
from ..methods import METHODS, Arg, Method

_UNITS: Final = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5}
_TRUTH: Final = {
    **dict.fromkeys(("1", "yes", "true", "on"), True),
    **dict.fromkeys(("0", "no", "false", "off", ""), False),
}
_MAPS: Final = frozenset({"map", "mutable", "slurpy", "hints", "intmap"})
SHOWN: Final = {
    "str": "TEXT",
    "text": "TEXT",
    "int": "NUMBER",
    "number": "NUMBER",
    "bool": "0|1",
    "kib": "BYTES (1G works)",
    "strlist": "A,B,…",
    "snapshots": "0|1|A,B,…",
    "fd": "FILE",
}
"""Argument type → what the shell is told of it."""


def row_of(method: str) -> Method:
    """A method's row; StorageError names those that sound like it."""
    row = METHODS.get(method)
    if row is None:
        words = set(method.split("_"))
        alike = [
            name for name in METHODS if len(words & set(name.split("_"))) >= min(2, len(words))
        ]
        alike = difflib.get_close_matches(method, METHODS, 3, 0.8) or alike
        near = f"did you mean {', '.join(alike[:4])}?" if alike else "docs/methods.md has them all"
        raise StorageError(f"there is no method '{method}'; {near}")
    return row


def usage(row: Method) -> str:
    """The arguments of a method as one line."""
    words = []
    for arg in row.args:
        if arg.type not in SHOWN and arg.type not in _MAPS:
            continue
        if arg.name == "scfg":
            continue
        plain = f"{arg.name}.NAME=VALUE …" if arg.type in _MAPS else f"{arg.name}={_shown(arg)}"
        needed = not arg.optional and arg.type not in FILLED
        words.append(plain if needed else f"[{plain}]")
    return f"{row.name} takes {' '.join(words) or 'no arguments'}"


def _shown(arg: Arg) -> str:
    return SHOWN["kib"] if arg.name == "size" else SHOWN[arg.type]


def arguments(row: Method, words: Sequence[str]) -> tuple[dict[str, Any], str | None]:
    """(arguments by name, file for the method's descriptor) of *words*."""
    known = {arg.name: arg for arg in row.args if arg.type in SHOWN or arg.type in _MAPS}
    known.pop("scfg", None)
    given: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        head, dot, key = name.partition(".")
        if not equals or head not in known:
            _wrong(row, f"'{word}' is none of its arguments")
        arg = known[head]
        if dot and arg.type not in _MAPS:
            _wrong(row, f"'{head}' has no parts")
        if dot:
            given.setdefault(head, {})[key] = _guess(value)
        elif arg.type in _MAPS:
            given.setdefault(head, {}).update(_json_map(row, head, value))
        else:
            given[head] = _one(row, arg, value)
    for arg in known.values():
        if arg.name not in given and not arg.optional and arg.type not in FILLED:
            _wrong(row, f"'{arg.name}' is missing")
    file = given.pop("fh", None)
    return {name: _checked(row, known[name], value) for name, value in given.items()}, file


def _checked(row: Method, arg: Arg, value: Any) -> Any:
    try:
        argument(arg.type, arg.name, value)
    except StorageError as err:
        _wrong(row, str(err))
    return value


def _one(row: Method, arg: Arg, value: str) -> Any:
    try:
        return _READ.get(arg.type, str)(value) if arg.name != "size" else _bytes(value)
    except ValueError:
        _wrong(row, f"'{arg.name}' can't be '{value}'")


def _bytes(value: str) -> int:
    match = re.fullmatch(r"([0-9]+)([KMGTP]?)(?:iB|B)?", value, re.IGNORECASE)
    if match is None:
        raise ValueError(value)
    return int(match[1]) << (10 * _UNITS[match[2].upper()])


def _truth(value: str) -> bool:
    if value.lower() not in _TRUTH:
        raise ValueError(value)
    return _TRUTH[value.lower()]


def _list(value: str) -> list[str]:
    return [item for item in value.split(",") if item]


def _snapshots(value: str) -> bool | list[str]:
    return _TRUTH[value.lower()] if value.lower() in _TRUTH else _list(value)


_READ: Final[Mapping[str, Callable[[str], Any]]] = {
    "int": int,
    "number": float,
    "bool": _truth,
    "kib": _bytes,
    "strlist": _list,
    "snapshots": _snapshots,
}


def _guess(value: str) -> Any:
    """A value inside of a map, which the table says nothing about: Perl's numbers are numbers."""
    return int(value) if re.fullmatch(r"-?(0|[1-9][0-9]*)", value) else value


def _json_map(row: Method, name: str, value: str) -> dict[str, Any]:
    try:
        found = json.loads(value)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        _wrong(row, f"'{name}' must be a JSON object, or write {name}.NAME=VALUE")
    return found


def _wrong(row: Method, what: str) -> NoReturn:
    raise StorageError(f"{what}: {usage(row)}")
