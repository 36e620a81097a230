# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Call the plugin: coerce the arguments, run the method, coerce the answer.

The host stands between the server (which knows frames and connections) and a plugin (which knows
storage).  It stores declared secrets around the configuration hooks, runs ``async def`` methods,
keeps to the plugin's declared concurrency and undoes what a failed call left behind.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Protocol

from . import advice, manifest, secrets
from .coerce import FILLED, argument
from .config import StorageConfig, options_of
from .errors import (
    KINDS,
    Cancelled,
    NotSupported,
    ParameterError,
    RollbackBlocked,
    StorageError,
)
from .methods import METHODS, Arg, Method
from .model import Cleanup, Hints
from .plugin import StoragePlugin, config_class, implemented
from .results import RESULTS, RESULTS_OF_STORAGE, nested, raw, volumes
from .storage import Call, Storage

logger = logging.getLogger(__name__)

_UPDATE_HOOKS: Final = ("on_update_hook", "on_update_hook_full")
_AT_ONCE: Final = contextlib.nullcontext()
_MAX_CONFIGS: Final = 1024
_MAYBE_NONE: Final = frozenset({"map_volume", "volume_import"})
"""Methods that may leave the name they are asked for to PVE."""


class WrongAnswer(TypeError):
    """A plugin returned something that PVE can't use; the text says what and what instead."""


class Serves(Protocol):
    """What a server needs of a Host; ``reload`` and ``recording`` have others."""

    @property
    def type(self) -> str:
        """The storage type."""

    @property
    def secrets(self) -> list[str]:
        """Names of its secret properties."""

    def facts(self) -> Mapping[str, object]:
        """Its manifest."""

    def limit(self, method: str) -> float | None:
        """Seconds until the caller of *method* gets an answer; None: no limit."""

    def shared(self, method: str) -> bool:
        """Whether identical calls of *method* are answered by one run."""

    def call(
        self, call: Call, storeid: str, scfg: Mapping[str, Any], args: Mapping[str, Any]
    ) -> tuple[object, dict[str, object]]:
        """Run one method: (answer, extra)."""


