# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""``pve-pybridge doctor`` on a booted node: it finds what is wrong, and says how to mend it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from .context import Context, expect

_MANIFESTS: Final = "/etc/pve-pybridge/plugins.d"
_PLUGINS: Final = "/usr/share/pve-pybridge-plugins"
_SHIM: Final = "/usr/share/perl5/PVE/Storage/Custom/PyBridge.pm"


@dataclass(frozen=True)
class Fault:
    """How to bring it about, which check must see it and name what, how to take it back."""

    seed: str
    check: str
    named: str
    cure: str


FAULTS: Final = {
    "socket stopped": Fault(
        "systemctl stop pve-pybridge@pydir.socket",
        "units",
        "pve-pybridge@pydir.socket",
        "systemctl start pve-pybridge@pydir.socket",
    ),
    "socket not enabled": Fault(
        "systemctl disable pve-pybridge@pydir.socket",
        "units",
        "pve-pybridge@pydir.socket",
        "systemctl enable pve-pybridge@pydir.socket",
    ),
    "run directory open": Fault(
        "chmod 755 /run/pve-pybridge", "sockets", "/run/pve-pybridge", "chmod 700 /run/pve-pybridge"
    ),
    "socket open": Fault(
        "chmod 666 /run/pve-pybridge/pydir.sock",
        "sockets",
        "/run/pve-pybridge/pydir.sock",
        "chmod 600 /run/pve-pybridge/pydir.sock",
    ),
    "manifest writable": Fault(
        f"chmod 666 {_MANIFESTS}/pydir.json",
        "manifests",
        f"{_MANIFESTS}/pydir.json",
        f"chmod 644 {_MANIFESTS}/pydir.json",
    ),
    "manifest broken": Fault(
        f"echo '{{' > {_MANIFESTS}/torn.json",
        "manifests",
        f"{_MANIFESTS}/torn.json",
        f"rm {_MANIFESTS}/torn.json",
    ),
    "manifest of the future": Fault(
        f'echo \'{{"manifest": 99, "type": "later"}}\' > {_MANIFESTS}/later.json',
        "manifests",
        f"{_MANIFESTS}/later.json",
        f"rm {_MANIFESTS}/later.json",
    ),
    "manifest out of date": Fault(
        f"cp {_MANIFESTS}/pydir.json /root/kept;"
        f' sed -i \'s/"snippets"/"images"/\' {_MANIFESTS}/pydir.json',
        "manifests",
        f"{_MANIFESTS}/pydir.json",
        f"cat /root/kept > {_MANIFESTS}/pydir.json",
    ),
    "plugin gone": Fault(
        f"mv {_PLUGINS}/pydir.py /root/gone",
        "manifests",
        "pydir",
        f"mv /root/gone {_PLUGINS}/pydir.py; systemctl restart pve-pybridge@pydir.service",
    ),
    "plugin of somebody else": Fault(
        f"chown nobody {_PLUGINS}/pydir.py",
        "manifests",
        f"{_PLUGINS}/pydir.py",
        f"chown root {_PLUGINS}/pydir.py; systemctl restart pve-pybridge@pydir.service",
    ),
    "unknown type in storage.cfg": Fault(
        r"cp /etc/pve/storage.cfg /root/cfg;"
        r" printf '\n\nvanished: s-lost\n\tpath /srv\n' >> /etc/pve/storage.cfg",
        "storages",
        "s-lost",
        "cat /root/cfg > /etc/pve/storage.cfg",
    ),
    "secret readable": Fault(
        "install -D -m 644 /dev/null /etc/pve/priv/storage/s-pyrbd.keyring",
        "secrets",
        "s-pyrbd.keyring",
        "rm /etc/pve/priv/storage/s-pyrbd.keyring",
    ),
    "server hangs": Fault(
        "kill -STOP $(systemctl show -P MainPID pve-pybridge@pydir.service)",
        "servers",
        "pydir",
        "kill -CONT $(systemctl show -P MainPID pve-pybridge@pydir.service)",
    ),
    "shim gone": Fault(f"mv {_SHIM} /root/shim", "registration", "", f"mv /root/shim {_SHIM}"),
    "Perl module gone": Fault(
        "dpkg --force-depends --remove libio-fdpass-perl",
        "registration",
        "IO::FDPass",
        "apt-get -q -y --no-install-recommends install libio-fdpass-perl",
    ),
}


def doctor(node: Context) -> str:
    """Each fault is a new finding of the right check, and gone when it is mended."""
    node.active()
    healthy = findings(node)
    expect(not [one for one in healthy if "pyrbd" not in one], f"on a healthy node: {healthy}")
    seconds = 0.0
    for name, fault in FAULTS.items():
        node.machine.run(fault.seed)
        try:
            told = examine(node)
        finally:
            node.machine.run(fault.cure)
        seconds = max(seconds, sum(check["seconds"] for check in told["checks"]))
        found = next(check for check in told["checks"] if check["name"] == fault.check)
        named = [
            one
            for one in found["findings"]
            if fault.named in f"{one['where']} {one['what']}" and one["mend"]
        ]
        expect(bool(named), f"{name}: '{fault.check}' says {found['findings']}")
        worst = {"fault"} | {one["level"] for one in named}  # another storage may have a fault
        expect(told["level"] in worst, f"{name}: in all '{told['level']}'")
        expect(findings(node) == healthy, f"{name}: mended, and still {findings(node)}")
    return f"{len(FAULTS)} of {len(FAULTS)} faults found, each with its cure; nothing when mended"


def examine(node: Context) -> dict[str, Any]:
    """What the doctor says, as JSON; its exit status is 0, 1 or 2 by the worst finding."""
    command = f"PVE_PYBRIDGE_PERL_OPTIONS='{node.perl_options}' pve-pybridge doctor --json"
    done = node.machine.run(command, check=False)
    told: dict[str, Any] = json.loads(done.stdout)
    expected = {"ok": 0, "warning": 1, "fault": 2}[told["level"]]
    expect(done.returncode == expected, f"{told['level']}, but exit status {done.returncode}")
    return told


def findings(node: Context) -> list[str]:
    """Where it found anything at all."""
    return [
        f"{check['name']}: {one['where']}: {one['what']}"
        for check in examine(node)["checks"]
        for one in check["findings"]
    ]
