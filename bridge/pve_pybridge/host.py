# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Call the plugin: coerce the arguments, run the method, coerce the answer.

The host stands between the server (which knows frames and connections) and a plugin (which knows
storage).  It stores declared secrets around the configuration hooks, runs ``async def`` methods,
keeps to the plugin's declared concurrency and undoes what a failed call left behind.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

from . import manifest, secrets
from .config import StorageConfig, options_of
from .errors import (
    KINDS,
    Cancelled,
    ParameterError,
    RollbackBlocked,
    StorageError,
)
from .methods import METHODS, Arguments
from .plan import Plan, plan_of
from .plugin import StoragePlugin, config_class
from .results import nested
from .section import Section
from .storage import Call, Storage

logger = logging.getLogger(__name__)

Extra = Mapping[str, object]
"""What PVE expects in its own structures, beside the answer."""
NOTHING: Final[Extra] = {}
_UNKNOWN: Final[tuple[object, Any]] = (None, None)
Hook = Callable[[Plan, Storage[Any], dict[str, Any]], tuple[object, Extra]]  # (answer, extra)


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

    @property
    def shared(self) -> frozenset[str]:
        """Methods whose identical calls are answered by one run."""

    def call(
        self, call: Call, storeid: str, scfg: Mapping[str, Any], args: Arguments
    ) -> tuple[object, Extra]:
        """Run one method: (answer, extra)."""