class Host:
    """Everything the server may do with one plugin."""

    def __init__(self, plugin: type[StoragePlugin[Any]]):
        manifest.check(plugin)
        self.plugin = plugin()
        self.type = plugin.type
        self._config = config_class(plugin)
        self.secrets = [
            item.property for item in options_of(self._config, self.type) if item.option.secret
        ]
        """Names of the secret properties."""
        self._parameters: dict[str, frozenset[str]] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._limits = {
            row.name: self.plugin.deadlines.get(row.name, row.limit) for row in METHODS.values()
        }
        self._configs: dict[str, tuple[Mapping[str, Any], StorageConfig]] = {}

    def facts(self) -> Mapping[str, object]:
        """The plugin's manifest."""
        return manifest.build(type(self.plugin))

    def limit(self, method: str) -> float | None:
        """Seconds until the caller of *method* gets an answer; None: no limit."""
        return self._limits.get(method)

    def shared(self, method: str) -> bool:
        """Whether identical calls of *method* are answered by one run."""
        row = METHODS.get(method)
        return row is not None and row.shared

    def call(
        self, call: Call, storeid: str, scfg: Mapping[str, Any], args: Mapping[str, Any]
    ) -> tuple[object, dict[str, object]]:
        """Run one method; returns (answer, extra), both ready for the wire.

        *extra* carries what PVE expects in its own structures: ``mutable`` changes of a hook's
        hash, also ``blockers`` by way of RollbackBlocked.  Undoes on failure, then re-raises.
        """
        row = METHODS.get(call.method)
        if row is None:
            raise StorageError(f"unknown method '{call.method}'")
        storage = Storage(
            storeid=storeid,
            type=self.type,
            config=self._typed(storeid, scfg),
            scfg=scfg,
            call=call,
        )
        kwargs = _arguments(row, args, storage)
        with self._turn(storage), call.undo:
            value, extra = self._run(row, storage, kwargs)
            if row.result != "volumes":
                value = self._encode(row, storage, value)
            if call.cancelled.is_set():
                raise Cancelled  # whatever was made, nobody would know of it
            call.undo.pop_all()
        if (
            row.result == "volumes"
        ):  # sends parts: a slow reader mustn't keep others from their turn
            value = self._encode(row, storage, value)
        return value, extra

    def _typed(self, storeid: str, scfg: Mapping[str, Any]) -> StorageConfig:
        """The typed section; frozen, so that calls with the same section can share it."""
        known = self._configs.get(storeid)
        if known is None or known[0] is not scfg:
            if len(self._configs) >= _MAX_CONFIGS:
                self._configs.clear()
            known = self._configs[storeid] = (
                scfg,
                self._config.from_scfg(storeid, self.type, scfg),
            )
        return known[1]

    def _run(
        self, row: Method, storage: Storage[Any], kwargs: dict[str, Any]
    ) -> tuple[object, dict[str, object]]:
        if row.name == "on_add_hook":
            return self._on_add(row, storage, kwargs)
        if row.name in _UPDATE_HOOKS:
            return self._on_update(storage, kwargs)
        if row.name == "on_delete_hook":
            return self._on_delete(row, storage, kwargs)
        return self._invoke(row.name, storage, kwargs), {}

    # --- configuration hooks: secrets, and hashes that PVE wants changed in place --------------

    def _on_add(
        self, row: Method, storage: Storage[Any], kwargs: dict[str, Any]
    ) -> tuple[object, dict[str, object]]:
        """A failing hook must leave no secret behind: PVE doesn't call on_delete_hook then."""
        self._store(storage, {k: v for k, v in kwargs["sensitive"].items() if v is not None})
        kwargs["scfg"] = dict(storage.scfg)
        return self._mutating(row.name, storage, kwargs, "scfg")

    def _on_update(
        self, storage: Storage[Any], kwargs: dict[str, Any]
    ) -> tuple[object, dict[str, object]]:
        """Both hook shapes of PVE end in the one method of the SDK (contract section 6)."""
        self._store(storage, kwargs["sensitive"])
        kwargs.setdefault("delete", None)
        return self._mutating("on_update_hook_full", storage, kwargs, "update")

    def _on_delete(
        self, row: Method, storage: Storage[Any], kwargs: dict[str, Any]
    ) -> tuple[object, dict[str, object]]:
        value = None
        if implemented(type(self.plugin), row.name):
            value = self._invoke(row.name, storage, kwargs)
        secrets.remove_all(storage.storeid, self.secrets)
        return value, {}

    def _store(self, storage: Storage[Any], changes: Mapping[str, str | None]) -> None:
        mine = {name: value for name, value in changes.items() if name in self.secrets}
        before = secrets.apply(storage.storeid, mine)
        storage.on_failure(secrets.apply, storage.storeid, before)

    def _mutating(
        self, method: str, storage: Storage[Any], kwargs: dict[str, Any], name: str
    ) -> tuple[object, dict[str, object]]:
        """Run a hook and report what it changed in the hash called *name*."""
        if not implemented(type(self.plugin), method):
            return None, {}
        changed = kwargs[name]
        before = dict(changed)
        value = self._invoke(method, storage, kwargs)
        put = {key: item for key, item in changed.items() if before.get(key, before) != item}
        drop = [key for key in before if key not in changed]
        if not put and not drop:
            return value, {}
        return value, {"mutable": {"set": nested(put), "delete": nested(drop)}}

    # --- running the method --------------------------------------------------------------------

    def _invoke(self, name: str, storage: Storage[Any], kwargs: dict[str, Any]) -> object:
        method: Callable[..., Any] = getattr(self.plugin, name)
        if not implemented(type(self.plugin), name):
            raise NotSupported(f"storage type '{self.type}' does not support {name}")
        accepted = self._accepted(name, method)
        value = method(storage, **{k: v for k, v in kwargs.items() if k in accepted})
        if inspect.isawaitable(value):
            import asyncio  # noqa: PLC0415  50 ms and 5 MiB for the few that are async

            value = asyncio.run(_await(value))
        return value

    def _accepted(self, name: str, method: Callable[..., Any]) -> frozenset[str]:
        """Argument names a method takes: one written for an older table gets no newer ones."""
        known = self._parameters.get(name)
        if known is None:
            parameters = inspect.signature(method).parameters
            known = frozenset(parameters)
            if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
                known |= {arg.name for arg in METHODS[name].args}
            self._parameters[name] = known
        return known

    def _turn(self, storage: Storage[Any]) -> contextlib.AbstractContextManager[None]:
        """How parallel the plugin wants to be called; its class attribute ``concurrency``."""
        return _AT_ONCE if self.plugin.concurrency == "parallel" else self._queue(storage)

    @contextlib.contextmanager
    def _queue(self, storage: Storage[Any]) -> Iterator[None]:
        serial = self.plugin.concurrency == "serial"
        lock = self._locks.setdefault("" if serial else storage.storeid, threading.Lock())
        while not lock.acquire(timeout=0.1):
            storage.checkpoint()  # whoever waits may give up
        try:
            yield
        finally:
            lock.release()

    def _encode(self, row: Method, storage: Storage[Any], value: object) -> object:
        try:
            if row.result == "path":
                return self._path(storage, value)
            if row.result == "cleanup":
                return _cleanup(value)
            _expect_answer(row, value)
            if row.result == "volumes":
                return volumes(value, storage.storeid, storage.call.part)
            if row.result in RESULTS_OF_STORAGE:
                return RESULTS_OF_STORAGE[row.result](value, storage.storeid)
            return RESULTS[row.result](value)
        except (TypeError, ValueError) as err:
            raise WrongAnswer(advice.wrong_answer(row, value, err)) from None

    def _path(self, storage: Storage[Any], value: object) -> list[object]:
        """PVE's (path, owner, vtype): the plugin says where, the name says whose and what."""
        name = self.plugin.parse_volname(storage.call.volname)
        if not isinstance(value, str):
            raise TypeError(f"must be str, not {type(value).__name__}")
        return [raw(value), name.vmid, name.vtype]


