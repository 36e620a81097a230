# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Fresh installation by apt; each bundled type works, its service started by the first call."""

from __future__ import annotations

import time

from . import packages
from .context import FOLDER, HAS_LOOPS, LOCAL, TYPES, Context, expect

STATUS = "PVE::Storage::storage_info($cfg)->{$ARGS[0]}->{active}"


def install(node: Context) -> str:
    """From nothing; nothing runs afterwards."""
    node.machine.run("mkdir -p /etc/pve/priv /var/lib/vz; touch /etc/pve/storage.cfg")
    node.machine.write("/etc/pve/storage.cfg", "dir: local\n\tpath /var/lib/vz\n\tcontent iso\n\n")
    node.publish(packages.listener)
    node.publish(lambda out: packages.copy(node.built, out))
    node.apt("install trigger-listener")
    node.triggers()
    started = time.monotonic()
    node.install(node.version)
    seconds = time.monotonic() - started
    node.consistent()
    expect(node.triggers() >= 1, "PVE wasn't told to load its plugins")
    expect(not node.running(), f"services run that nobody asked: {node.running()}")
    loading = node.perl("undef")["loading"]
    expect(not loading, f"PVE's modules warn: {loading}")
    return f"installed in {seconds:.1f} s, PVE's trigger fired, no service runs"


def types(node: Context) -> str:
    """A storage of each type, from the first call on; pyrbd, without a cluster, says so."""
    told = []
    for type_ in LOCAL:
        node.machine.run(f"mkdir -p /srv/{type_}")
        answer = node.machine.inside("life", f"s-{type_}", type_, {FOLDER[type_]: f"/srv/{type_}"})
        expect(answer["good"], f"{type_}: {answer}")
        expect(node.pids()[type_] > 0, f"{type_}: its service doesn't run")
        node.machine.run(f"systemctl stop pve-pybridge@{type_}.service")
        first = node.perl(STATUS, f"s-{type_}")
        expect(first["value"] == 1, f"{type_}: inactive: {first['stderr']}")
        told.append(f"{type_} {first['ms']:.0f} ms")
    node.machine.run("printf '\\npyrbd: s-pyrbd\\n\\tcontent images\\n' >> /etc/pve/storage.cfg")
    first = node.perl(STATUS, "s-pyrbd")
    expect(first["value"] == 0, "pyrbd is active without a cluster")
    reason = why_inactive(node, "s-pyrbd")
    if not HAS_LOOPS:
        node.machine.run(
            "printf '\\npyloop: s-pyloop\\n\\tpyloop-folder /srv\\n' >> /etc/pve/storage.cfg"
        )
        told.append("pyloop skipped, no loop devices")
        node.active()
    expect(sorted(node.running()) == sorted(TYPES), f"running: {node.running()}")
    return f"first answer with a cold start: {', '.join(told)}; pyrbd inactive: {reason}"


def why_inactive(node: Context, storeid: str) -> str:
    """What PVE says when it is to activate a storage that can't be."""
    answer = node.machine.inside(
        "perl", "PVE::Storage::activate_storage($cfg, $ARGS[0]); undef", storeid
    )
    expect(answer["error"] is not None, f"'{storeid}' can be activated")
    return " ".join(str(answer["error"]).split())


def reboot(node: Context) -> str:
    """After a reboot nothing runs before the first call, and all works."""
    seconds = node.machine.reboot()
    listening = node.machine.out("ls /run/pve-pybridge").split()
    expect(listening == [f"{type_}.sock" for type_ in TYPES], f"sockets: {listening}")
    expect(not node.running(), f"services run that nobody asked: {node.running()}")
    shown = node.active()
    for type_ in LOCAL:
        expect(shown.get(f"s-{type_}") == 1, f"{type_} is inactive after the reboot")
    return f"up in {seconds:.1f} s, 4 sockets, 0 services; all active with the first call"
