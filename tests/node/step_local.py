# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""A plugin without a package: enabled, enabled again while it works, and disabled."""

from __future__ import annotations

import time

from .context import Context, expect

FILE = "/opt/local/tower.py"
CONFIG = "/etc/pve/storage.cfg"
STORAGES = "/usr/libexec/pve-pybridge/storages"
UNIT = "pve-pybridge@tower.service"
SECONDS = 20
PLUGIN = f"""
import sys
import time
from pve_pybridge import Status, StorageConfig, StoragePlugin

class Tower(StoragePlugin[StorageConfig]):
    type = "tower"

    def path(self, storage, volname, snapname):
        return volname

    def status(self, storage):
        return Status(total=1, avail=1, used=0)

    def list_images(self, storage, vmid, vollist):
        return []

    def activate_volume(self, storage, volname, snapname, hints):
        time.sleep({SECONDS})
        storage.log("by the old code")
"""
CALL = "pve-pybridge call t-1 activate_volume volname=vm-1-disk-0"


def local(node: Context) -> str:
    """New code comes without cutting a call; code that can't be served changes nothing."""
    machine = node.machine
    before = machine.out(f"cat {CONFIG}")
    machine.write(FILE, PLUGIN)
    machine.run(f"pve-pybridge enable {FILE}")
    machine.run(f"printf '\\ntower: t-1\\n\\tcontent images\\n' >>{CONFIG}")
    machine.run("pve-pybridge call t-1 status")
    machine.run(f"({CALL} >/run/call 2>&1; echo status $? >>/run/call) >/dev/null 2>&1 &")
    node.wait("the call runs", lambda: "activate_volume" in running(node))
    old = pid(node)

    machine.write(FILE, PLUGIN.replace("total=1", "total=2"))
    started = time.monotonic()
    machine.run(f"pve-pybridge enable {FILE}")
    took = time.monotonic() - started
    expect(pid(node) not in ("0", old), "nobody took over")
    expect(said(node) == "", "the call is over already")
    expect("of 2 B" in machine.out("pve-pybridge call t-1 status"), "the old code answers")

    machine.write(FILE, f"{PLUGIN}\nif 'serve' in sys.argv:\n    raise OSError('not today')\n")
    new = pid(node)
    done = machine.run(f"pve-pybridge enable {FILE}", check=False)
    expect(done.returncode == 1 and "goes on with the old code" in done.stderr, done.stderr)
    expect(pid(node) == new, "the server that worked is gone")
    expect("of 2 B" in machine.out("pve-pybridge call t-1 status"), "nobody answers")

    node.wait("the long call ends", lambda: "status" in said(node), SECONDS + 20)
    expect(said(node) == "by the old code\nok\nstatus 0", said(node))
    machine.run("pve-pybridge disable --force tower")
    expect(pid(node) == "0", "its service goes on")
    machine.write(CONFIG, f"{before}\n", 0o640)  # as PVE writes it without the type
    saved = machine.out(f"{STORAGES} saved tower")
    expect(saved == "t-1 (tower)", f"the package finds saved: {saved}")
    machine.run(f"{STORAGES} restore tower")
    expect("tower: t-1\n\tcontent images" in machine.out(f"cat {CONFIG}"), "not restored")
    machine.write(CONFIG, f"{before}\n", 0o640)
    machine.run("rm /var/backups/pve-pybridge/storage.cfg")
    return (
        f"enabled again in {took:.1f} s while a call ran on; what can't start changes nothing;"
        " what disable saved, the package restores"
    )


def pid(node: Context) -> str:
    """The server's."""
    return node.machine.out(f"systemctl show -P MainPID {UNIT}")


def running(node: Context) -> str:
    """What the server is doing."""
    return node.machine.out("pve-pybridge stats tower")


def said(node: Context) -> str:
    """What the long call has printed."""
    return node.machine.out("cat /run/call")
