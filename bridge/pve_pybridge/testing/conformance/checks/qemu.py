# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""F. What QEMU is told, and who takes the snapshots of a running guest."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

from ..disk import is_device
from ..outcome import NotApplicable
from ..subject import Subject
from .snapshots import snapshot_volume

DRIVERS: Final = {
    "file": ("filename",),
    "host_device": ("filename",),
    "iscsi": (
        *("transport", "portal", "target", "lun"),
        *("initiator-name", "header-digest", "timeout"),
    ),
    "nbd": ("server", "export", "reconnect-delay", "open-timeout"),
    "rbd": (
        *("pool", "namespace", "image", "conf", "snapshot", "encrypt"),
        *("user", "auth-client-required", "server"),
    ),
}
"""Drivers that core allows, each with its options; others are dropped (contract 4.4)."""
NUMBERS: Final = ("lun", "timeout", "reconnect-delay", "open-timeout")
MACHINES: Final = ("10.0+pve0", "pc-q35-10.1", None)


def _since_12(s: Subject) -> None:
    if s.settings.apiver < 12:
        raise NotApplicable("this came with APIVER 12")


def _options(s: Subject, volid: str, machine: str | None, **more: object) -> Any:
    return s.attempt("qemu_blockdev_options", volid, machine, {"hints": {}, **more})


def blockdev_options(s: Subject) -> None:
    """C-081: allowed drivers and options, of the right types."""
    _since_12(s)
    volid = s.volume()
    if s.parse(volid)[6] == "subvol":
        raise NotApplicable("volumes of this storage are directories")
    s.ask("activate_volumes", [volid])
    for machine in MACHINES:
        for hints in ({}, {"efi-disk": 1}):
            answer = _options(s, volid, machine, hints=hints)
            if answer.error is not None:
                s.fail("QEMU can't be told how to open the volume")
            given = s.method(
                "qemu_blockdev_options",
                volname=volid.partition(":")[2],
                machine_version=machine,
                options={"hints": hints},
            )
            _check_node(s, given)


def _check_node(s: Subject, node: Mapping[str, Any]) -> None:
    allowed = DRIVERS.get(str(node.get("driver")))
    if allowed is None:
        s.fail(f"core allows the drivers {', '.join(DRIVERS)}, not {node.get('driver')!r}")
    for key, value in node.items():
        if key != "driver" and key not in allowed:
            s.fail(f"core drops the option '{key}' of driver '{node['driver']}', with a warning")
        if key in NUMBERS and not isinstance(value, int):
            s.fail(f"'{key}' must be a number in JSON, not {value!r}")
    if node["driver"] not in ("file", "host_device"):
        return
    path = str(node.get("filename"))
    if not os.path.exists(path):
        s.fail(f"'{path}' doesn't exist")
    if is_device(path) != (node["driver"] == "host_device"):
        s.fail(f"'{path}' can't be opened with driver '{node['driver']}'")


def snapshots_for_qemu(s: Subject) -> None:
    """C-082: the snapshot, or nothing."""
    _since_12(s)
    s.need("volume_snapshot")
    volid = snapshot_volume(s)
    s.ask("activate_volumes", [volid])
    with s.preparing():
        s.ask("volume_snapshot", volid, "check1")
    live = _options(s, volid, MACHINES[0])
    if live.error is not None:
        s.fail("QEMU can't be told how to open the volume")
    s.attempt("activate_volumes", [volid], "check1")
    answer = _options(s, volid, MACHINES[0], **{"snapshot-name": "check1"})
    s.attempt("deactivate_volumes", [volid], "check1")
    if answer.error is None and answer.value == live.value:
        s.fail("asked for a snapshot, it opens the live volume")


def snapshot_method(s: Subject) -> None:
    """C-083: qemu, storage or mixed, asked without looking."""
    _since_12(s)
    volid = s.volume()
    for volume in (volid, volid.replace("disk-0", "disk-77")):
        answer = s.ask("volume_qemu_snapshot_method", volume)
        if answer not in ("qemu", "storage", "mixed"):
            s.fail("the answer must be qemu, storage or mixed")
        if answer != "storage" and s.parse(volume)[6] != "qcow2":
            s.fail(f"a '{s.parse(volume)[6]}' volume has no snapshots of QEMU's")


CHECKS: Final = {
    "C-081": blockdev_options,
    "C-082": snapshots_for_qemu,
    "C-083": snapshot_method,
}
