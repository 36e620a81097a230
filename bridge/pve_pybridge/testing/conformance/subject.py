# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""The storage under test, called as PVE calls it; every call is kept for the report.

``ask`` expects an answer, ``refused`` a death, ``attempt`` either.  ``method`` calls the storage's
class itself, for arguments that PVE::Storage's functions don't pass on.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from ...manifest import call_of
from ...methods import METHODS
from ..perl import Context, PerlCrashed, PerlResult, PerlSession
from .literal import perl, short
from .node import Node
from .outcome import Blocked, Call, Failed, NotApplicable
from .settings import Settings, Values

STOREID: Final = "check"
SECOND: Final = "check2"
VMIDS: Final = 9_000_000
"""Guests that nobody has: the suite's volumes belong to them and to nobody else."""
ON_THE_WAY: Final = tuple(
    f"PVE::Storage::{name}("
    for name in ("activate_volumes", "deactivate_volumes", "path", "parse_volname")
)
CALL_MARK: Final = "  —  "
"""Between what is wrong and the call that shows it."""
INTERNAL: Final = "internal error in plugin"

FUNCTION: Final = """
    my ($function, $args) = @ARGS;
    no strict 'refs';
    return &{"PVE::Storage::$function"}(PVE::Storage::config(), @$args);
"""
METHOD: Final = """
    my ($storeid, $name, $args) = @ARGS;
    my $scfg = PVE::Storage::config()->{ids}->{$storeid};
    my %special = (storeid => $storeid, scfg => $scfg, cache => {});
    my @args = map { $_->[0] ? $special{$_->[0]} : $_->[1] } @$args;
    return PVE::Storage::Plugin->lookup($scfg->{type})->$name(@args);
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call came to."""

    call: Call
    function: str
    value: Any
    error: str | None
    stderr: str
    stdout: str
    tainted: bool

    @property
    def internal(self) -> bool:
        """Whether the plugin failed with a bug instead of an error of its own."""
        return self.error is not None and INTERNAL in self.error


