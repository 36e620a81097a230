# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Misbehaves as its storage's options say: the plugin of the fault and load suites.

``faulty-mode`` says what goes wrong: ``hang`` in every method, or ``status=hang,alloc_image=run``.
``faulty-gate`` is a file that blocks the hangs as long as somebody else holds its lock, as a dead
server blocks an NFS mount.  ``faulty-journal`` gets a line for each alloc_image that is executed.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pve_pybridge import (
    Hints,
    Secret,
    Status,
    Storage,
    StorageConfig,
    StorageError,
    StoragePlugin,
    Volume,
    option,
    secret,
)

TOTAL: Final = 1 << 40
USED: Final = 1 << 30


@dataclass(frozen=True, kw_only=True)
class FaultyConfig(StorageConfig):
    mode: str | None = option("which fault, of which method", default=None)
    gate: str | None = option("file whose lock blocks the hangs", default=None)
    journal: str | None = option("file that gets a line for each execution", default=None)
    dir: str | None = option("where volumes are", default=None)
    delay: float | None = option("seconds", default=None)
    amount: int | None = option("MiB of whatever there is too much of", default=None)
    token: Secret | None = secret("only new hosts know it")
    password: Secret | None = secret("one of PVE's own", builtin="password")


Call = Storage[FaultyConfig]


