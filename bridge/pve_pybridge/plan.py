# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""What can be decided about a plugin's method before anybody calls it.

The host makes one ``Plan`` per method, from its row in the method table and from the plugin, and a
call then only walks it: which arguments, how each becomes Python's, what the method takes of them,
how its answer becomes PVE's.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple, NoReturn

from . import advice
from .coerce import ARGUMENTS, FILLED
from .errors import NotSupported, StorageError
from .methods import METHODS, Arg, Arguments, Method
from .model import Cleanup, Hints
from .plugin import StoragePlugin, implemented
from .results import RESULTS, RESULTS_OF_STORAGE, nested, raw, volumes
from .storage import Call, Storage

Encoder = Callable[[Any, Storage[Any]], object]

_MAYBE_NONE: Final = frozenset({"map_volume", "volume_import"})
"""Methods that may leave the name they are asked for to PVE."""

_NOT_CARRIED: Final = frozenset({("fh", "fd"), ("scfg", "mutable")})
"""What a method takes and a call doesn't carry as an argument: one at most."""


class WrongAnswer(TypeError):
    """A plugin returned something that PVE can't use; the text says what and what instead."""


class Plan(NamedTuple):
    """One method of one plugin."""

    row: Method
    implemented: bool
    names: tuple[str, ...]
    """The method's arguments, in the order in which ``values`` returns them."""
    arguments: tuple[tuple[Callable[[object], Any], Callable[[], Any]], ...]
    """How those that a call carries become Python's, and what they are when they didn't come."""
    convert: Callable[[Any, Call], list[Any]]
    """All of them at once, if they are as they should be."""
    hints: int | None
    volname: int | None
    """Places of arguments that the call itself has to do with."""
    not_carried: bool
    """Whether the method takes one more than a call carries."""
    invoke: Callable[[Storage[Any], Sequence[Any]], Any]
    """Calls the method with what ``values`` returned."""
    in_parts: bool
    """Whether the answer may be long, and is sent while it is made."""
    encode: Encoder | None
    """The answer in PVE's form; TypeError or ValueError says what is wrong with it.  None: none."""

    def values(self, args: Arguments, storage: Storage[Any]) -> list[Any]:
        """The arguments of a call, typed by its row; StorageError names a wrong one."""
        try:
            values = self.convert(args, storage.call)
        except (ValueError, LookupError):  # by name, too few, or wrong
            values = self._one_by_one(args if isinstance(args, list) else self._ordered(args))
            if self.hints is not None:
                values[self.hints] = Hints(values[self.hints], storage.call.host)
        if self.volname is not None:
            storage.call.volname = values[self.volname]
        if self.not_carried:
            values.append(storage.call.fd)  # None where the host puts the section
        return values

    def _one_by_one(self, given: list[Any]) -> list[Any]:
        if len(given) < len(self.arguments):
            given = [*given, *[None] * (len(self.arguments) - len(given))]
        values: list[Any] = []
        try:
            # how many there are is the row's affair: a newer caller may send more
            for value, (convert, instead) in zip(given, self.arguments):  # noqa: B905
                values.append(instead() if value is None else convert(value))
        except ValueError as err:
            name = self.names[len(values)]
            raise StorageError(f"{self.row.name}: argument '{name}' {err}") from None
        return values

    def _ordered(self, args: Mapping[Any, Any]) -> list[Any]:
        """Perl's strings are bytes, as keys, too."""
        names = self.names[: len(self.arguments)]
        return [args.get(name.encode(), args.get(name)) for name in names]

    def answer(self, value: object, storage: Storage[Any]) -> object:
        """The answer for the wire; WrongAnswer says what PVE would have done with it."""
        assert self.encode is not None
        try:
            return self.encode(value, storage)
        except (TypeError, ValueError) as err:
            raise WrongAnswer(advice.wrong_answer(self.row, value, err)) from None


def plan_of(plugin: StoragePlugin[Any], name: str) -> Plan:
    """The plan of a method of the table; KeyError for any other name."""
    row = METHODS[name]
    method = getattr(plugin, name, None)  # on_update_hook: the SDK has only the newer form
    wire = [arg.name for arg in row.wire_args]
    others = [arg.name for arg in row.args if (arg.name, arg.type) in _NOT_CARRIED]
    return Plan(
        row=row,
        implemented=implemented(type(plugin), name),
        names=(*wire, *others),
        arguments=tuple((ARGUMENTS[arg.type], _instead(name, arg)) for arg in row.wire_args),
        convert=_converting(row),
        hints=wire.index("hints") if "hints" in wire else None,
        volname=wire.index("volname") if "volname" in wire else None,
        not_carried=bool(others),
        invoke=_invoking(method, (*wire, *others))
        if implemented(type(plugin), name)
        else partial(_not_supported, plugin.type, name),
        in_parts=row.result == "volumes",
        encode=_encoder(plugin, row),
    )


def _converting(row: Method) -> Callable[[Any, Call], list[Any]]:
    """All arguments of a call, compiled as ``_invoking`` is: half of what a loop takes."""
    items = [
        f"None if args[{i}] is None else convert{i}(args[{i}])"
        if arg.optional and arg.type not in FILLED
        else f"convert{i}(args[{i}])"
        for i, arg in enumerate(row.wire_args)
    ]
    for i, arg in enumerate(row.wire_args):
        if arg.name == "hints":
            items[i] = f"Hints({items[i]}, call.host)"
    known: dict[str, object] = {"Hints": Hints}
    known |= {f"convert{i}": ARGUMENTS[arg.type] for i, arg in enumerate(row.wire_args)}
    code = f"lambda args, call: [{', '.join(items)}]"
    compiled: Callable[[Any, Call], list[Any]] = eval(code, known)
    return compiled


def _invoking(method: Any, names: Sequence[str]) -> Callable[[Storage[Any], Sequence[Any]], Any]:
    """Calls *method* with values by these names, or with those it takes.

    It may have been written for an older table.  The call is compiled, as if it stood in a file: a
    map of keywords takes 3,000 instructions to make and to take apart.
    """
    parameters = inspect.signature(method).parameters
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    pairs = [f"{n}=values[{i}]" for i, n in enumerate(names) if takes_all or n in parameters]
    call = f"lambda storage, values: method({', '.join(['storage', *pairs])})"
    compiled: Callable[[Storage[Any], Sequence[Any]], Any] = eval(call, {"method": method})
    return compiled


def _not_supported(type_: str, method: str, *values: object) -> NoReturn:
    raise NotSupported(f"storage type '{type_}' does not support {method}")


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


def _encoder(plugin: StoragePlugin[Any], row: Method) -> Encoder | None:
    if row.result == "path":
        return _path_of(plugin)
    if row.result == "none":
        return None
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
