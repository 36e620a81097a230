# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Files appear whole, with their mode, or not at all."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from pve_pybridge import atomic


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o022])
@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_mode_whatever_the_umask(tmp_path: Path, umask: int, mode: int) -> None:
    file = tmp_path / "file"
    before = os.umask(umask)
    try:
        atomic.write(file, "one\n", mode)
    finally:
        os.umask(before)
    assert (file.stat().st_mode & 0o7777, file.read_text()) == (mode, "one\n")


def test_readers_see_old_or_new(tmp_path: Path) -> None:
    """Two writers and a reader: every read is one whole text, and no other name is ever listed."""
    file = tmp_path / "file"
    texts = [letter * 100_000 for letter in "ab"]
    atomic.write(file, texts[0])
    stop = threading.Event()

    def keep_writing(text: str) -> None:
        while not stop.is_set():
            atomic.write(file, text)

    threads = [threading.Thread(target=keep_writing, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    try:
        for _ in range(200):
            assert file.read_text() in texts
            assert [name for name in os.listdir(tmp_path) if name[0] != "."] == ["file"]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert os.listdir(tmp_path) == ["file"]


def test_a_failure_leaves_the_old_one(tmp_path: Path) -> None:
    file = tmp_path / "target"
    file.mkdir()
    with pytest.raises(IsADirectoryError):
        atomic.write(file, "new")
    assert os.listdir(tmp_path) == ["target"]
    with pytest.raises(FileNotFoundError):
        atomic.write(tmp_path / "none" / "file", "new")
