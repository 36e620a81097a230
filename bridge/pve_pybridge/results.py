# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""What a plugin answers, in PVE's form and by declared type (D9); ``coerce`` is the way in.

Text leaves as msgpack *str*, which Perl reads as characters; everything else that isn't ASCII as
*bin*, which Perl reads as bytes.  A ``TypeError`` says what the plugin should have returned.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
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
    sizes = [_bytes(name, getattr(value, name)) for name in ("total", "avail", "used")]
    return [*sizes, _bool(value.active)]


def _sizeinfo(value: object) -> list[object]:
    if not isinstance(value, VolumeSize):
        raise TypeError(f"must be VolumeSize, not {type(value).__name__}")
    return [_bytes("size", value.size), value.format, value.used, raw(value.parent), value.ctime]


_FIELDS: Final = tuple(field.name for field in fields(Volume) if field.name != "volname")
_VALUES: Final = attrgetter("volname", *_FIELDS)
_TEXT_FIELDS: Final = frozenset({"notes"})
_INT_FIELDS: Final = frozenset({"size", "approximate_size", "vmid", "used", "ctime"})
_SIMPLE: Final[dict[tuple[type, ...], tuple[tuple[int, str], ...]]] = {}
"""Types of a volume's values → place and key of those that go as they are, when all of them do."""


def _volumes(value: object, storeid: str) -> list[dict[str, object]]:
    """Rows in PVE's form: ``volid`` with the storage ID, absent keys for what isn't known.

    The volumes of one list are mostly alike, so a look at the types of all values decides at once
    (1.6 µs a row) what a look at each value would (2.7 µs); a storage may have 100,000 of them.
    """
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise TypeError(f"must be a list of Volume, not {type(value).__name__}")
    rows = []
    for volume in value:
        if not isinstance(volume, Volume):
            raise TypeError(f"must be a list of Volume, but holds {type(volume).__name__}")
        values = _VALUES(volume)
        simple = _SIMPLE.get(tuple(map(type, values)))
        volid = f"{storeid}:{values[0]}"
        if simple is None or not volid.isascii():
            rows.append(_row(volume, storeid))
            continue
        row: dict[str, object] = {"volid": volid}
        for at, key in simple:
            row[key] = values[at]
        rows.append(row)
    return rows


def _row(volume: Volume, storeid: str) -> dict[str, object]:
    """One row, looked at value by value; remembers whether its kind is a simple one."""
    row: dict[str, object] = {"volid": raw(f"{storeid}:{_checked(volume.volname)}")}
    simple = True
    for name in _FIELDS:
        item = getattr(volume, name)
        if item is None:
            continue
        if name in _INT_FIELDS and not isinstance(item, int):
            what = f"'{name}' of '{volume.volname}'"
            raise TypeError(f"{what} must be int, not {type(item).__name__}")
        key = name.replace("_", "-")
        simple = simple and (type(item) is int or name == "format")
        if isinstance(item, str):
            row[key] = item if name in _TEXT_FIELDS else raw(item)
        elif isinstance(item, bool | int):
            row[key] = int(item)
        else:  # to_json knows no msgpack booleans (V10)
            inner = nested(item)
            row[key] = {k: int(v) if isinstance(v, bool) else v for k, v in inner.items()}
    if simple and volume.format.isascii():
        values = _VALUES(volume)
        kinds = tuple(map(type, values))
        named = enumerate(("", *_FIELDS))
        _SIMPLE[kinds] = tuple(
            (at, name.replace("_", "-")) for at, name in named if at and values[at] is not None
        )
    return row


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
