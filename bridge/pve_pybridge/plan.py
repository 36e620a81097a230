# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""What can be decided about a plugin's method before anybody calls it.

The host makes one ``Plan`` per method, from its row in the method table and from the plugin, and a
call then only walks it: which arguments, how each becomes Python's, what the method takes of them,
how its answer becomes PVE's.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NoReturn

from . import advice
from .coerce import ARGUMENTS, FILLED
from .errors import StorageError
from .methods import METHODS, Arg, Method
from .model import Cleanup, Hints
from .plugin import StoragePlugin, implemented
from .results import RESULTS, RESULTS_OF_STORAGE, nested, raw, volumes
from .storage import Storage

Encoder = Callable[[Any, Storage[Any]], object]

_MAYBE_NONE: Final = frozenset({"map_volume", "volume_import"})
"""Methods that may leave the name they are asked for to PVE."""


class WrongAnswer(TypeError):
    """A plugin returned something that PVE can't use; the text says what and what instead."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One method of one plugin."""

    row: Method
    method: Any
    implemented: bool
    arguments: tuple[tuple[bytes, str, Callable[[object], Any], Callable[[], Any]], ...]
    """Name as Perl sends it and as it is, conversion, and what it is when it didn't come."""
    descriptors: tuple[str, ...]
    """Arguments that came as the call's descriptor."""
    accepted: frozenset[str] | None
    """Arguments the method takes when there are others, as it was written for an older table."""
    in_parts: bool
    """Whether the answer may be long, and is sent while it is made."""
    encode: Encoder
    """The answer in PVE's form; TypeError or ValueError says what is wrong with it."""

    def keywords(self, args: Mapping[Any, Any], storage: Storage[Any]) -> dict[str, Any]:
        """The keyword arguments of a call, typed by its row; StorageError names a wrong one."""
        kwargs: dict[str, Any] = {}
        name = ""
        try:
            for key, name, convert, instead in self.arguments:
                value = args.get(key)
                if value is None:
                    value = args.get(name)
                kwargs[name] = instead() if value is None else convert(value)
        except ValueError as err:
            raise StorageError(f"{self.row.name}: argument '{name}' {err}") from None
        for name in self.descriptors:
            kwargs[name] = storage.call.fd
        if "hints" in kwargs:
            kwargs["hints"] = Hints(kwargs["hints"], storage.call.host)
        if "volname" in kwargs:
            storage.call.volname = kwargs["volname"]
        return kwargs

    def answer(self, value: object, storage: Storage[Any]) -> object:
        """The answer for the wire; WrongAnswer says what PVE would have done with it."""
        try:
            return self.encode(value, storage)
        except (TypeError, ValueError) as err:
            raise WrongAnswer(advice.wrong_answer(self.row, value, err)) from None


def plan_of(plugin: StoragePlugin[Any], name: str) -> Plan:
    """The plan of a method of the table; KeyError for any other name."""
    row = METHODS[name]
    method = getattr(plugin, name, None)  # on_update_hook: the SDK has only the newer form
    wire = [arg for arg in row.args if arg.on_wire and arg.name != "scfg"]
    descriptors = tuple(arg.name for arg in row.args if arg.type == "fd")
    return Plan(
        row=row,
        method=method,
        implemented=implemented(type(plugin), name),
        arguments=tuple(
            (arg.name.encode(), arg.name, ARGUMENTS[arg.type], _instead(name, arg)) for arg in wire
        ),
        descriptors=descriptors,
        accepted=_accepted(row, method) if method else None,
        in_parts=row.result == "volumes",
        encode=_encoder(plugin, row),
    )


def _instead(method: str, arg: Arg) -> Callable[[], Any]:
    if arg.type in FILLED:
        return partial(ARGUMENTS[arg.type], None)
    if arg.optional:
        return _nothing
    return partial(_refuse, f"{method}: argument '{arg.name}' is missing")


def _nothing() -> None:
    return None


def _refuse(message: str) -> NoReturn:
    raise StorageError(message)


def _accepted(row: Method, method: Callable[..., Any]) -> frozenset[str] | None:
    parameters = inspect.signature(method).parameters
    known = frozenset(parameters)
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return None
    return None if known >= {arg.name for arg in row.args if arg.on_wire} else known


def _encoder(plugin: StoragePlugin[Any], row: Method) -> Encoder:
    if row.result == "path":
        return _path_of(plugin)
    if row.result == "cleanup":
        return lambda value, storage: _cleanup(value)
    if row.result == "volumes":
        return _volumes
    of_value = RESULTS.get(row.result)

    def encode(value: object, storage: Storage[Any]) -> object:
        if of_value:
            return of_value(value)
        return RESULTS_OF_STORAGE[row.result](value, storage.storeid)

    if row.result not in ("str", "volid") or row.name in _MAYBE_NONE:
        return encode

    def named(value: object, storage: Storage[Any]) -> object:
        """PVE would take undef for an empty name; where None is an answer, the SDK says so."""
        if value is None:
            raise TypeError("must be str, not NoneType")
        return encode(value, storage)

    return named


def _path_of(plugin: StoragePlugin[Any]) -> Encoder:
    def encode(value: object, storage: Storage[Any]) -> list[object]:
        """PVE's (path, owner, vtype): the plugin says where, the name says whose and what."""
        name = plugin.parse_volname(storage.call.volname)
        if not isinstance(value, str):
            raise TypeError(f"must be str, not {type(value).__name__}")
        return [raw(value), name.vmid, name.vtype]

    return encode


def _volumes(value: object, storage: Storage[Any]) -> object:
    return volumes(value, storage.storeid, storage.call.part if storage.call.in_parts else None)


def _cleanup(value: object) -> dict[str, object] | None:
    """Cleanup for later as plain data; the shim makes PVE's code ref of it (V5)."""
    if value is None:
        return None
    if not isinstance(value, Cleanup):
        raise TypeError(f"must be Cleanup or None, not {type(value).__name__}")
    return {"data": nested(value.data)}
