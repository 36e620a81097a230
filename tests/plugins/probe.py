# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Implements every method, writes down what it was called with, misbehaves as its options say.

``probe-mode`` names the fault, ``probe-value`` its details; a volume called ``vm-<n>-mode-<fault>``
does the same for calls without configuration.  What arrived is in ``probe.seen``, see probe_util.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from pve_pybridge import (
    Cleanup,
    Hints,
    NotSupported,
    ParameterError,
    PruneEntry,
    RollbackBlocked,
    Secret,
    SnapshotInfo,
    Status,
    Storage,
    StorageConfig,
    StorageError,
    StoragePlugin,
    Volume,
    VolumeSize,
    option,
    secret,
)
from pve_pybridge.paths import run_dir

EXABYTE: Final = 1 << 60


@dataclass(frozen=True, kw_only=True)
class ProbeConfig(StorageConfig):
    mode: str | None = option("which fault", default=None)
    value: str | None = option("details of the fault", default=None)
    limit: int | None = option("an integer", default=None, minimum=0)
    ratio: float | None = option("a number", default=None)
    eager: bool = option("a flag", default=False)
    generated: str | None = option("set by a hook", default=None)
    token: Secret | None = secret("only new hosts know it")
    password: Secret | None = secret("one of PVE's own", builtin="password")


Call = Storage[ProbeConfig]
Given = dict[str, Any]


def _bug(storage: Call, value: str) -> None:
    raise KeyError("boom\nsecond line")


def _user(storage: Call, value: str) -> None:
    raise StorageError(value or "the pool is full\n  and so is the other\n")


def _param(storage: Call, value: str) -> None:
    raise ParameterError({"probe-limit": "too much", "probe-mode": value or "no such mode"})


def _unsupported(storage: Call, value: str) -> None:
    raise NotSupported("the pool can't do that")


def _log(storage: Call, value: str) -> None:
    storage.log("first")
    logging.getLogger("probe").warning("only in the server's log")
    storage.warn("second, ünïcode")
    storage.log("third\nand its second line")
    storage.progress(1 << 30, 10 << 30)


def _flood(storage: Call, value: str) -> None:
    ends = time.monotonic() + float(value)
    while time.monotonic() < ends:
        storage.log("still busy")
        time.sleep(0.05)


def _sleep(storage: Call, value: str) -> None:
    """Ends early when the caller goes; what became of it is in the record."""
    note(storage, "sleeping", {})
    try:
        storage.sleep(float(value))
    except BaseException as err:
        note(storage, "woken", {"by": type(err).__name__})
        raise


def _hold(storage: Call, value: str) -> None:
    """Runs a command until the caller goes."""
    storage.on_failure(note, storage, "undone", {})
    storage.run(["sleep", value])


def _print(storage: Call, value: str) -> None:
    print("printed by the plugin", flush=True)
    subprocess.run(["echo", "printed by a child"], check=True)


FAULTS: Final[dict[str, Callable[[Call, str], None]]] = {
    "bug": _bug,
    "user": _user,
    "param": _param,
    "unsupported": _unsupported,
    "log": _log,
    "flood": _flood,
    "sleep": _sleep,
    "hold": _hold,
    "hang": lambda storage, value: time.sleep(float(value)),
    "exit": lambda storage, value: sys.exit(3),
    "die": lambda storage, value: os._exit(9),
    "print": _print,
}

WRONG: Final[dict[str, object]] = {
    "none": None,
    "int": 17,
    "str": "text",
    "list": [1, 2],
    "map": {"a": {"b": 1}},
    "object": object(),
    "float": 1.5,
    "bytes": b"\xff",
    "surrogate": "\ud800",
    "huge": 1 << 70,
    "big": "x" * (64 << 20),
    "badvolume": [Volume(volname="vm-1-disk-0", format="raw", size="big")],  # type: ignore[arg-type]
    "namelessvolume": [Volume(volname=None, format="raw", size=1)],  # type: ignore[arg-type]
    "badstatus": Status("a", 1, 1),  # type: ignore[arg-type]
}


def note(storage: Call, method: str, given: Given) -> None:
    """Append one line to the record."""
    entry = {
        "method": method,
        "storeid": storage.storeid,
        "args": given,
        "operation": storage.call.operation,
        "remaining": storage.deadline and storage.deadline - time.monotonic(),
        "host": {
            "apiver": storage.host.apiver,
            "apiage": storage.host.apiage,
            "hints": sorted(storage.host.hints),
            "pid": storage.host.pid,
        },
        "config": {k: v for k, v in vars(storage.config).items() if v not in (None, frozenset())},
        "scfg": dict(storage.scfg),
        "secrets": {name: storage.secret(name) for name in ("token", "password")},
    }
    with (run_dir() / "probe.seen").open("a") as file:
        file.write(json.dumps(entry, default=_shown) + "\n")


def _shown(value: object) -> object:
    if isinstance(value, Hints):
        return {
            "given": dict(value),
            "windows": value.guest_is_windows,
            "may_deactivate": value.plugin_may_deactivate_volume,
            "supported": value.supported("guest-is-windows"),
            "nonsense": value.supported("nonsense"),
        }
    return sorted(value) if isinstance(value, frozenset) else repr(value)


def _volumes(storage: Call, given: Given) -> list[Volume]:
    if storage.config.mode == "empty":
        return []
    common: dict[str, Any] = {"format": "raw", "vmid": given["vmid"] or 100}
    return [
        Volume(volname="vm-100-disk-0", size=EXABYTE + 1, ctime=1700000000, **common),
        Volume(volname="vm-100-disk-1", approximate_size=5, name="ü", notes="ü", **common),
    ]


