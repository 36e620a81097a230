# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Third act: ``pynbd``.  A guest's disk doesn't notice that the plugin is restarted."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from stage import Stage

RUN = Path("/run/pve-pybridge-nbd")


def play(stage: Stage) -> None:
    """Write, take a snapshot, restart the plugin server, read, roll back."""
    missing = [p for p in ("qemu-storage-daemon", "qemu-nbd") if shutil.which(p) is None]
    if missing or os.geteuid() != 0:
        why = f"{missing[0]} is not installed" if missing else "it needs root"
        stage.leave_out("pynbd", why)
        return
    storeid = f"nbd{os.getpid()}"  # the daemon's sockets are in /run, under this name
    stage.act("pynbd", "thin volumes over NBD, served by a daemon that outlives the plugin")
    folder = stage.base / "nbd"
    folder.mkdir()
    stage.step(
        "PVE::API2::Storage::Config->create",
        "PVE::API2::Storage::Config->create({ storage => $ARGS[0], type => 'pynbd',"
        " 'pynbd-folder' => $ARGS[1], content => 'images' }); undef",
        storeid,
        str(folder),
    )
    volid = stage.step(
        "PVE::Storage::vdisk_alloc, 64 MiB",
        "PVE::Storage::vdisk_alloc($cfg, $ARGS[0], 100, 'raw', undef, 65536)",
        storeid,
        expect=f"{storeid}:vm-100-disk-0",
    )
    use(stage, "activate_volumes($cfg, [$ARGS[0]])", volid)
    try:
        image = stage.image(volid, {"driver": "nbd", "export": "vm-100-disk-0"})
        stage.tool("qemu-io: write 0x5a over NBD", ["qemu-io", "-c", "write -P 0x5a 0 1M", image])
        use(stage, "volume_snapshot($cfg, $ARGS[0], 'before')", volid)  # by the daemon, online
        stage.restart("pynbd", "the plugin server is killed and started again")
        stage.tool(
            "qemu-io: 0x5a is still there, and can be overwritten",
            ["qemu-io", "-c", "read -P 0x5a 0 1M", "-c", "write -P 0xa5 0 1M", image],
        )
    finally:
        use(stage, "deactivate_volumes($cfg, [$ARGS[0]])", volid)
    use(stage, "volume_snapshot_rollback($cfg, $ARGS[0], 'before')", volid)
    file = str(folder / "vm-100-disk-0.qcow2")
    stage.tool("qemu-io: 0x5a is back", ["qemu-io", "-r", "-c", "read -P 0x5a 0 1M", file])
    use(stage, "vdisk_free($cfg, $ARGS[0])", volid)
    left = sorted(path.name for path in folder.iterdir())
    stage.check("nothing left in the directory", not left, ", ".join(left))
    shutil.rmtree(RUN / storeid)


def use(stage: Stage, call: str, volid: str) -> None:
    """One call of PVE::Storage."""
    stage.step(f"PVE::Storage::{call.partition('(')[0]}", f"PVE::Storage::{call}; undef", volid)
