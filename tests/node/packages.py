# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""The built packages, higher versions of them that differ where a step wants it, and a repository.

A higher version is the same package unpacked, changed and packed again, sums and strict
dependencies included: what a build of changed sources gives, in a second.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

NAMES: Final = ("pve-pybridge", "python3-pve-pybridge", "pve-pybridge-plugins")
Edit = Callable[[Path], None]


def built(directory: Path) -> dict[str, Path]:
    """Name → the package just built."""
    found = {file.name.split("_")[0]: file for file in directory.glob("*.deb")}
    missing = [name for name in NAMES if name not in found]
    if missing:
        raise RuntimeError(f"no {', '.join(missing)} in {directory}: run 'make deb' first")
    return {name: found[name] for name in NAMES}


def version_of(package: Path) -> str:
    """A package's version."""
    command = ["dpkg-deb", "--field", str(package), "Version"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def variant(
    packages: Mapping[str, Path], out: Path, version: str, edits: Mapping[str, Edit]
) -> None:
    """All *packages* as *version*, changed by the *edits* of their unpacked files."""
    for name, package in packages.items():
        with tempfile.TemporaryDirectory() as scratch:
            root = Path(scratch) / "root"
            subprocess.run(["dpkg-deb", "-R", package, root], check=True)
            if name in edits:
                edits[name](root)
            _set_version(root, version_of(package), version)
            _sum(root)
            target = out / f"{name}_{version}_all.deb"
            build = ["dpkg-deb", "--root-owner-group", "-Zgzip", "-b", str(root), str(target)]
            subprocess.run(build, check=True, stdout=subprocess.DEVNULL)


def _set_version(root: Path, old: str, new: str) -> None:
    control = root / "DEBIAN/control"
    text = control.read_text().replace(f"Version: {old}\n", f"Version: {new}\n")
    control.write_text(text.replace(f"(= {old})", f"(= {new})"))
    for file in root.glob("usr/lib/python3/dist-packages/pve_pybridge/version.py"):
        file.write_text(file.read_text().replace(f'"{old}"', f'"{new}"'))


def _sum(root: Path) -> None:
    sums = root / "DEBIAN/md5sums"
    lines = []
    for line in sums.read_text().splitlines():
        name = re.split(r"\s+", line, maxsplit=1)[1]
        lines.append(f"{hashlib.md5((root / name).read_bytes()).hexdigest()}  {name}\n")
    sums.write_text("".join(lines))


def append(path: str, text: str) -> Edit:
    """An edit: add *text* to a file."""

    def edit(root: Path) -> None:
        with (root / path).open("a") as file:
            file.write(text)

    return edit


def replace(path: str, old: str, new: str) -> Edit:
    """An edit: change *old*, which must be there, to *new*."""

    def edit(root: Path) -> None:
        text = (root / path).read_text()
        assert old in text, f"{path} has no {old!r}"
        (root / path).write_text(text.replace(old, new))

    return edit


def repository(directory: Path) -> None:
    """Make *directory* a repository that apt reads."""
    command = ["apt-ftparchive", "packages", "."]
    done = subprocess.run(command, cwd=directory, check=True, capture_output=True)
    (directory / "Packages").write_bytes(done.stdout)


def listener(out: Path) -> None:
    """A package with the triggers of pve-manager, which writes down each time they fire."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        (root / "DEBIAN").mkdir()
        (root / "DEBIAN/control").write_text(
            "Package: trigger-listener\nVersion: 1\nArchitecture: all\n"
            "Maintainer: Nobody <nobody@pve-pybridge.example>\nDescription: writes down triggers\n"
        )
        (root / "DEBIAN/triggers").write_text(
            "interest-noawait pve-api-updates\ninterest-noawait /usr/share/perl5/PVE\n"
        )
        postinst = root / "DEBIAN/postinst"
        postinst.write_text(
            '#!/bin/sh\n[ "$1" != triggered ] || echo "$2" >>/var/log/pve-triggers\n'
        )
        postinst.chmod(0o755)
        target = out / "trigger-listener_1_all.deb"
        build = ["dpkg-deb", "--root-owner-group", "-b", str(root), str(target)]
        subprocess.run(build, check=True, stdout=subprocess.DEVNULL)


def copy(packages: Mapping[str, Path], out: Path) -> None:
    """The packages as built."""
    for package in packages.values():
        shutil.copy(package, out)


def vendor(out: Path) -> None:
    """Build somebody else's package with our debhelper sequence, as its author would."""
    here = Path(__file__).resolve().parent
    checkout = here.parent.parent
    environment = {
        **os.environ,
        "PATH": f"{checkout}/debhelper:/usr/sbin:/usr/bin:/sbin:/bin",
        "PERL5LIB": str(checkout / "debhelper"),
        "DH_AUTOSCRIPTDIR": str(checkout / "debhelper/autoscripts"),
        "PYTHONPATH": str(checkout / "bridge"),
    }
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "acme-storage"
        shutil.copytree(here / "vendor", source)
        command = ["dpkg-buildpackage", "-us", "-uc", "-b", "-d"]
        done = subprocess.run(
            command, cwd=source, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(f"the vendor's package: {done.stdout[-1500:]}{done.stderr[-1500:]}")
        for package in Path(scratch).glob("*.deb"):
            shutil.copy(package, out)