class Host:
    """Everything the server may do with one plugin."""

    shared: Final = frozenset(row.name for row in METHODS.values() if row.shared)
    """Methods whose identical calls are answered by one run."""

    def __init__(self, plugin: type[StoragePlugin[Any]]):
        manifest.check(plugin)
        self.plugin = plugin()
        self.type = plugin.type
        self._config = config_class(plugin)
        self.secrets = [
            item.property for item in options_of(self._config, self.type) if item.option.secret
        ]
        """Names of the secret properties."""
        self._parallel = plugin.concurrency == "parallel"
        self._plans: dict[str, Plan] = {}
        self._hooks: dict[str, Hook] = {
            "on_add_hook": self._on_add,
            "on_update_hook": self._on_update,
            "on_update_hook_full": self._on_update,
            "on_delete_hook": self._on_delete,
        }
        self._locks: dict[str, threading.Lock] = {}
        self._limits = {
            row.name: self.plugin.deadlines.get(row.name, row.limit) for row in METHODS.values()
        }

    def facts(self) -> Mapping[str, object]:
        """The plugin's manifest."""
        return manifest.build(type(self.plugin))

    def limit(self, method: str) -> float | None:
        """Seconds until the caller of *method* gets an answer; None: no limit."""
        return self._limits.get(method)

    def call(
        self, call: Call, storeid: str, scfg: Mapping[str, Any], args: Arguments
    ) -> tuple[object, Extra]:
        """Run one method; returns (answer, extra), both ready for the wire.

        *extra* carries what PVE expects in its own structures: ``mutable`` changes of a hook's
        hash, also ``blockers`` by way of RollbackBlocked.  Undoes on failure, then re-raises.
        """
        plan = self._plans.get(call.method) or self._plan_of(call.method)
        owner, config = scfg.typed if scfg.__class__ is Section else _UNKNOWN
        if owner is not self:
            config = self._typed(storeid, scfg)
        storage = Storage(storeid, self.type, config, scfg, call)
        values = plan.values(args, storage)
        if self._parallel:
            value, extra = self._run(plan, storage, values)
        else:
            with self._queue(storage):
                value, extra = self._run(plan, storage, values)
        if plan.in_parts:  # here: a slow reader mustn't keep others from their turn
            value = plan.answer(value, storage)
        return value, extra

    def _plan_of(self, method: str) -> Plan:
        if method not in METHODS:
            raise StorageError(f"unknown method '{method}'")
        return self._plans.setdefault(method, plan_of(self.plugin, method))

    def _typed(self, storeid: str, scfg: Mapping[str, Any]) -> StorageConfig:
        """The typed section; frozen, so that all calls that come with the section share it."""
        config = self._config.from_scfg(storeid, self.type, scfg)
        if isinstance(scfg, Section):
            scfg.typed = (self, config)
        return config

    def _run(self, plan: Plan, storage: Storage[Any], values: list[Any]) -> tuple[object, Extra]:
        call, extra = storage.call, NOTHING
        try:
            if call.method in self._hooks:
                kwargs = dict(zip(plan.names, values, strict=True))
                value, extra = self._hooks[call.method](plan, storage, kwargs)
            else:
                value = self._invoke(plan, storage, values)
            if plan.encode is None:
                value = None
            elif not plan.in_parts:
                value = plan.answer(value, storage)
            if call.flag is not None and call.flag.is_set():
                raise Cancelled  # whatever was made, nobody would know of it
        except BaseException:
            call.undo()
            raise
        return value, extra

    # --- configuration hooks: secrets, and hashes that PVE wants changed in place --------------

    def _on_add(
        self, plan: Plan, storage: Storage[Any], kwargs: dict[str, Any]
    ) -> tuple[object, Extra]:
        """A failing hook must leave no secret behind: PVE doesn't call on_delete_hook then."""
        self._store(storage, {k: v for k, v in kwargs["sensitive"].items() if v is not None})
        kwargs["scfg"] = dict(storage.scfg)
        return self._mutating(plan, storage, kwargs, "scfg")

    def _on_update(
        self, plan: Plan, storage: Storage[Any], kwargs: dict[str, Any]
    ) -> tuple[object, Extra]:
        """Both hook shapes of PVE end in the one method of the SDK (contract section 6)."""
        self._store(storage, kwargs["sensitive"])
        kwargs.setdefault("delete", None)
        return self._mutating(self._plan_of("on_update_hook_full"), storage, kwargs, "update")

    def _on_delete(
        self, plan: Plan, storage: Storage[Any], kwargs: dict[str, Any]
    ) -> tuple[object, Extra]:
        value = self._invoke(plan, storage, ()) if plan.implemented else None
        secrets.remove_all(storage.storeid, self.secrets)
        return value, {}

    def _store(self, storage: Storage[Any], changes: Mapping[str, str | None]) -> None:
        mine = {name: value for name, value in changes.items() if name in self.secrets}
        before = secrets.apply(storage.storeid, mine)
        storage.on_failure(secrets.apply, storage.storeid, before)

    def _mutating(
        self, plan: Plan, storage: Storage[Any], kwargs: dict[str, Any], name: str
    ) -> tuple[object, Extra]:
        """Run a hook and report what it changed in the hash called *name*."""
        if not plan.implemented:
            return None, {}
        changed = kwargs[name]
        before = dict(changed)
        value = self._invoke(plan, storage, [kwargs[each] for each in plan.names])
        put = {key: item for key, item in changed.items() if before.get(key, before) != item}
        drop = [key for key in before if key not in changed]
        if not put and not drop:
            return value, {}
        return value, {"mutable": {"set": nested(put), "delete": nested(drop)}}

    # --- running the method --------------------------------------------------------------------

    def _invoke(self, plan: Plan, storage: Storage[Any], values: Sequence[Any]) -> object:
        value = plan.invoke(storage, values)
        return _awaited(value) if hasattr(value, "__await__") else value

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


def _awaited(value: Any) -> object:
    import asyncio  # noqa: PLC0415  50 ms and 5 MiB for the few that are async

    async def wait() -> object:
        return await value

    return asyncio.run(wait())


def describe(err: BaseException) -> dict[str, object]:
    """An error for the wire; only the closed set keeps its own words (D12)."""
    kind = err.kind if isinstance(err, StorageError | Cancelled) else "internal"
    answer: dict[str, object] = {"kind": kind if kind in KINDS else "internal"}
    if isinstance(err, RollbackBlocked):
        answer["blockers"] = [str(name) for name in err.blockers]
    if isinstance(err, ParameterError):
        answer |= {"code": 400, "errors": {str(k): str(v) for k, v in err.errors.items()}}
    return answer
