# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Backups: listing, notes, protection, pruning."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from directory_util import Dir
from pve_pybridge import StorageError
from pve_pybridge.directory.archives import parse_archive
from pve_pybridge.directory.retention import Candidate, mark_group

OLD = "vzdump-qemu-100-2024_01_02-03_04_05.vma.zst"


@pytest.fixture(autouse=True)
def _vienna(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Vienna")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def it(tmp_path: Path) -> Dir:
    return Dir(tmp_path / "storage")


def put(it: Dir, name: str, notes: bytes | None = None, *, protected: bool = False) -> Path:
    file = it.root / "dump" / name
    file.write_bytes(b"backup")
    if notes is not None:
        file.with_name(f"{name}.notes").write_bytes(notes)
    if protected:
        file.with_name(f"{name}.protected").touch()
    return file


def test_what_a_name_says() -> None:
    archive = parse_archive(OLD)
    assert archive is not None
    assert (archive.type, archive.vmid, archive.is_standard) == ("qemu", 100, True)
    assert archive.ctime == 1704161045
    other = parse_archive("vzdump-lxc-100-special.tar")
    assert other is not None
    assert (other.type, other.vmid, other.is_standard) == ("lxc", None, False)
    for name in ("x.vma", "vzdump-qemu-100-2024_13_02-03_04_05.vma", "vzdump-xen-1-x.tar"):
        assert parse_archive(name) is None


def test_hours_that_are_twice_or_never() -> None:
    """Perl's timelocal takes the earlier of two, and an hour later for none."""
    twice = parse_archive("vzdump-qemu-100-2024_10_27-02_30_00.vma")
    never = parse_archive("vzdump-qemu-100-2024_03_31-02_30_00.vma")
    assert [a.ctime for a in (twice, never) if a] == [1729989000, 1711848600]


def test_listing(it: Dir) -> None:
    put(it, OLD, "Grüße\nzweite".encode(), protected=True)
    put(it, "vzdump-lxc-200-2024_01_02-03_04_05.tar.gz", b"caf\xe9")
    put(it, "vzdump-lxc-200-special.tgz")
    put(it, "my own-300-x.vma", b"")
    put(it, "ignored.zip")
    found = {v.volname: v for v in it("list_volumes", None, ["backup"])}
    assert {
        name: (v.format, v.subtype, v.vmid, v.notes, v.protected) for name, v in found.items()
    } == {
        f"backup/{OLD}": ("vma.zst", "qemu", 100, "Grüße", True),
        "backup/vzdump-lxc-200-2024_01_02-03_04_05.tar.gz": ("tar.gz", "lxc", 200, "café", None),
        "backup/vzdump-lxc-200-special.tgz": ("tgz", "lxc", 200, None, None),
        "backup/my own-300-x.vma": ("vma", "unknown", 300, None, None),
    }
    assert found[f"backup/{OLD}"].ctime == 1704161045
    assert found[f"backup/{OLD}"].size == 6
    mine = it("list_volumes", 200, ["backup"])
    assert sorted(v.volname for v in mine) == [
        "backup/vzdump-lxc-200-2024_01_02-03_04_05.tar.gz",
        "backup/vzdump-lxc-200-special.tgz",
    ]


def test_unreadable_notes_hide_no_backup(it: Dir) -> None:
    file = put(it, OLD)
    file.with_name(f"{OLD}.notes").mkdir()
    (volume,) = it("list_volumes", None, ["backup"])
    assert volume.notes is None
    assert it("get_volume_attribute", f"backup/{OLD}", "notes") == ""


@pytest.mark.contract("C-101")
def test_notes(it: Dir) -> None:
    file = put(it, OLD)
    volname = f"backup/{OLD}"
    assert it("get_volume_attribute", volname, "notes") == ""
    it("update_volume_attribute", volname, "notes", "Grüße\n日本")
    assert it("get_volume_attribute", volname, "notes") == "Grüße\n日本"
    assert file.with_name(f"{OLD}.notes").read_bytes() == "Grüße\n日本".encode()
    it("update_volume_attribute", volname, "notes", "")
    it("update_volume_attribute", volname, "notes", None)
    assert not file.with_name(f"{OLD}.notes").exists()
    file.with_name(f"{OLD}.notes").write_bytes(b"caf\xe9")
    assert it("get_volume_attribute", volname, "notes") == "café"


@pytest.mark.contract("C-101")
def test_protection(it: Dir) -> None:
    file = put(it, OLD)
    volname = f"backup/{OLD}"
    assert it("get_volume_attribute", volname, "protected") is False
    for _ in range(2):
        it("update_volume_attribute", volname, "protected", "1")
    assert it("get_volume_attribute", volname, "protected") is True
    with pytest.raises(StorageError, match=f"cannot remove protected volume '{volname}' on 's'"):
        it("free_image", volname, False, "raw")
    assert file.exists()
    for _ in range(2):
        it("update_volume_attribute", volname, "protected", "0")
    it("free_image", volname, False, "raw")
    assert not file.exists()


@pytest.mark.contract("C-101")
def test_what_has_no_attributes(it: Dir) -> None:
    put(it, OLD)
    for volname, attribute in (
        ("iso/a.iso", "notes"),
        ("iso/a.iso", "protected"),
        (f"backup/{OLD}", "color"),
    ):
        assert it("get_volume_attribute", volname, attribute) is None
    for volname, attribute, message in (
        ("iso/a.iso", "notes", "only backups can have notes"),
        ("iso/a.iso", "protected", "only backups support attribute 'protected'"),
        (f"backup/{OLD}", "color", "'color' is not supported for storage type 'pydir'"),
    ):
        with pytest.raises(StorageError, match=message):
            it("update_volume_attribute", volname, attribute, "1")


def _marks(moments: list[str], keep: Mapping[str, int]) -> str:
    """Marks of backups at the given local times, new to old, one letter each."""
    group = [
        Candidate(moment, int(datetime.fromisoformat(moment).timestamp()), "qemu", 100)
        for moment in moments
    ]
    mark_group(group, keep)
    return "".join((candidate.mark or "?")[0] for candidate in group)


DAILY = [(datetime(2024, 3, 31, 12) - timedelta(days=days)).isoformat() for days in range(0, 60, 3)]


@pytest.mark.parametrize(
    ("keep", "marks"),
    [
        ({}, "k" * 20),
        ({"keep-all": 1}, "k" * 20),
        ({"keep-last": 0, "keep-daily": 0}, "k" * 20),
        ({"keep-last": 3}, "kkk" + "r" * 17),
        ({"keep-daily": 2}, "kk" + "r" * 18),
        ({"keep-weekly": 3}, "krrkrkrrrrrrrrrrrrrr"),
        ({"keep-monthly": 2}, "krrrrrrrrrrkrrrrrrrr"),
        ({"keep-yearly": 9}, "k" + "r" * 19),
        ({"keep-last": 1, "keep-monthly": 1}, "krrrrrrrrrrkrrrrrrrr"),
        ({"keep-last": 2, "keep-weekly": 2, "keep-yearly": 1}, "kkrkrkrrrrrrrrrrrrrr"),
    ],
)
def test_marks(keep: Mapping[str, int], marks: str) -> None:
    assert _marks(DAILY, keep) == marks


def test_periods_are_local_and_iso() -> None:
    # 2024-12-30 is in week 1 of 2025, the hour from two to three in October is there twice
    assert _marks(["2025-01-01T00:00", "2024-12-30T00:00"], {"keep-weekly": 5}) == "kr"
    assert _marks(["2024-12-31T23:59", "2025-01-01T00:01"], {"keep-yearly": 5}) == "kk"
    assert _marks(["2024-07-01T00:30", "2024-06-30T23:30"], {"keep-daily": 5}) == "kk"
    assert _marks(["2024-07-01T00:30", "2024-07-01T00:10"], {"keep-hourly": 5}) == "kr"


def test_given_marks_stay() -> None:
    group = [Candidate("a", 2, "qemu", 1, "protected"), Candidate("b", 1, "qemu", 1)]
    mark_group(group, {"keep-last": 1})
    assert [c.mark for c in group] == ["protected", "keep"]


@pytest.fixture
def backups(it: Dir) -> Dir:
    for vmid in (100, 200):
        for day in range(1, 4):
            put(it, f"vzdump-qemu-{vmid}-2024_01_0{day}-00_00_00.vma", b"n")
            log = it.root / f"dump/vzdump-qemu-{vmid}-2024_01_0{day}-00_00_00.log"
            log.touch()
    put(it, "vzdump-lxc-100-2023_01_01-00_00_00.tar")
    put(it, "vzdump-qemu-100-2022_01_01-00_00_00.vma", protected=True)
    put(it, "vzdump-qemu-100-mine.vma")
    return it


@pytest.mark.contract("C-100")
def test_prune_dry_run(backups: Dir) -> None:
    before = sorted(backups.root.rglob("*"))
    found = backups("prune_backups", {"keep-last": 1}, 100, "qemu", True)
    marks = {entry.volname.removeprefix("backup/vzdump-qemu-"): entry.mark for entry in found}
    assert marks == {
        "100-2024_01_03-00_00_00.vma": "keep",
        "100-2024_01_02-00_00_00.vma": "remove",
        "100-2024_01_01-00_00_00.vma": "remove",
        "100-2022_01_01-00_00_00.vma": "protected",
        "100-mine.vma": "renamed",
    }
    assert {entry.vmid for entry in found} == {100}
    assert {entry.type for entry in found} == {"qemu"}
    assert sorted(backups.root.rglob("*")) == before
    assert backups.logged == []


@pytest.mark.contract("C-100")
def test_prune(backups: Dir) -> None:
    found = backups("prune_backups", {"keep-last": 1}, None, None, False)
    assert len(found) == 9
    assert sorted(p.name for p in (backups.root / "dump").iterdir()) == [
        "vzdump-lxc-100-2023_01_01-00_00_00.tar",
        "vzdump-qemu-100-2022_01_01-00_00_00.vma",
        "vzdump-qemu-100-2022_01_01-00_00_00.vma.protected",
        "vzdump-qemu-100-2024_01_03-00_00_00.log",
        "vzdump-qemu-100-2024_01_03-00_00_00.vma",
        "vzdump-qemu-100-2024_01_03-00_00_00.vma.notes",
        "vzdump-qemu-100-mine.vma",
        "vzdump-qemu-200-2024_01_03-00_00_00.log",
        "vzdump-qemu-200-2024_01_03-00_00_00.vma",
        "vzdump-qemu-200-2024_01_03-00_00_00.vma.notes",
    ]
    first = "removing backup 's:backup/vzdump-qemu-100-2024_01_01-00_00_00.vma'"
    assert backups.logged[0] == ("info", first)
    assert len(backups.logged) == 4


@pytest.mark.contract("C-100")
def test_prune_tries_all_before_it_fails(backups: Dir) -> None:
    stuck = backups.root / "dump/vzdump-qemu-100-2024_01_01-00_00_00.vma"
    done = subprocess.run(["chattr", "+i", str(stuck)], capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip("no immutable flag here")
    try:
        with pytest.raises(StorageError, match=r"^error pruning backups - check log$"):
            backups("prune_backups", {"keep-last": 1}, None, None, False)
    finally:
        subprocess.run(["chattr", "-i", str(stuck)], check=True)
    assert stuck.exists()
    errors = [line for level, line in backups.logged if level == "err"]
    assert len(errors) == 1
    assert errors[0].startswith("error when removing backup 's:backup/vzdump-qemu-100-2024_01_01")
    assert not (backups.root / "dump/vzdump-qemu-200-2024_01_01-00_00_00.vma").exists()