class Subject:
    """One storage of the plugin, and the account of what was done with it."""

    def __init__(
        self,
        node: Node,
        manifest: Mapping[str, Any],
        settings: Settings,
        values: Values,
        second: Values | None,
        unreachable: Values | None,
    ):
        self.node = node
        self.manifest = manifest
        self.settings = settings
        self.type: str = manifest["type"]
        self.values = values
        self.second = second
        self.unreachable = unreachable
        self.formats: list[str] = manifest["formats"][0]
        self.format = "raw" if "raw" in self.formats else manifest["formats"][1]
        self.vmid = VMIDS
        self.history: list[Answer] = []
        """Every answer of the whole run, for statements about all of them."""
        self.calls: list[Call] = []
        self.remarks: list[str] = []
        self.telling: Call | None = None
        """The call that shows what is wrong."""
        self.hung: str | None = None
        """The call that got no answer in this statement."""
        self.hopeless: set[str] = set()
        """Methods that hung too often."""
        self._volumes: list[str] = []
        self._quiet = False

    # --- calls ---------------------------------------------------------------------------------

    def attempt(
        self, function: str, *args: object, context: Context = "scalar", **options: Any
    ) -> Answer:
        """Call ``PVE::Storage::function($cfg, args)``."""
        given = ", ".join(["$cfg", *map(perl, args)])
        text = f"PVE::Storage::{function}({given})"
        return self.run(
            text, FUNCTION, function, list(args), context=context, function=function, **options
        )

    def ask(self, function: str, *args: object, context: Context = "scalar", **options: Any) -> Any:
        """The same; it must not die."""
        return self._value(self.attempt(function, *args, context=context, **options))

    def refused(self, function: str, *args: object, why: str, **options: Any) -> str:
        """The same; it must die, because *why*."""
        return self._error(self.attempt(function, *args, **options), why)

    def try_method(self, name: str, *, storeid: str = STOREID, **given: object) -> Answer:
        """Call a method of the storage's class; arguments by the method table's names."""
        shown: list[str] = []
        passed: list[list[object]] = []
        for arg in METHODS[name].args:
            special = arg.type in ("storeid", "scfg", "cache")
            if not special and arg.name not in given and arg.since > self.settings.apiver:
                continue
            if special:
                passed.append([arg.type, None])
                shown.append({"storeid": f"'{storeid}'", "scfg": "$scfg", "cache": "{}"}[arg.type])
            else:
                passed.append(["", given.get(arg.name)])
                shown.append(perl(given.get(arg.name)))
        text = f"$class->{name}({', '.join(shown)})"
        row = METHODS[name]
        context: Context = "scalar" if row.context == "scalar" else "list"
        return self.run(text, METHOD, storeid, name, passed, context=context, function=name)

    def method(self, name: str, *, storeid: str = STOREID, **given: object) -> Any:
        """The same; it must not die."""
        return self._value(self.try_method(name, storeid=storeid, **given))

    def run(
        self,
        text: str,
        code: str,
        *args: object,
        context: Context = "scalar",
        function: str = "",
        session: PerlSession | None = None,
        timeout: float | None = None,
    ) -> Answer:
        """A few lines of Perl, reported as *text*; a hang or crash is the statement's failure."""
        if self.hung or function in self.hopeless:
            raise Failed(f"{text}: not called, {self.hung or function} hangs")
        limit = timeout or self.settings.timeout
        began = time.monotonic()
        call = session.run if session else self.node.perl
        try:
            result = call(code, *args, context=context, timeout=limit)
        except PerlCrashed as err:
            self.node.forget_session()
            self.hung = function or text
            seconds = time.monotonic() - began
            self.calls.append(Call(text, err.reason, seconds, died=True, stderr=err.stderr))
            raise Failed(f"{text}: {err.reason}") from None
        return self._keep(text, function, result, time.monotonic() - began)

    def _keep(self, text: str, function: str, result: PerlResult, seconds: float) -> Answer:
        died = result.error is not None
        shown = f"died: {result.error}".rstrip("\n") if died else short(perl(result.value))
        call = Call(short(text), shown, seconds, died, result.stderr)
        answer = Answer(
            *(call, function, result.value, result.error),
            *(result.stderr, result.stdout, result.tainted),
        )
        if not self._quiet:
            self.calls.append(call)
            self.history.append(answer)
        return answer

    def _value(self, answer: Answer) -> Any:
        if answer.error is not None:
            self.fail(f"{answer.function or 'this'} must not die here")
        return answer.value

    def _error(self, answer: Answer, why: str) -> str:
        if answer.error is None:
            self.fail(f"{answer.function} must die here: {why}")
        if answer.internal:
            self.remark(f"refuses with a bug of its own, not with an error: {answer.error.strip()}")
        return answer.error

    def fail(self, message: str) -> NoReturn:
        """The plugin breaks the statement: *message*, and the last call with its answer."""
        last = self.calls[-1] if self.calls else None
        self.telling = next((call for call in reversed(self.calls) if _tells(call)), last)
        if self.telling is None:
            raise Failed(message)
        raise Failed(f"{message}{CALL_MARK}{self.telling.text} → {self.telling.answer}")

    def remark(self, text: str) -> None:
        """Worth mending, no failure."""
        if text not in self.remarks:
            self.remarks.append(text)

    @contextlib.contextmanager
    def preparing(self) -> Iterator[None]:
        """What fails in here is another statement's affair."""
        try:
            yield
        except Failed as err:
            raise Blocked(str(err)) from None

    # --- what the plugin says it can do --------------------------------------------------------

    def has(self, method: str) -> bool:
        """Whether the plugin itself answers a method."""
        return call_of(self.manifest, method) == "forward"

    def need(self, *methods: str) -> None:
        """The statement is about these methods."""
        for method in methods:
            if not self.has(method):
                raise NotApplicable(f"the plugin has no {method}")

    def feature(self, name: str, volid: str, snapname: str | None = None) -> bool:
        """What volume_has_feature says."""
        return bool(self.ask("volume_has_feature", name, volid, snapname))

    @property
    def has_path(self) -> bool:
        """A directory storage in PVE's eyes: names of volumes get a suffix (contract 1.6)."""
        return "path" in self.manifest["options"]

    @property
    def is_shared(self) -> bool:
        """Whether several nodes use the storage."""
        return bool(self.manifest["shared"]) or self.values.get("shared") == "1"

    # --- volumes of our own --------------------------------------------------------------------

    def begin(self, index: int) -> None:
        """A new statement: its own guests, nothing noted."""
        self.vmid = VMIDS + 100 * index
        self.calls, self.remarks, self.telling, self.hung = [], [], None, None

    def named(self, rest: str, vmid: int | None = None, format: str | None = None) -> str:
        """A name as core makes them: ``vm-N-cloudinit``, with a suffix in directories."""
        suffix = f".{format or self.format}" if self.has_path else ""
        return f"vm-{vmid or self.vmid}-{rest}{suffix}"

    def alloc(
        self,
        kib: float = 4096,
        *,
        vmid: int | None = None,
        name: str | None = None,
        format: str | None = None,
        storeid: str = STOREID,
    ) -> Answer:
        """vdisk_alloc, in whichever way it ends; the volume is freed after the statement."""
        kind = format or self.format
        args = (storeid, vmid or self.vmid, kind, name, 0 if kind == "subvol" else kib)
        answer = self.attempt("vdisk_alloc", *args)
        if answer.error is None:
            self.own(answer.value)
        return answer

    def volume(self, kib: float = 4096, **options: Any) -> str:
        """A new volume to do something with."""
        self.need("alloc_image")
        with self.preparing():
            return str(self._value(self.alloc(kib, **options)))

    def own(self, volid: object) -> str:
        """Remember a volume to free."""
        if isinstance(volid, str) and ":" in volid and " " not in volid:
            self._volumes.append(volid)
        return str(volid)

    def volids(self, vmid: int | None = None, storeid: str = STOREID) -> list[str]:
        """What vdisk_list lists for a guest."""
        found = self.ask("vdisk_list", storeid, vmid or self.vmid)
        return [str(row["volid"]) for row in found[storeid]]

    def parse(self, volid: str) -> Sequence[Any]:
        """The seven values of parse_volname."""
        found: list[Any] = self.ask("parse_volname", volid, context="list")
        return found

    def tidy(self) -> list[str]:
        """Free what the statement made; returns what couldn't be freed."""
        left = list(dict.fromkeys(reversed(self._volumes)))
        self._volumes = []
        self._quiet = True
        try:
            for _ in range(2):  # a base goes after its clones
                left = [volid for volid in left if not self._freed(volid)]
            return [volid for volid in left if not self.in_sandbox and self._is_listed(volid)]
        finally:
            self._quiet = False

    @property
    def in_sandbox(self) -> bool:
        """Whether the storage's volumes vanish with the suite's own directories."""
        return any(value.startswith(f"{self.node.base}/") for value in self.values.values())

    def _is_listed(self, volid: str) -> bool:
        storeid = volid.partition(":")[0]
        try:
            answer = self.attempt("vdisk_list", storeid, None, [volid])
        except Failed:
            return True
        rows = (answer.value or {}).get(storeid, [])
        return any(row.get("volid") == volid for row in rows)

    def _freed(self, volid: str) -> bool:
        try:
            self.attempt("deactivate_volumes", [volid])
            return not self.has("free_image") or self.attempt("vdisk_free", volid).error is None
        except Failed:
            return False


def _tells(call: Call) -> bool:
    """Not one of those by which the suite only gets at a volume's data."""
    return call.died or not call.text.startswith(ON_THE_WAY)
