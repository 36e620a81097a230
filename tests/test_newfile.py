# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Files that appear whole or not at all, also where the file system has none without a name."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pve_pybridge import StorageError, newfile
from pve_pybridge.alive import is_alive, me


@pytest.fixture(params=["unnamed", "hidden"])
def folder(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """A directory with and one without O_TMPFILE, as NFS refuses it."""
    real = os.open

    def refusing(path: str, flags: int, mode: int = 0o777, **options: int) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP), path)
        return real(path, flags, mode, **options)

    if request.param == "hidden":
        monkeypatch.setattr(os, "open", refusing)
    yield str(tmp_path)
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".new-")]


def test_a_file_appears_whole(folder: str) -> None:
    path = f"{folder}/whole"
    with newfile.unnamed(folder) as file:
        os.write(file, b"data")
        assert not os.path.exists(path)
        newfile.give_name(file, path)
    assert Path(path).read_bytes() == b"data"


def test_commands_reach_it(folder: str) -> None:
    with newfile.unnamed(folder) as file:
        subprocess.run(["cp", "/etc/hostname", newfile.path_of(file)], check=True)
        newfile.give_name(file, f"{folder}/copy")
    assert Path(folder, "copy").read_bytes() == Path("/etc/hostname").read_bytes()


def test_never_over_another(folder: str) -> None:
    Path(folder, "there").write_bytes(b"old")
    with newfile.unnamed(folder) as file, pytest.raises(FileExistsError):
        newfile.give_name(file, f"{folder}/there")
    Path(folder, "other").write_bytes(b"other")
    with pytest.raises(FileExistsError):
        newfile.rename(f"{folder}/other", f"{folder}/there")
    assert Path(folder, "there").read_bytes() == b"old"


def test_replace(folder: str) -> None:
    Path(folder, "there").write_bytes(b"old")
    with newfile.unnamed(folder) as file:
        os.write(file, b"new")
        newfile.replace(file, f"{folder}/there")
    assert Path(folder, "there").read_bytes() == b"new"


def test_nothing_stays_of_a_failure(folder: str) -> None:
    with pytest.raises(OSError, match="Bad file"), newfile.unnamed(folder) as file:
        os.pwrite(-1, os.read(file, 1), 0)
    assert os.listdir(folder) == []


def test_no_such_folder() -> None:
    with pytest.raises(StorageError, match="can't create a file in '/nowhere'"):
        newfile.unnamed("/nowhere").__enter__()


HALF = """
import os, signal, sys
from pve_pybridge import newfile
open(newfile.hidden_name(sys.argv[1]), "w")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_the_dead_left(tmp_path: Path) -> None:
    """Only theirs: somebody else's half file is being made."""
    done = subprocess.run([sys.executable, "-c", HALF, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    ours = Path(newfile.hidden_name(str(tmp_path)))
    ours.touch()
    (tmp_path / "vm-100-disk-0.raw").touch()
    assert len(os.listdir(tmp_path)) == 3
    assert len(newfile.remove_leftovers(str(tmp_path))) == 1
    assert sorted(os.listdir(tmp_path)) == [ours.name, "vm-100-disk-0.raw"]


def test_who_lives() -> None:
    assert is_alive(me())
    assert not is_alive(f"{os.getpid()}-1")
    assert not is_alive("")
    assert not is_alive("4194305-1")
