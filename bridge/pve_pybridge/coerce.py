# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Values by declared type, in both directions (D9).

Perl's scalars don't know whether they are numbers and its strings don't know whether they are
text, so nothing is ever guessed from what arrives: the method table says what a value is.
Strings come as bytes and may hold anything (paths, V16); text leaves as msgpack *str*, which Perl
reads as characters, everything else that isn't ASCII as *bin*, which Perl reads as bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, Final

from .errors import StorageError
from .model import PruneEntry, SnapshotInfo, Status, Volume, VolumeSize


def text(value: object) -> str:
    """A wire string as Python text; bytes that are no UTF-8 survive as surrogates."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return str(int(value)) if isinstance(value, bool) else str(value)
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
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, dict):
        return {text(key): plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


def mapping(value: object) -> dict[str, Any]:
    """A hash with text keys; undef is an empty one."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError(f"must be a map, not {_kind(value)}")
    result: dict[str, Any] = plain(value)
    return result


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
    flags = {"0": 0, "1": 1, "": 0}
    given = mapping(value)
    return {k: flags.get(v, v) if isinstance(v, str) else v for k, v in given.items()}


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


def raw(value: object) -> object:
    """A Python string for Perl as bytes; ASCII needs no distinction."""
    if isinstance(value, str) and not value.isascii():
        return value.encode("utf-8", "surrogateescape")
    return value


def _str(value: object) -> object:
    if not isinstance(value, str):
        raise TypeError(f"must be str, not {type(value).__name__}")
    return raw(value)


def _optional_str(value: object) -> object:
    return None if value is None else _str(value)


def _true(value: object) -> int:
    return 1


def _none(value: object) -> None:
    return None


def _bool(value: object) -> int:
    return 1 if value else 0


def nested(value: object) -> Any:
    """A nested answer; booleans stay booleans, strings become bytes where they must."""
    if value is None or isinstance(value, bool | int | float | bytes):
        return value
    if isinstance(value, str):
        return raw(value)
    if isinstance(value, Mapping):
        return {_str(key): nested(item) for key, item in value.items()}
    if isinstance(value, Sequence | set | frozenset):
        return [nested(item) for item in value]
    raise TypeError(f"can't be sent to PVE: {type(value).__name__}")


def _map(value: object) -> Any:
    if not isinstance(value, Mapping):
        raise TypeError(f"must be a mapping, not {type(value).__name__}")
    return nested(value)


def _hook(value: object) -> Any:
    return None if value is None else _map(value)


def _status(value: object) -> list[int] | None:
    if value is None:
        return None
    if not isinstance(value, Status):
        raise TypeError(f"must be Status or None, not {type(value).__name__}")
    return [int(value.total), int(value.avail), int(value.used), _bool(value.active)]


def _sizeinfo(value: object) -> list[object]:
    if not isinstance(value, VolumeSize):
        raise TypeError(f"must be VolumeSize, not {type(value).__name__}")
    return [int(value.size), value.format, value.used, raw(value.parent), value.ctime]


_VOLUME_FIELDS: Final = tuple(
    (field.name, field.name.replace("_", "-") if field.name == "approximate_size" else field.name)
    for field in fields(Volume)
    if field.name != "volname"
)
_TEXT_FIELDS: Final = frozenset({"notes"})
_INT_FIELDS: Final = frozenset({"size", "approximate_size", "vmid", "used", "ctime"})


def _volumes(value: object, storeid: str) -> list[dict[str, object]]:
    """Rows in PVE's form: ``volid`` with the storage ID, absent keys for what isn't known."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise TypeError(f"must be a list of Volume, not {type(value).__name__}")
    rows = []
    for volume in value:
        if not isinstance(volume, Volume):
            raise TypeError(f"must be a list of Volume, but holds {type(volume).__name__}")
        row: dict[str, object] = {"volid": raw(f"{storeid}:{_checked(volume.volname)}")}
        for name, key in _VOLUME_FIELDS:
            item = getattr(volume, name)
            if item is None:
                continue
            if name in _INT_FIELDS and not isinstance(item, int):
                what = f"'{name}' of '{volume.volname}'"
                raise TypeError(f"{what} must be int, not {type(item).__name__}")
            if isinstance(item, str):
                row[key] = item if name in _TEXT_FIELDS else raw(item)
            elif isinstance(item, bool | int):
                row[key] = int(item)
            else:  # to_json knows no msgpack booleans (V10)
                inner = nested(item)
                row[key] = {k: int(v) if isinstance(v, bool) else v for k, v in inner.items()}
        rows.append(row)
    return rows


def _snapinfo(value: object, storeid: str) -> dict[str, dict[str, object]]:
    if not isinstance(value, Mapping):
        raise TypeError(f"must be a mapping of SnapshotInfo, not {type(value).__name__}")
    answer: dict[str, dict[str, object]] = {}
    for name, info in value.items():
        if not isinstance(info, SnapshotInfo):
            raise TypeError(f"must be a mapping of SnapshotInfo, but holds {type(info).__name__}")
        entry = {field.name.replace("_", "-"): getattr(info, field.name) for field in fields(info)}
        answer[name] = {key: raw(item) for key, item in entry.items() if item is not None}
        if info.volname is not None:
            answer[name] |= {"volid": raw(f"{storeid}:{info.volname}")}
    return answer


def _prune(value: object, storeid: str) -> list[dict[str, object]]:
    if not isinstance(value, Sequence):
        raise TypeError(f"must be a list of PruneEntry, not {type(value).__name__}")
    rows = []
    for entry in value:
        if not isinstance(entry, PruneEntry):
            raise TypeError(f"must be a list of PruneEntry, but holds {type(entry).__name__}")
        row = {"volid": raw(f"{storeid}:{entry.volname}"), "ctime": int(entry.ctime)}
        row |= {"type": entry.type, "mark": entry.mark}
        rows.append(row if entry.vmid is None else row | {"vmid": int(entry.vmid)})
    return rows


def _formats(value: object) -> dict[str, object]:
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise TypeError("must be a list of formats, the default one first")
    return {"default": value[0], "valid": dict.fromkeys(value, 1)}


def _strlist(value: object) -> list[object]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise TypeError(f"must be a list of str, not {type(value).__name__}")
    return [_str(item) for item in value]


def _attribute(value: object) -> object:
    """Notes are text for people, so they travel as characters."""
    if value is None or isinstance(value, str):
        return value
    return int(value) if isinstance(value, bool | int) else _str(value)


RESULTS: Final[dict[str, Callable[[object], Any]]] = {
    "none": _none,
    "true": _true,
    "bool": _bool,
    "str": _optional_str,
    "map": _map,
    "hook": _hook,
    "status": _status,
    "sizeinfo": _sizeinfo,
    "formats": _formats,
    "strlist": _strlist,
    "blockdev": _map,
    "attribute": _attribute,
}
"""Result type → PVE's form, for results that need nothing but the value."""

RESULTS_OF_STORAGE: Final[dict[str, Callable[[object, str], Any]]] = {
    "volumes": _volumes,
    "prune": _prune,
    "snapinfo": _snapinfo,
    "volid": lambda value, storeid: None if value is None else raw(f"{storeid}:{_checked(value)}"),
}
"""Result types whose answer carries the storage ID."""


def _checked(value: object) -> object:
    _str(value)
    return value


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
