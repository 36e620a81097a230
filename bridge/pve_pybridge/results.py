# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""What a plugin answers, in PVE's form and by declared type (D9); ``coerce`` is the way in.

Text leaves as msgpack *str*, which Perl reads as characters; everything else that isn't ASCII as
*bin*, which Perl reads as bytes.  A ``TypeError`` says what the plugin should have returned.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from itertools import islice
from operator import attrgetter
from typing import Any, Final

from .model import PruneEntry, SnapshotInfo, Status, Volume, VolumeSize


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
    what = type(value).__name__
    raise TypeError(f"may hold only str, int, float, bool, None, lists and dicts, not {what}")


def _map(value: object) -> Any:
    if not isinstance(value, Mapping):
        raise TypeError(f"must be a mapping, not {type(value).__name__}")
    return nested(value)


def _hook(value: object) -> Any:
    return None if value is None else _map(value)


def _bytes(name: str, value: object) -> int:
    if not isinstance(value, int | float):
        raise TypeError(f"must have '{name}' in bytes, not {value!r}")
    return int(value)


def _status(value: object) -> list[int] | None:
    if value is None:
        return None
    if not isinstance(value, Status):
        raise TypeError(f"must be Status or None, not {type(value).__name__}")
    total, avail, used = value.total, value.avail, value.used
    if not type(total) is type(avail) is type(used) is int:
        total, avail = _bytes("total", total), _bytes("avail", avail)
        used = _bytes("used", used)
    return [total, avail, used, _bool(value.active)]


def _sizeinfo(value: object) -> list[object]:
    if not isinstance(value, VolumeSize):
        raise TypeError(f"must be VolumeSize, not {type(value).__name__}")
    return [_bytes("size", value.size), value.format, value.used, raw(value.parent), value.ctime]


Row = dict[str, object]
ROWS_OF_PART: Final = 512
"""So many rows take a caller a millisecond."""
_FIELDS: Final = tuple(field.name for field in fields(Volume))
_VALUES: Final = attrgetter(*_FIELDS)
_TEXT_FIELDS: Final = frozenset({"notes"})
_INT_FIELDS: Final = frozenset({"size", "approximate_size", "vmid", "used", "ctime"})


def volumes(
    value: object, storeid: str, part: Callable[[list[Row]], None] | None = None
) -> list[Row]:
    """Rows in PVE's form: ``volid`` with the storage ID, absent keys for what isn't known.

    *part* gets the rows of a long list bit by bit, so that never all of them exist here, and the
    caller reads the first ones while others are made; what is left of them is returned.
    """
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise TypeError(f"must be a list of Volume, not {type(value).__name__}")
    rows: list[Row] = []
    remaining = iter(value)
    while some := tuple(islice(remaining, ROWS_OF_PART)):
        if part is not None and rows:
            part(rows)
            rows = []
        rows += _rows(some, storeid)
    return rows


def _rows(some: Sequence[Any], storeid: str) -> list[Row]:
    """The rows of some volumes, made field by field: 0.9 µs a row, volume by volume takes 1.6."""
    for kind in set(map(type, some)):
        if not issubclass(kind, Volume):
            raise TypeError(f"must be a list of Volume, but holds {kind.__name__}")
    names, *columns = zip(*map(_VALUES, some), strict=True)
    if set(map(type, names)) != {str}:
        for name in names:
            _str(name)
    volids = _column("volname", [f"{storeid}:{name}" for name in names], names)
    rows: list[Row] = [{"volid": volid} for volid in volids]
    for field, column in zip(_FIELDS[1:], columns, strict=True):
        if column[0] is None and column.count(None) == len(column):
            continue
        key = field.replace("_", "-")
        for row, item in zip(rows, _column(field, column, names), strict=True):
            if item is not None:
                row[key] = item
    return rows


def _column(field: str, column: Sequence[Any], names: Sequence[str]) -> Sequence[object]:
    """One field of some volumes.  Mostly a look at all types at once says that it goes as it is."""
    kinds = set(map(type, column))
    if kinds == {int}:
        return column
    if kinds == {str} and field not in _INT_FIELDS and "".join(column).isascii():
        return column
    return [
        None if item is None else _item(field, item, name)
        for item, name in zip(column, names, strict=True)
    ]


def _item(field: str, value: object, volname: str) -> object:
    if field in _INT_FIELDS and not isinstance(value, int):
        raise TypeError(f"'{field}' of '{volname}' must be int, not {type(value).__name__}")
    if isinstance(value, str):
        return value if field in _TEXT_FIELDS else raw(value)
    if isinstance(value, int):
        return int(value)
    if not isinstance(value, Mapping):
        raise TypeError(f"'{field}' of '{volname}' must be plain, not {type(value).__name__}")
    # to_json knows no msgpack booleans (V10)
    return {k: int(v) if isinstance(v, bool) else v for k, v in nested(value).items()}


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
    "volumes": volumes,
    "prune": _prune,
    "snapinfo": _snapinfo,
    "volid": lambda value, storeid: None if value is None else raw(f"{storeid}:{_checked(value)}"),
}
"""Result types whose answer carries the storage ID."""


def _checked(value: object) -> object:
    _str(value)
    return value
