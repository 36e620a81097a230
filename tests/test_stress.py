# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""The experiments of ``tests/stress`` in seconds; ``make stress`` runs them in full."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from qemu_util import requires
from stress.__main__ import EXPERIMENTS

HERE = Path(__file__).resolve().parent


NEEDS = {
    "power-cut-pyloop": requires("losetup", "qemu-io", "qemu-system-x86_64"),
    "power-cut-pynbd": requires("qemu-storage-daemon", "qemu-nbd", "qemu-io", "qemu-system-x86_64"),
}


@pytest.mark.contract("C-023", "C-025", "C-037", "C-060", "C-103")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=NEEDS.get(name, ())) for name in EXPERIMENTS]
)
def test_short_form(name: str) -> None:
    """In a process of its own: the harness forks and must have no threads."""
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "stress", "--short", name],
        env={**os.environ, "PYTHONPATH": path},
        cwd=HERE,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "MISSED" not in done.stdout
    assert "goal: " in done.stdout
