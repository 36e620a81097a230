# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""The service under a real systemd: what it may, whom PVE sees, and a daemon that outlives it."""

from __future__ import annotations

from .context import LOCAL, Context, expect

LIMIT = 7.0
"""Highest exposure by systemd-analyze that we accept: what a mount namespace would lower is out."""

EPERM, EAFNOSUPPORT = 1, 97
# Tried by a process with the properties of the service: Python, which exits with the errno.
FORBIDDEN = {
    "load a module": ("end(libc.syscall(313, -1, b'', 0))", EPERM),
    "set the clock": ("end(libc.adjtime(bytes(16), None))", EPERM),
    "reboot": ("end(libc.reboot(0x89ABCDEF))", EPERM),
    "make a namespace": ("end(libc.unshare(0x20000))", EPERM),
    "change the root": ("end(libc.chroot(b'/'))", EPERM),
    "trace": ("end(libc.ptrace(16, 1, 0, 0))", EPERM),
    "speak AF_PACKET": ("end(libc.socket(17, 3, 0))", EAFNOSUPPORT),
}
TRY = """
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
def end(result):
    sys.exit(ctypes.get_errno() if result == -1 else 0)
"""
ALLOWED = {
    "mount": "mkdir -p /run/mnt && mount -t tmpfs none /run/mnt && umount /run/mnt",
    "attach a loop device": "truncate -s 1M /srv/loop; losetup -d $(losetup -f --show /srv/loop)",
    "write a volume": "touch /srv/volume",
    "ask systemd": "systemctl show -P Version",
}
PROPERTIES = (
    *("NoNewPrivileges", "CapabilityBoundingSet", "RestrictAddressFamilies", "RestrictNamespaces"),
    *("RestrictRealtime", "LockPersonality", "SystemCallArchitectures"),
)


def sandbox(node: Context) -> str:
    """Its figure, its mount namespace, and what a process like it can't do."""
    unit = "pve-pybridge@pydir.service"
    node.active()
    told = node.machine.out(f"systemd-analyze security --no-pager {unit} | tail -1")
    figure = float(told.split(": ")[1].split()[0])
    expect(figure <= LIMIT, f"exposure {figure}")
    pid = node.pids()["pydir"]
    same = node.machine.out(f"readlink /proc/1/ns/mnt /proc/{pid}/ns/mnt | uniq | wc -l")
    expect(same == "1", "the service has a mount namespace: what it mounts is invisible to PVE")
    command = sandboxed(node)
    for name, (code, error) in FORBIDDEN.items():
        node.machine.write("/root/try", TRY + code + "\n")
        done = node.machine.run(f"{command} python3 /root/try", check=False, timeout=30)
        expect(done.returncode == error, f"{name}: {done.returncode} instead of errno {error}")
    for script in ALLOWED.values():
        node.machine.write("/root/try", f"set -e\n{script}\n")
        node.machine.run(f"{command} sh /root/try", timeout=30)
    return (
        f"exposure {figure} of 10, PVE's mount namespace; can't {', '.join(FORBIDDEN)};"
        f" can {', '.join(ALLOWED)}"
    )


def sandboxed(node: Context) -> str:
    """The command that runs another one with the properties of our service, read from the unit."""
    unit = node.machine.out("cat $(systemctl show -P FragmentPath pve-pybridge@pydir.service)")
    wanted = [
        line
        for line in unit.splitlines()
        if line.split("=")[0] in (*PROPERTIES, "SystemCallFilter", "SystemCallErrorNumber")
    ]
    expect(len(wanted) >= len(PROPERTIES), "the unit has lost its sandbox")
    options = " ".join(f"-p '{line}'" for line in wanted)
    return f"systemd-run --quiet --collect --pipe --wait {options}"


def detached(node: Context) -> str:
    """pynbd's storage daemon has a unit of its own: a restart of the plugin leaves it alone."""
    node.active()
    volid = node.perl("PVE::Storage::vdisk_alloc($cfg, 's-pynbd', 100, 'raw', undef, 8192)")[
        "value"
    ]
    node.perl("PVE::Storage::activate_volumes($cfg, [$ARGS[0]], undef, {}); undef", volid)
    daemon = node.machine.out("cat /run/pve-pybridge-nbd/*/pid")
    expect(daemon.isdigit(), f"storage daemons: {daemon!r}")
    cgroup = node.machine.out(f"cat /proc/{daemon}/cgroup").splitlines()[-1]
    expect("pve-pybridge@" not in cgroup, f"it is in the service's cgroup: {cgroup}")
    path = node.perl("scalar(PVE::Storage::path($cfg, $ARGS[0]))", volid)["value"]
    write = f"qemu-io -f raw -c 'write -P 90 0 1M' '{path}'"
    read = f"qemu-io -f raw -r -c 'read -P 90 0 1M' '{path}'"
    node.machine.run(write)
    for how in ("restart", "kill --signal=KILL", "stop"):
        node.machine.run(f"systemctl {how} pve-pybridge@pynbd.service")
        node.machine.run(f"test -d /proc/{daemon} && {read} | grep -q 'read 1048576/1048576'")
    node.perl("PVE::Storage::deactivate_volumes($cfg, [$ARGS[0]]); undef", volid)
    node.perl("PVE::Storage::vdisk_free($cfg, $ARGS[0]); undef", volid)
    node.wait(
        "end of the daemon", lambda: not node.machine.out(f"ls -d /proc/{daemon}", check=False)
    )
    left = node.machine.out("systemctl list-units --failed --plain --no-legend --all")
    expect(not left, f"failed units: {left}")
    expect(all(node.active()[f"s-{t}"] for t in LOCAL), "inactive storages")
    return f"restart, kill and stop of the service leave it and its data; it is in {cgroup[3:]}"
