# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Questions about a directory that many ask at once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from pve_pybridge.directory import probe


@pytest.mark.contract("C-103")
def test_many_ask_at_the_same_moment() -> None:
    """Nobody meets the thread of another before it runs."""
    gate = threading.Barrier(16)

    def ask(number: int) -> int:
        gate.wait(10)
        return probe.ask("/same", lambda: number)

    with ThreadPoolExecutor(16) as pool:
        for _ in range(50):
            assert sorted(pool.map(ask, range(16))) == list(range(16))


def test_the_error_is_the_askers() -> None:
    def fail() -> None:
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        probe.ask("/other", fail)
