# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""What goes wrong with packages: dpkg stays consistent, PVE keeps loading, storages stay."""

from __future__ import annotations

from pathlib import Path

from . import packages
from .context import LOCAL, Context, expect
from .step_install import why_inactive
from .step_remove import OURS, kept
from .step_upgrade import PYTHON

DIST = f"/{PYTHON.rpartition('/')[0]}"


def scripts(node: Context) -> str:
    """A maintainer script that fails, in each half of an upgrade; then a good version."""
    for number, script in enumerate(("postinst", "preinst"), 5):
        version = f"{node.version}+{number}"

        def fail(root: Path, script: str = script) -> None:
            file = root / "DEBIAN" / script
            file.write_text('#!/bin/sh\n[ "$1" != upgrade ] && [ "$1" != configure ] || exit 1\n')
            file.chmod(0o755)

        node.variant(version, {"pve-pybridge": fail})
        told = node.install(version, check=False)
        expect("returned error" in told, f"{script} didn't fail: {told}")
        expect(kept(node) == OURS, f"{script} failed, PVE kept only {kept(node)}")
        expect(all(node.active()[f"s-{t}"] for t in LOCAL), f"{script} failed, inactive storages")
        node.install(node.version)
        node.consistent()
    return "postinst or preinst fails: all storages active; mended by the next good version"


def full_disk(node: Context) -> str:
    """No space where the Python files go."""
    version = f"{node.version}+7"
    blob = packages.append(f"{PYTHON}/version.py", "# " + "x" * (4 << 20) + "\n")
    node.variant(version, {"python3-pve-pybridge": blob})
    size = int(node.machine.out(f"du -sk {DIST} | cut -f1")) + 1024
    node.machine.run(
        f"mkdir /tmp/full && mount -t tmpfs -o size={size}k none /tmp/full"
        f" && cp -a {DIST}/. /tmp/full/ && mount --bind /tmp/full {DIST}"
    )
    try:
        told = node.install(version, check=False)
        expect("No space left on device" in told, f"there was space: {told}")
        expect(kept(node) == OURS, f"disk full, PVE kept only {kept(node)}")
        expect(all(node.active()[f"s-{t}"] for t in LOCAL), "disk full, inactive storages")
        node.machine.run("systemctl stop 'pve-pybridge@*.service'")
        expect(all(node.active()[f"s-{t}"] for t in LOCAL), "disk full, services don't start")
    finally:
        node.machine.run(f"umount -l {DIST} /tmp/full")
    node.apt("--fix-broken install")
    node.install(node.version)
    node.consistent()
    return "unpacking stops for lack of space: services go on and start; mended by apt"


def msgpack(node: Context) -> str:
    """A dependency forced away, and given back."""
    node.machine.run("systemctl stop 'pve-pybridge@*.service'")
    node.machine.run("dpkg --force-depends --remove python3-msgpack")
    expect(kept(node) == OURS, f"without msgpack PVE kept only {kept(node)}")
    answer = node.perl("PVE::Storage::storage_info($cfg)")
    shown = {storeid: one["active"] for storeid, one in answer["value"].items()}
    expect(not any(shown[one] for one in OURS), f"active without msgpack: {shown}")
    reason = why_inactive(node, "s-pydir")
    expect("python3-msgpack is missing" in reason, f"the reason isn't clear: {reason}")
    node.apt("--fix-broken install")
    node.consistent()
    expect(all(node.active()[f"s-{t}"] for t in LOCAL), "inactive with msgpack")
    return f"storages inactive after {answer['ms']:.0f} ms, PVE loads: {reason}"


def manifest(node: Context) -> str:
    """Somebody else's manifest is broken."""
    for text in ('{"manifest": 1, "type": "vendor"', '{"manifest": 99, "type": "vendor"}'):
        node.machine.write("/etc/pve-pybridge/plugins.d/vendor.json", text)
        answer = node.perl("PVE::Storage::storage_info($cfg)")
        lines = answer["loading"].splitlines()
        expect(len(lines) == 1 and "vendor.json skipped" in lines[0], f"warnings: {lines}")
        expect(all(answer["value"][f"s-{t}"]["active"] for t in LOCAL), "storages are inactive")
        expect(kept(node) == OURS, f"PVE kept only {kept(node)}")
        node.apt("install --reinstall " + " ".join(f"{n}={node.version}" for n in packages.NAMES))
        node.consistent()
    node.machine.run("rm /etc/pve-pybridge/plugins.d/vendor.json")
    return f"one warning, all else works, packages install: {lines[0]}"