def _listed(storage: Call, given: Given) -> list[Volume]:
    return [Volume(volname="vm-100-disk-0", format="raw", size=1, content="images", notes="nöte")]


def _on_add(storage: Call, given: Given) -> Given | None:
    if storage.config.mode == "generate":
        given["scfg"]["probe-generated"] = "made on add"
        given["scfg"].pop("probe-value", None)
        return {"probe-token": "shown once"}
    return None


def _on_update(storage: Call, given: Given) -> Given | None:
    if given["update"].get("probe-mode") == "generate":
        given["update"]["probe-generated"] = "made on update"
    return None


def _rollback(storage: Call, given: Given) -> None:
    if given["snapname"] != "newest":
        raise RollbackBlocked("newer snapshots exist", ["snap2", "snäp3"])


def _transfer(storage: Call, given: Given) -> None:
    """Export: eight bytes of size, then as many bytes."""
    data = storage.volid(given["volname"]).encode()
    os.write(given["fh"], len(data).to_bytes(8, "little") + data)


def _receive(storage: Call, given: Given) -> str:
    size = int.from_bytes(os.read(given["fh"], 8), "little")
    data = os.read(given["fh"], size)
    note(storage, "received", {"data": data.decode()})
    if len(data) < size:
        raise StorageError(f"the stream ended after {len(data)} of {size} bytes")
    return "vm-9-imported"


def _blockdev(storage: Call, given: Given) -> Given:
    server = {"type": "unix", "path": "/run/x.sock"}
    return {"driver": "nbd", "server": server, "export": "ü", "open-timeout": 5, "flag": True}


def _prune(storage: Call, given: Given) -> list[PruneEntry]:
    storage.log("removing 1")
    storage.warn("can't remove 2")
    return [PruneEntry("backup/a.vma", 1, "qemu", "keep", 100), PruneEntry("b", 2, "lxc", "remove")]


ANSWERS: Final[dict[str, Callable[[Call, Given], object]]] = {
    "on_add_hook": _on_add,
    "on_update_hook_full": _on_update,
    "on_delete_hook": lambda storage, given: None,
    "path": lambda storage, given: f"{run_dir()}/{given['volname']}@{given['snapname'] or ''}",
    "get_formats": lambda storage, given: ["qcow2", "raw"],
    "check_connection": lambda storage, given: storage.config.mode != "offline",
    "activate_storage": lambda storage, given: None,
    "deactivate_storage": lambda storage, given: None,
    "status": lambda storage, given: (
        None if storage.config.mode == "inactive" else Status(EXABYTE, (1 << 53) + 1, 3)
    ),
    "get_identity": lambda storage, given: "identity",
    "alloc_image": lambda storage, given: given["name"] or f"vm-{given['vmid']}-disk-7",
    "clone_image": lambda storage, given: f"vm-{given['vmid']}-disk-8",
    "create_base": lambda storage, given: given["volname"].replace("vm-", "base-", 1),
    "free_image": lambda storage, given: Cleanup({"left": given["volname"], "size": EXABYTE}),
    "free_image_cleanup": lambda storage, given: None,
    "list_images": _volumes,
    "list_volumes": _listed,
    "volume_size_info": lambda storage, given: VolumeSize(EXABYTE + 1, "raw", 7, "pärent", 8),
    "volume_resize": lambda storage, given: None,
    "rename_volume": lambda storage, given: given["target_volname"] or "vm-9-disk-9",
    "volume_has_feature": lambda storage, given: given["feature"] == "snapshot",
    "get_import_metadata": lambda storage, given: {"type": "vm", "disks": {"scsi0": True}},
    "volume_snapshot": lambda storage, given: None,
    "volume_snapshot_delete": lambda storage, given: None,
    "volume_snapshot_rollback": lambda storage, given: None,
    "volume_rollback_is_possible": _rollback,
    "volume_snapshot_info": lambda storage, given: {
        "s1": SnapshotInfo(id="7", timestamp=1, virtual_size=EXABYTE)
    },
    "rename_snapshot": lambda storage, given: None,
    "volume_qemu_snapshot_method": lambda storage, given: "mixed",
    "activate_volume": lambda storage, given: None,
    "deactivate_volume": lambda storage, given: None,
    "map_volume": lambda storage, given: "/dev/mapped",
    "unmap_volume": lambda storage, given: None,
    "qemu_blockdev_options": _blockdev,
    "get_volume_attribute": lambda storage, given: (
        "nötes ✓" if given["attribute"] == "notes" else None
    ),
    "update_volume_attribute": lambda storage, given: None,
    "prune_backups": _prune,
    "volume_export_formats": lambda storage, given: ["raw+size", "tar+size"],
    "volume_import_formats": lambda storage, given: [],
    "volume_export": _transfer,
    "volume_import": _receive,
}


def _method(name: str) -> Any:
    def method(self: Probe, storage: Call, *args: Any, **given: Any) -> object:
        note(storage, name, given)
        mode, value = storage.config.mode or "", storage.config.value or ""
        if ":" in mode:  # only this method
            only, _, mode = mode.partition(":")
            mode = mode if only == name else ""
        if mode in FAULTS:
            FAULTS[mode](storage, value)
        return WRONG[value] if mode == "wrong" else ANSWERS[name](storage, given)

    return method


class Probe(StoragePlugin[ProbeConfig]):
    """All methods are made below: see ANSWERS."""

    type = "probe"
    content = ("images", "rootdir", "backup", "import")
    default_content = ("images",)
    formats = ("raw", "qcow2")


for _name in ANSWERS:
    setattr(Probe, _name, _method(_name))
