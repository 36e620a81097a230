# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Run the steps: ``python -m node [--debian 12|13] [--fast] [--only STEP…]`` from tests/."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from . import (
    packages,
    step_autopkgtest,
    step_doctor,
    step_install,
    step_local,
    step_remove,
    step_service,
    step_trouble,
    step_upgrade,
    step_vendor,
    tree,
)
from .context import Context, has_tools
from .machine import CannotBoot, Failed, Machine

ROOT = Path(__file__).resolve().parent.parent.parent

STEPS: dict[str, tuple[Callable[[Context], str], bool]] = {
    "install": (step_install.install, True),
    "types": (step_install.types, True),
    "reboot": (step_install.reboot, True),
    "autopkgtest": (step_autopkgtest.run, True),
    "sandbox": (step_service.sandbox, True),
    "daemon": (step_service.detached, True),
    "doctor": (step_doctor.doctor, True),
    "local": (step_local.local, True),
    "vendor": (step_vendor.vendor, True),
    "upgrade": (step_upgrade.under_load, True),
    "triggers": (step_upgrade.triggers, True),
    "downgrade": (step_upgrade.downgrade, True),
    "remove": (step_remove.plugins, True),
    "purge": (step_remove.purge_plugins, True),
    "shim": (step_remove.bridge, True),
    "scripts": (step_trouble.scripts, True),
    "full disk": (step_trouble.full_disk, True),
    "msgpack": (step_trouble.msgpack, True),
    "manifest": (step_trouble.manifest, True),
    "nothing": (step_remove.everything, True),
}
"""Step → what does it, and whether the fast form has it, too.  Each builds on those before."""


class Skip(Exception):
    """This host can't do it; says why."""


def main() -> int:
    """Exit status 0 when all steps passed, or none could be run here."""
    parser = argparse.ArgumentParser(prog="node-test", description=__doc__)
    parser.add_argument("--debian", choices=sorted(tree.SUITES), default="13")
    parser.add_argument("--fast", action="store_true", help="the part that CI runs")
    parser.add_argument("--packages", type=Path, default=ROOT / "dist")
    parser.add_argument("--only", nargs="+", choices=STEPS, help="after install and types")
    args = parser.parse_args()
    try:
        return run(args)
    except Skip as err:
        print(f"node-test skipped: {err}")
        return 0


def run(args: argparse.Namespace) -> int:
    """Boot, play the steps, say how each went."""
    if os.geteuid() != 0:
        raise Skip("it needs root")
    if not has_tools("systemd-nspawn", "debootstrap", "apt-ftparchive"):
        raise Skip("it needs systemd-nspawn, debootstrap and apt-ftparchive")
    genuine = genuine_binds()
    env = {"PVE_PERL5LIB": os.environ["PVE_PERL5LIB"]} if genuine else {}
    built = packages.built(args.packages)
    began = time.monotonic()
    base = tree.prepare(args.debian, genuine=bool(genuine))
    what = "genuine PVE modules" if genuine else "the PVE stand-in"
    print(
        f"Debian {args.debian}, {what}; tree ready after {time.monotonic() - began:.0f} s",
        flush=True,
    )
    with Machine(base, genuine, env) as machine:
        try:
            print(f"boot        {machine.start():.1f} s, systemd {systemd(machine)}", flush=True)
        except CannotBoot as err:
            raise Skip(f"systemd-nspawn can't boot a node here: {err}") from None
        return play(Context(machine, built, bool(genuine), args.fast), args.only)


def play(node: Context, only: list[str] | None) -> int:
    """Step by step; the first that fails ends it, since the others build on it."""
    for name, (step, is_fast) in STEPS.items():
        if (node.fast and not is_fast) or (only and name not in ("install", "types", *only)):
            continue
        started = time.monotonic()
        try:
            told = step(node)
        except Failed as err:
            print(f"{name:<11} FAILED: {err}", flush=True)
            journal = node.machine.out("journalctl -b -u 'pve-pybridge@*' -n 40 --no-pager")
            print(journal, file=sys.stderr)
            return 1
        print(f"{name:<11} {told}  [{time.monotonic() - started:.1f} s]", flush=True)
    return 0


def systemd(machine: Machine) -> str:
    """The node's systemd version, and that its cgroups are of version 2."""
    version = machine.out("systemctl --version | head -1").split()[1]
    kind = machine.out("stat -f -c %T /sys/fs/cgroup")
    return f"{version}, {kind.replace('cgroup2fs', 'cgroup v2')}"


def genuine_binds() -> list[Path]:
    """Directories that hold the genuine modules of PVE_PERL5LIB, links followed."""
    given = [Path(part) for part in os.environ.get("PVE_PERL5LIB", "").split(":") if part]
    if not given:
        return []
    targets = [file.resolve() for directory in given for file in directory.rglob("*.pm")]
    return [Path(os.path.commonpath([*given, *targets]))]


if __name__ == "__main__":
    sys.exit(main())