def note(storage: Call, tag: str) -> None:
    """One line in the journal, written at once; not on the rest of one whose writer was killed."""
    if storage.config.journal:
        line = f"\n{tag} {os.getpid()} {time.monotonic():.6f}\n".encode()
        fd = os.open(storage.config.journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(fd, line)
        finally:
            os.close(fd)


# --- faults: subs of (storage) that return, or don't -------------------------------------------


def _delay(storage: Call) -> float:
    return storage.config.delay or 0.0


def _amount(storage: Call) -> int:
    return (storage.config.amount or 100) << 20


def _in_c(library: ctypes.CDLL) -> Callable[[Call], None]:
    """Blocked in a C function: until the gate opens, else for the given time."""

    def hang(storage: Call) -> None:
        if storage.config.gate is None:
            library.usleep(int(_delay(storage) * 1e6))
            return
        fd = os.open(storage.config.gate, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            library.flock(fd, fcntl.LOCK_SH)
        finally:
            os.close(fd)

    return hang


def _shut(storage: Call, started: float) -> bool:
    """Whether the gate is locked or, without one, the time is not over."""
    if storage.config.gate is None:
        return time.monotonic() - started < _delay(storage)
    with open(storage.config.gate, "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _hang_python(storage: Call) -> None:
    """Swallows whatever should end it, as bad loops do."""
    started = time.monotonic()
    while _shut(storage, started):
        try:
            storage.sleep(0.05)
        except BaseException:
            time.sleep(0.05)


def _hang_nicely(storage: Call) -> None:
    started = time.monotonic()
    while _shut(storage, started):
        storage.sleep(0.2)


def _crash(storage: Call) -> None:
    ctypes.string_at(0)


def _grow(storage: Call) -> None:
    block = bytearray(_amount(storage))
    block[::4096] = b"x" * len(block[::4096])
    storage.sleep(_delay(storage))


def _flood(storage: Call) -> None:
    line = "x" * 1023
    for _ in range(_amount(storage) // 1024):
        storage.log(line)


def _noise(storage: Call) -> None:
    print("noise from print", flush=True)
    os.write(1, b"noise from write\n")
    subprocess.run(["echo", "noise from a child"], check=True)


def _trickle(storage: Call) -> None:
    """Something all the time, the answer only at the end."""
    started = time.monotonic()
    while time.monotonic() - started < _delay(storage):
        storage.progress(int(time.monotonic() - started), int(_delay(storage)))
        storage.sleep(0.05)


def _stubborn(storage: Call) -> None:
    """A command whose child ignores TERM, with the shell that waits for it."""
    seconds = str(_delay(storage) or 60)
    storage.run(["sh", "-c", f"(trap '' TERM; sleep {seconds}; sleep {seconds}) & sleep {seconds}"])


def _report(storage: Call) -> None:
    """How much time the call has."""
    left = storage.deadline and storage.deadline - time.monotonic()
    raise StorageError("none" if left is None else f"{left:.3f}")


def _bug(storage: Call) -> None:
    raise KeyError("boom")


def _leak(storage: Call) -> None:
    """An author who writes secrets into errors, as one does."""
    token, password = storage.secret("token"), storage.secret("password")
    storage.log(f"trying {token} {password!r}")
    raise ValueError(f"login with {token} and {password!r} failed: {storage!r} {[token]}")


FAULTS: Final[Mapping[str, Callable[[Call], None]]] = {
    "hang-c": _in_c(ctypes.CDLL(None)),
    "hang-gil": _in_c(ctypes.PyDLL(None)),
    "hang-python": _hang_python,
    "hang": _hang_nicely,
    "sleep": lambda storage: time.sleep(_delay(storage)),
    "crash": _crash,
    "exit": lambda storage: os._exit(9),
    "grow": _grow,
    "flood": _flood,
    "noise": _noise,
    "trickle": _trickle,
    "run": lambda storage: void(storage.run(["sleep", str(_delay(storage) or 60)])),
    "stubborn": _stubborn,
    "leak": _leak,
    "report": _report,
    "bug": _bug,
}
ANSWERS: Final[Mapping[str, Callable[[Call], Any]]] = {
    "wrong": lambda storage: object(),
    "huge": lambda storage: "x" * _amount(storage),
}


def void(value: object) -> None:
    """For lambdas of something that has a value."""


def misbehave(storage: Call, method: str, answer: Any = None) -> Any:
    """Do what the options say, then return *answer* or a wrong one."""
    for word in (storage.config.mode or "").split(","):
        only, _, fault = word.rpartition("=")
        if only in ("", method):
            if fault in FAULTS:
                FAULTS[fault](storage)
            elif fault in ANSWERS:
                return ANSWERS[fault](storage)
            elif fault:
                raise StorageError(f"no such fault: {fault}")
    return answer


class Faulty(StoragePlugin[FaultyConfig]):
    type = "faulty"
    content = ("images",)

    def on_add_hook(
        self, storage: Call, scfg: MutableMapping[str, object], sensitive: Mapping[str, str]
    ) -> None:
        misbehave(storage, "on_add_hook")

    def on_update_hook_full(
        self,
        storage: Call,
        update: MutableMapping[str, object],
        delete: Sequence[str] | None,
        sensitive: Mapping[str, str | None],
    ) -> None:
        misbehave(storage, "on_update_hook_full")

    def on_delete_hook(self, storage: Call) -> None:
        misbehave(storage, "on_delete_hook")

    def path(self, storage: Call, volname: str, snapname: str | None) -> str:
        path: str = misbehave(storage, "path", f"{storage.config.dir or '/dev'}/{volname}")
        return path

    def check_connection(self, storage: Call) -> bool:
        return bool(misbehave(storage, "check_connection", True))

    def activate_storage(self, storage: Call) -> None:
        misbehave(storage, "activate_storage")

    def status(self, storage: Call) -> Status:
        note(storage, f"status-{storage.storeid}-{threading.get_ident()}")
        status: Status = misbehave(storage, "status", Status(TOTAL, TOTAL - USED, USED))
        return status

    def list_images(
        self, storage: Call, vmid: int | None, vollist: Sequence[str] | None
    ) -> list[Volume]:
        volumes = [Volume(volname=f"vm-{vmid or 100}-disk-0", format="raw", size=1, vmid=vmid)]
        found: list[Volume] = misbehave(storage, "list_images", volumes)
        return found

    def get_volume_attribute(self, storage: Call, volname: str, attribute: str) -> str:
        """The attribute's own name: what a caller asked for must come back to that caller."""
        value: str = misbehave(storage, "get_volume_attribute", f"{volname}:{attribute}")
        return value

    def alloc_image(
        self, storage: Call, vmid: int, format: str, name: str | None, size: int
    ) -> str:
        note(storage, name or "")
        volname = f"vm-{vmid}-{name}"
        if storage.config.dir is None:
            made: str = misbehave(storage, "alloc_image", volname)
            return made
        half = Path(storage.config.dir) / f"{volname}.half"
        storage.on_failure(self._clean_up, storage, half, name)
        half.touch()
        misbehave(storage, "alloc_image")
        half.rename(half.with_suffix(""))
        return volname

    @staticmethod
    def _clean_up(storage: Call, half: Path, name: str | None) -> None:
        half.unlink(missing_ok=True)
        note(storage, f"undone-{name}")

    def free_image(self, storage: Call, volname: str, is_base: bool, format: str | None) -> None:
        misbehave(storage, "free_image")
        (Path(storage.config.dir or "/nonexistent") / volname).unlink(missing_ok=True)

    def activate_volume(
        self, storage: Call, volname: str, snapname: str | None, hints: Hints
    ) -> None:
        misbehave(storage, "activate_volume")

    def deactivate_volume(self, storage: Call, volname: str, snapname: str | None) -> None:
        misbehave(storage, "deactivate_volume")
