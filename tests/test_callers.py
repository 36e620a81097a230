# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""What a server remembers of its callers: the latest words of those that live, and not too many."""

from __future__ import annotations

import os
import subprocess

from pve_pybridge import callers
from pve_pybridge.callers import Callers
from pve_pybridge.model import Host


def test_the_latest_words_of_the_living() -> None:
    known = Callers()
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    known.note(Host(pid=gone.pid, command="gone"), shim=1, loaded=5)
    known.note(Host(pid=os.getpid(), command="old"), shim=1, loaded=5)
    known.note(Host(pid=os.getpid(), command="new"), shim=1, loaded=9)
    (one,) = known.snapshot()
    assert (one["pid"], one["command"], one["loaded"]) == (os.getpid(), "new", 9)


def test_callers_that_do_not_tell_are_not_kept() -> None:
    known = Callers()
    known.note(Host(pid=os.getpid()), shim=0, loaded=0)
    known.note(Host(pid=0), shim=1, loaded=5)
    assert known.snapshot() == []


def test_a_bound() -> None:
    """A day of short-lived commands costs nothing."""
    known = Callers()
    for pid in range(4_000_000, 4_000_000 + 3 * callers._MOST):
        known.note(Host(pid=pid), shim=1, loaded=5)
        assert len(known._known) <= callers._MOST
