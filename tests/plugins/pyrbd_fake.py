# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""``pyrbd`` with the commands of tests/fakes and the /sys and /dev that go with them."""

from __future__ import annotations

import os
from pathlib import Path

from pve_pybridge import process
from pve_pybridge.loader import load

TESTS = Path(__file__).resolve().parent.parent
HOME = os.environ["FAKE_CEPH"]
process.ENVIRONMENT["PATH"] = f"{TESTS / 'fakes'}:{process.ENVIRONMENT['PATH']}"
process.ENVIRONMENT["FAKE_CEPH"] = HOME
PyRbd = load(str(TESTS.parent / "python_plugins/pyrbd.py"))


class FakeRbd(PyRbd):  # type: ignore[misc, valid-type]  # loaded from its file
    type = "pyrbd"
    rules = PyRbd.rules
    sysfs = f"{HOME}/sys"
    devices = f"{HOME}/dev"
