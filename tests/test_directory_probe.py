# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Questions about a directory that many ask at once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
"""Questions to a file system that may hang."""

from __future__ import annotations

import sys
import threading

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
def test_many_ask_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each gets its own answer, also whoever comes while another's question begins."""
    monkeypatch.setattr(probe, "PATIENCE_SECONDS", 60)  # this machine may be busy
    failed: list[BaseException] = []

    def ask(number: int) -> None:
        try:
            for _ in range(100):
                assert probe.ask("/somewhere", lambda: number) == number
        except BaseException as err:
            failed.append(err)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        askers = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
        for asker in askers:
            asker.start()
        for asker in askers:
            asker.join()
    finally:
        sys.setswitchinterval(interval)
    assert failed == []


def test_one_hanging_question_costs_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "PATIENCE_SECONDS", 0.05)
    hang = threading.Event()
    before = threading.active_count()
    for _ in range(3):
        with pytest.raises(probe.Unreachable):
            probe.ask("/dead", hang.wait)
    assert threading.active_count() == before + 1
    hang.set()
    assert probe.ask("/dead", lambda: 1) == 1
