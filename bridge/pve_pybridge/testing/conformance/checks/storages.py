# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""C. Storage level: activation, status, identity."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from ..literal import perl
from ..outcome import NotApplicable
from ..subject import STOREID, Subject

SLOW_SECONDS: Final = 1.0
STATUS_SECONDS: Final = 3.0
"""Then the host answers in the plugin's place."""
UNREACHABLE: Final = "check-gone"
TWIN: Final = "check-twin"


def activation_is_idempotent(s: Subject) -> None:
    """C-035: ten times, each in no time."""
    for _ in range(10):
        answer = s.attempt("activate_storage", STOREID)
        if answer.error is not None:
            s.fail("the storage is active, and can't be activated again")
        if answer.call.seconds > SLOW_SECONDS:
            s.fail(f"activating an active storage took {answer.call.seconds:.1f} s")


@contextmanager
def unreachable(s: Subject) -> Iterator[None]:
    """For a while there is a storage ``check-gone`` whose backend doesn't answer."""
    if s.unreachable is None:
        raise NotApplicable("no backend to miss was named (--unreachable key=value)")
    before = s.node.config_file.read_text()
    lines = [f"\t{key} {value}\n" for key, value in sorted(s.unreachable.items())]
    s.node.config_file.write_text(f"{before}\n{s.type}: {UNREACHABLE}\n{''.join(lines)}\n")
    s.node.refresh()
    try:
        yield
    finally:
        s.node.config_file.write_text(before)
        s.node.refresh()


def connection_check_says_no(s: Subject) -> None:
    """C-036: false, and soon."""
    s.need("check_connection")
    with unreachable(s):
        answer = s.try_method("check_connection", storeid=UNREACHABLE)
        if answer.error is not None:
            s.fail("check_connection must return false when the backend is unreachable, not die")
        if answer.value:
            s.fail("the backend is unreachable, and check_connection says it's there")
        if answer.call.seconds > 5:
            s.fail(f"check_connection took {answer.call.seconds:.1f} s to notice")


def status_is_quick(s: Subject) -> None:
    """C-037: with a healthy backend by itself, and without one in time."""
    answer = s.attempt("storage_info")
    if answer.error is not None:
        s.fail("storage_info failed")
    if answer.call.seconds >= STATUS_SECONDS:
        s.fail(
            f"status gave no answer within {STATUS_SECONDS:g} s, so the host answered for it:"
            f" {perl(answer.value.get(STOREID))}"
        )
    if s.unreachable is None:
        return
    with unreachable(s):
        answer = s.attempt("storage_info")
        if answer.error is not None or not answer.value[STOREID]["active"]:
            s.fail("one unreachable storage takes the other with it")
        if answer.call.seconds > 5 + STATUS_SECONDS:
            s.fail(f"asking for an unreachable storage's status took {answer.call.seconds:.1f} s")


def status_makes_sense(s: Subject) -> None:
    """C-038: in a process that never activated a volume."""
    session = s.node.session()
    answer = s.attempt("storage_info", session=session)
    session.close()
    if answer.error is not None:
        s.fail("storage_info failed")
    found = answer.value[STOREID]
    if not found["active"]:
        s.fail(f"the storage is inactive: {answer.stderr.strip() or 'status said so'}")
    total, avail, used = (int(found[key]) for key in ("total", "avail", "used"))
    if not total >= avail >= 0:
        s.fail(f"total {total} ≥ avail {avail} ≥ 0 doesn't hold")
    if not total >= used >= 0:
        s.fail(f"total {total} ≥ used {used} ≥ 0 doesn't hold")
    _in_bytes(s, total)


def _in_bytes(s: Subject, total: int) -> None:
    """A storage in a directory of ours: its file system's size gives a wrong unit away."""
    ours = [v for v in s.values.values() if v.startswith(f"{s.node.base}/")]
    if not ours or not os.path.isdir(ours[0]):
        return
    fs = os.statvfs(ours[0])
    real = fs.f_blocks * fs.f_frsize
    for unit, factor in (("KiB", 1 << 10), ("MiB", 1 << 20)):
        if total and abs(real / (total * factor) - 1) < 0.01:
            s.fail(f"total is {total}, the file system has {real} bytes: these are {unit}")


def deactivation_without_activation(s: Subject) -> None:
    """C-039: in processes, PVE's and the plugin's, that never activated the storage."""
    volid = s.volume()
    s.node.restart()
    session = s.node.session()
    answer = s.attempt("deactivate_volumes", [volid], session=session)
    session.close()
    if answer.error is not None:
        s.fail(f"deactivating needs an activated storage: {answer.stderr.strip()}")


def identity(s: Subject) -> None:
    """C-041: the backend's, not the configuration's or the process'."""
    if s.settings.apiver < 14:
        raise NotApplicable("get_identity came with APIVER 14")
    if not s.has("get_identity"):
        session = s.node.session()
        code = "PVE::Storage::Plugin->lookup($ARGS[0])->get_identity({}, 'check')"
        answer = s.run("$class->get_identity($scfg, 'check')", code, s.type, session=session)
        session.close()
        if answer.error is None:
            s.fail("get_identity is not implemented, and must die")
        return
    first = s.method("get_identity")
    if not first:
        s.fail("the identity is empty")
    s.node.restart()
    again = s.method("get_identity")
    if again != first:
        s.fail(f"another process of the plugin gives '{again}' instead of '{first}'")
    added = s.node.api("create", {"storage": TWIN, "type": s.type, **s.values})
    if added.error is not None:
        return
    try:
        twin = s.method("get_identity", storeid=TWIN)
    finally:
        s.node.api("delete", {"storage": TWIN})
    if twin != first:
        s.fail(f"under another storage ID the same backend has the identity '{twin}'")


CHECKS: Final = {
    "C-035": activation_is_idempotent,
    "C-036": connection_check_says_no,
    "C-037": status_is_quick,
    "C-038": status_makes_sense,
    "C-039": deactivation_without_activation,
    "C-041": identity,
}