def _expect_answer(row: Method, value: object) -> None:
    """PVE would take undef for an empty name; where None is an answer, the SDK says so."""
    if value is None and row.result in ("str", "volid") and row.name not in _MAYBE_NONE:
        raise TypeError("must be str, not NoneType")


_ON_WIRE: Final = {
    row.name: [arg for arg in row.args if arg.on_wire and arg.name != "scfg"]
    for row in METHODS.values()
}
_DESCRIPTORS: Final = {
    row.name: [arg.name for arg in row.args if arg.type == "fd"] for row in METHODS.values()
}


def _arguments(row: Method, args: Mapping[str, Any], storage: Storage[Any]) -> dict[str, Any]:
    """The keyword arguments of a method, typed by its row."""
    kwargs: dict[str, Any] = {}
    for arg in _ON_WIRE[row.name]:
        kwargs[arg.name] = _argument(row, arg, args)
    for name in _DESCRIPTORS[row.name]:
        kwargs[name] = storage.call.fd
    if "hints" in kwargs:
        kwargs["hints"] = Hints(kwargs["hints"], storage.host)
    storage.call.volname = kwargs.get("volname", "")
    return kwargs


def _argument(row: Method, arg: Arg, args: Mapping[str, Any]) -> Any:
    value = args.get(arg.name)
    if value is None and arg.type not in FILLED:
        if not arg.optional:
            raise StorageError(f"{row.name}: argument '{arg.name}' is missing")
        return None
    try:
        return argument(arg.type, arg.name, value)
    except StorageError as err:
        raise StorageError(f"{row.name}: argument {err}") from None


async def _await(value: Any) -> object:
    return await value


def _cleanup(value: object) -> dict[str, object] | None:
    """Cleanup for later as plain data; the shim makes PVE's code ref of it (V5)."""
    if value is None:
        return None
    if not isinstance(value, Cleanup):
        raise TypeError(f"must be Cleanup or None, not {type(value).__name__}")
    return {"data": nested(value.data)}


def describe(err: BaseException) -> dict[str, object]:
    """An error for the wire; only the closed set keeps its own words (D12)."""
    kind = err.kind if isinstance(err, StorageError | Cancelled) else "internal"
    answer: dict[str, object] = {"kind": kind if kind in KINDS else "internal"}
    if isinstance(err, RollbackBlocked):
        answer["blockers"] = [str(name) for name in err.blockers]
    if isinstance(err, ParameterError):
        answer |= {"code": 400, "errors": {str(k): str(v) for k, v in err.errors.items()}}
    return answer
