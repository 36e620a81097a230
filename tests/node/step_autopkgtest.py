# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""debian/tests, run on the installed packages as autopkgtest runs them."""

from __future__ import annotations

import shutil
from pathlib import Path

from .context import Context

TESTS = Path(__file__).resolve().parent.parent.parent / "debian" / "tests"


def run(node: Context) -> str:
    """Each test of debian/tests/control."""
    control = (TESTS / "control").read_text()
    names = [line.split()[1] for line in control.splitlines() if line.startswith("Tests:")]
    told = []
    for name in names:
        shutil.copy(TESTS / name, node.machine.root / "root/autopkgtest")
        told.append(f"{name}: {node.machine.out('cd / && /root/autopkgtest')}")
    return "; ".join(told)
