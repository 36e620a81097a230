# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""What every step has: the node, the repository in it, and its own line to print."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from . import packages
from .machine import Failed, Machine

TYPES: Final = ("pydir", "pyloop", "pynbd", "pyrbd")
HAS_LOOPS: Final = Path("/dev/loop-control").exists()
LOCAL: Final = ("pydir", *(("pyloop",) if HAS_LOOPS else ()), "pynbd")
"""Those that work without a cluster, and with what the host's kernel has."""
FOLDER: Final = {"pydir": "path", "pyloop": "pyloop-folder", "pynbd": "pynbd-folder"}
REPOSITORY: Final = "/var/lib/node-repository"
_APT: Final = (
    "-o Dir::Etc::sourcelist=/etc/apt/sources.list.d/node.list -o Dir::Etc::sourceparts=-"
    " -o APT::Get::List-Cleanup=0"
)
_LOG: Final = "/var/log/pve-triggers"
_OPTIONS: Final = "from pve_pybridge.testing.perl import perl_options; print(*perl_options())"


@dataclass
class Context:
    """One run of all steps."""

    machine: Machine
    built: Mapping[str, Path]
    genuine: bool
    fast: bool

    @property
    def version(self) -> str:
        """Of the packages as built."""
        return packages.version_of(self.built["pve-pybridge"])

    # --- packages ------------------------------------------------------------------------------

    def publish(self, fill: Callable[[Path], None] | None = None) -> None:
        """Add packages to the node's repository and have apt read it."""
        directory = self.machine.root / REPOSITORY.lstrip("/")
        directory.mkdir(exist_ok=True)
        if fill is not None:
            fill(directory)
        packages.repository(directory)
        self.machine.write(
            "/etc/apt/sources.list.d/node.list", f"deb [trusted=yes] file:{REPOSITORY} ./\n"
        )
        self.machine.run(f"apt-get -q {_APT} update")

    def variant(self, version: str, edits: Mapping[str, packages.Edit]) -> None:
        """Publish a higher version."""
        self.publish(lambda out: packages.variant(self.built, out, version, edits))

    def apt(self, words: str, *, check: bool = True) -> str:
        """apt-get; what it printed."""
        options = "-q -y --no-install-recommends --allow-downgrades -o Dpkg::Use-Pty=0"
        done = self.machine.run(f"apt-get {options} {words} 2>&1", check=check)
        return done.stdout

    def install(self, version: str, *names: str, check: bool = True) -> str:
        """Install packages in one version: all three by default."""
        wanted = " ".join(f"{name}={version}" for name in names or packages.NAMES)
        return self.apt(f"install {wanted}", check=check)

    def consistent(self) -> None:
        """Nothing half done for dpkg."""
        left = self.machine.out("dpkg --audit")
        expect(not left, f"dpkg --audit: {left}")

    # --- services ------------------------------------------------------------------------------

    def pids(self) -> dict[str, int]:
        """Type → process of its service, 0 where none runs."""
        units = " ".join(f"pve-pybridge@{type_}.service" for type_ in TYPES)
        told = self.machine.out(f"systemctl show --property MainPID --value {units}").split()
        return dict(zip(TYPES, map(int, told), strict=True))

    def running(self) -> list[str]:
        """Types whose service runs."""
        return [type_ for type_, pid in self.pids().items() if pid]

    def triggers(self) -> int:
        """How often PVE's trigger has fired since it was asked last."""
        told = self.machine.out(f"wc -l < {_LOG}; : > {_LOG}", check=False)
        return int(told or 0)

    # --- PVE -----------------------------------------------------------------------------------

    @cached_property
    def perl_options(self) -> str:
        """Where PVE's modules are on this node, for Perl; the same in all of its life."""
        return self.machine.out(f'python3 -c "{_OPTIONS}"')

    def perl(self, code: str, *args: object) -> dict[str, Any]:
        """Perl in a PVE process, ``$cfg`` at hand; must not die."""
        answer: dict[str, Any] = self.machine.inside("perl", code, *args)
        expect(answer["error"] is None, f"{code}: {answer['error']}{answer['stderr']}")
        return answer

    def active(self) -> dict[str, int]:
        """Storage → whether PVE shows it as active."""
        info = self.perl("PVE::Storage::storage_info($cfg)")["value"]
        return {storeid: int(one["active"]) for storeid, one in info.items()}

    def rewrite(self) -> str:
        """PVE reads and writes storage.cfg, which drops what it doesn't know; the file."""
        self.perl("PVE::Cluster::cfs_write_file('storage.cfg', $cfg); undef")
        return self.machine.out("cat /etc/pve/storage.cfg")

    def wait(self, what: str, condition: Callable[[], bool], seconds: float = 20) -> None:
        """Until *condition*; fails with *what* otherwise."""
        ends = time.monotonic() + seconds
        while not condition():
            expect(time.monotonic() < ends, f"{what}: not after {seconds:g} s")
            time.sleep(0.2)


def expect(good: bool, what: str) -> None:
    """Fail with *what* unless *good*."""
    if not good:
        raise Failed(what)


def sections(storage_cfg: str) -> list[str]:
    """The storages in a storage.cfg."""
    lines = storage_cfg.splitlines()
    return [line.split(": ")[1] for line in lines if line and not line[0].isspace()]


def has_tools(*names: str) -> bool:
    """Whether the host has these programs."""
    return all(shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin") for name in names)
