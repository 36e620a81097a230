# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Second act: ``pyloop``.  Hints decide how a volume is attached, and the kernel shows it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from stage import Stage

ALLOC = "PVE::Storage::vdisk_alloc($cfg, 'loop', 100, 'raw', undef, 65536)"
ACTIVATE = "PVE::Storage::activate_volumes($cfg, [$ARGS[0]], undef, $ARGS[1]); undef"
WINDOWS = {"guest-is-windows": 1}


def play(stage: Stage) -> None:
    """A volume whose guest turns out to be Windows."""
    if os.geteuid() != 0 or not Path("/dev/loop-control").exists():
        stage.leave_out("pyloop", "it needs root and loop devices")
        return
    stage.act("pyloop", "image files as loop devices; a Windows guest asks for direct I/O")
    folder = stage.base / "loop"
    folder.mkdir()
    stage.step(
        "PVE::API2::Storage::Config->create",
        "PVE::API2::Storage::Config->create({ storage => 'loop', type => 'pyloop',"
        " 'pyloop-folder' => $ARGS[0], content => 'images' }); undef",
        str(folder),
    )
    volid = stage.step("PVE::Storage::vdisk_alloc, 64 MiB", ALLOC, expect="loop:vm-100-disk-0")
    stage.step("PVE::Storage::activate_volumes without hints", ACTIVATE, volid, {})
    direct_io(stage, folder, False)
    if stage.apiver >= 13:  # PVE passes no hints before
        hints(stage, folder, volid)
    image = stage.image(volid, {"driver": "host_device"})
    stage.tool(
        "qemu-io: write and read back 1 MiB through the device",
        ["qemu-io", "-c", "write -P 0x5a 0 1M", "-c", "read -P 0x5a 0 1M", image],
    )
    stage.step("PVE::Storage::vdisk_free", "PVE::Storage::vdisk_free($cfg, $ARGS[0]); undef", volid)
    stage.check("no loop device left", not devices(folder), str(devices(folder)))


def hints(stage: Stage, folder: Path, volid: str) -> None:
    """What is attached stays so unless PVE says that nobody uses it; tuned, it stays tuned."""
    stage.step(
        "activate_volumes for Windows, but the volume may be in use",
        ACTIVATE,
        volid,
        WINDOWS,
        log="is active without direct-io=True, which takes effect later",
    )
    direct_io(stage, folder, False)
    stage.step(
        "activate_volumes for Windows, and the plugin may deactivate the volume",
        ACTIVATE,
        volid,
        {**WINDOWS, "plugin-may-deactivate-volume": 1},
    )
    direct_io(stage, folder, True)
    stage.step("activate_volumes again, without hints", ACTIVATE, volid, {})
    direct_io(stage, folder, True)


def devices(folder: Path) -> list[dict[str, object]]:
    """What the kernel has attached of the folder's files."""
    done = subprocess.run(["losetup", "--json", "--list"], capture_output=True, check=True)
    listed = json.loads(done.stdout)["loopdevices"] if done.stdout.strip() else []
    return [one for one in listed if one["back-file"].startswith(f"{folder}/")]


def direct_io(stage: Stage, folder: Path, expected: bool) -> None:
    """Ask the kernel."""
    found = devices(folder)
    name = Path(str(found[0]["name"])).name if found else "none"
    shown = [one["dio"] for one in found]
    title = f"/sys/block/{name}/loop/dio is {int(expected)}"
    stage.check(title, shown == [expected], f"found {shown}")
