# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Somebody else's plugin, packaged by ``dh --with pve-pybridge``, with a drop-in of its own."""

from __future__ import annotations

from . import packages
from .context import Context, expect
from .step_remove import OURS, kept


def vendor(node: Context) -> str:
    """Build it, install it, use it, look at its sandbox, purge it."""
    node.publish(packages.vendor)
    before, _ = node.pids(), node.triggers()
    node.apt("install acme-storage")
    node.consistent()
    expect(node.triggers() == 1, "PVE wasn't told")
    node.machine.run("mkdir -p /srv/acme")
    answer = node.machine.inside("life", "s-acme", "acme", {"path": "/srv/acme"})
    expect(answer["good"], f"acme: {answer}")
    expect(node.pids() == before, "other types' services were restarted")
    unit = "pve-pybridge@acme.service"
    pid = node.machine.out(f"systemctl show -P MainPID {unit}")
    for path in ("/usr/share/acme-storage/x", "/etc/x", "/root/x", "/var/lib/x"):
        done = node.machine.run(f"nsenter -t {pid} -m touch {path}", check=False)
        expect("Read-only file system" in done.stderr, f"it can write {path}")
    node.machine.run(f"nsenter -t {pid} -m touch /srv/acme/x")
    figure = node.machine.out(f"systemd-analyze security --no-pager {unit} | tail -1").split(": ")[
        1
    ]
    node.apt("purge acme-storage")
    node.consistent()
    expect(kept(node) == OURS, "others' sections are gone")
    left = node.machine.out(
        "ls -d /etc/pve-pybridge/plugins.d/acme* /run/pve-pybridge/acme*", check=False
    )
    expect(not left, f"left behind: {left}")
    return (
        f"built, used, purged; by its drop-in it writes in /srv only, exposure {figure.split()[0]}"
    )
