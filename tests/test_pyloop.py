# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""``pyloop`` on real loop devices: the hint dance, the life of volumes, busy devices."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge_util import GENUINE, PLUGINS, Node

WINDOWS = {"guest-is-windows": 1}
MAY = {"guest-is-windows": 1, "plugin-may-deactivate-volume": 1}
MAY_NOT = {"guest-is-windows": 1, "plugin-may-deactivate-volume": 0}
VOLID = "lo:vm-100-disk-0"
CFG = "my $cfg = PVE::Storage::config();"

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/dev/loop-control").exists(),
    reason="needs root and loop devices",
)


@pytest.fixture
def loop(node: Node) -> Iterator[Node]:
    """A node with a pyloop storage ``lo``; whatever is attached is detached at the end."""
    folder = node.base / "folder"
    folder.mkdir()
    node.serve(PLUGINS / "pyloop.py")
    node.add("lo", "pyloop", pyloop_folder=folder, content="images,rootdir")
    yield node
    for device in loops(folder):
        subprocess.run(["losetup", "--detach", device["name"]], check=False)


def loops(folder: Path) -> list[dict[str, Any]]:
    """The kernel's loop devices for files below *folder*."""
    done = subprocess.run(["losetup", "--json", "--list"], capture_output=True, check=True)
    found = json.loads(done.stdout)["loopdevices"] if done.stdout.strip() else []
    return [one for one in found if one["back-file"].startswith(str(folder))]


def direct_io(node: Node) -> list[bool]:
    """What /sys says of each attached device."""
    return [
        Path(f"/sys/block/{Path(one['name']).name}/loop/dio").read_text().strip() == "1"
        for one in loops(node.base / "folder")
    ]


def alloc(node: Node, size_kib: float = 8192) -> str:
    """A new volume."""
    code = f"{CFG} PVE::Storage::vdisk_alloc($cfg, 'lo', 100, 'raw', undef, $ARGS[0])"
    result: str = node.perl(code, size_kib).ok()
    return result


def activate(node: Node, hints: dict[str, int] | None, how: str) -> str:
    """Activate with hints as the class is called; returns what the caller's STDERR got."""
    method = {"activate": "activate_volume", "map": "map_volume"}[how]
    cache = "{}, " if how == "activate" else ""
    result = node.perl(
        f"""
        {CFG}
        my $class = PVE::Storage::Plugin->lookup('pyloop');
        $class->{method}('lo', $cfg->{{ids}}->{{lo}}, 'vm-100-disk-0', undef, {cache}$ARGS[0]);
        """,
        hints,
    )
    result.ok()
    return result.stderr


@pytest.mark.contract("C-077", "C-078")
@pytest.mark.method("activate_volume", "map_volume")
@pytest.mark.parametrize("how", ["activate", "map"])
@pytest.mark.parametrize(
    ("before", "hints", "expected", "warned"),
    [
        ("inactive", None, False, False),
        ("inactive", {}, False, False),
        ("inactive", {"guest-is-windows": 0, "plugin-may-deactivate-volume": 1}, False, False),
        ("inactive", WINDOWS, True, False),
        ("inactive", MAY, True, False),
        ("plain", None, False, False),
        ("plain", MAY, True, False),
        ("plain", MAY_NOT, False, True),
        ("plain", WINDOWS, False, True),
        ("busy", MAY, False, True),
        ("tuned", None, True, False),
        ("tuned", {"guest-is-windows": 0, "plugin-may-deactivate-volume": 1}, True, False),
        ("tuned", MAY, True, False),
    ],
)
def test_hint_matrix(
    loop: Node,
    how: str,
    before: str,
    hints: dict[str, int] | None,
    expected: bool,
    warned: bool,
) -> None:
    """Given or not × attached or not × allowed or not: read back from the kernel."""
    alloc(loop)
    if before != "inactive":
        activate(loop, WINDOWS if before == "tuned" else None, "activate")
    with contextlib.ExitStack() as stack:
        if before == "busy":
            device = os.open(loops(loop.base / "folder")[0]["name"], os.O_RDWR | os.O_EXCL)
            stack.callback(os.close, device)
        first = [one["name"] for one in loops(loop.base / "folder")]
        stderr = activate(loop, hints, how)
    assert direct_io(loop) == [expected]
    assert ("direct-io=True" in stderr) is warned
    if before == "tuned" or (before == "plain" and not expected):
        assert [one["name"] for one in loops(loop.base / "folder")] == first, "was taken down"


@pytest.mark.contract("C-072", "C-073", "C-074")
@pytest.mark.method("activate_volume", "deactivate_volume")
def test_twice_up_once_down(loop: Node) -> None:
    alloc(loop)
    result = loop.perl(
        f"""
        {CFG}
        PVE::Storage::activate_volumes($cfg, [$ARGS[0]]);
        PVE::Storage::activate_volumes($cfg, [$ARGS[0]]);
        my $path = PVE::Storage::path($cfg, $ARGS[0]);
        my $there = -b $path ? 1 : 0;
        open(my $fh, '+<', $path) or die "open: $!";
        syswrite($fh, 'x' x 512) == 512 or die "write: $!";
        close($fh);
        PVE::Storage::deactivate_volumes($cfg, [$ARGS[0]]);
        PVE::Storage::deactivate_volumes($cfg, [$ARGS[0], 'lo:vm-999-disk-0']);
        return [$there, -e $path ? 1 : 0];
        """,
        VOLID,
    )
    assert result.ok() == [1, 0]
    assert loops(loop.base / "folder") == []


@pytest.mark.contract("C-075")
@pytest.mark.method("deactivate_volume")
def test_busy_device_stays(loop: Node) -> None:
    alloc(loop)
    activate(loop, None, "activate")
    device = loops(loop.base / "folder")[0]["name"]
    holder = os.open(device, os.O_RDWR | os.O_EXCL)
    try:
        code = f"{CFG} PVE::Storage::deactivate_volumes($cfg, [$ARGS[0]])"
        result = loop.perl(code, VOLID)
        assert result.error == f"volume deactivation failed: {VOLID}\n"
        assert f"volume 'vm-100-disk-0' is in use ({device})" in result.stderr
        assert os.pwrite(holder, b"y" * 512, 0) == 512
    finally:
        os.close(holder)
    assert [one["name"] for one in loops(loop.base / "folder")] == [device]


@pytest.mark.contract("C-055", "C-056", "C-057", "C-058", "C-065")
@pytest.mark.method("alloc_image", "volume_size_info")
@pytest.mark.parametrize(
    ("kib", "size"), [(1, 4096), (528, 528 << 10), (4096, 4 << 20), (1.5, 4096), (2**36, 1 << 46)]
)
def test_sizes(loop: Node, kib: float, size: int) -> None:
    if kib > 2**30 and os.statvfs(loop.base).f_bsize and not _holds(loop.base, size):
        pytest.skip("the file system's largest file is smaller")
    volid = alloc(loop, kib)
    code = f"{CFG} scalar(PVE::Storage::volume_size_info($cfg, $ARGS[0], 5))"
    assert loop.perl(code, volid).ok() == size
    if kib < 2**30:
        activate(loop, None, "activate")
        device = loops(loop.base / "folder")[0]["name"]
        shown = subprocess.run(["blockdev", "--getsize64", device], capture_output=True, check=True)
        assert int(shown.stdout) == size


def _holds(base: Path, size: int) -> bool:
    probe = base / "probe"
    try:
        with probe.open("wb") as file:
            file.truncate(size)
    except OSError:
        return False
    finally:
        probe.unlink()
    return True


@pytest.mark.parametrize(
    "name", ["vm-100-cloudinit", "vm-100-state-before", "vm-100-fleece-0", "vm-100-disk-17"]
)
@pytest.mark.contract("C-056")
def test_names_of_core(loop: Node, name: str) -> None:
    code = f"{CFG} PVE::Storage::vdisk_alloc($cfg, 'lo', 100, 'raw', $ARGS[0], 4096)"
    assert loop.perl(code, name).ok() == f"lo:{name}"
    assert loop.perl(code, name).error == f"volume '{name}' already exists\n"
    other = loop.perl(code, name.replace("100", "101")).error
    assert other == f"illegal name '{name.replace('100', '101')}' - should be 'vm-100-*'\n"


@pytest.mark.contract("C-066")
@pytest.mark.method("volume_resize")
def test_resize_of_an_active_volume(loop: Node) -> None:
    alloc(loop)
    activate(loop, None, "activate")
    code = f"{CFG} PVE::Storage::volume_resize($cfg, $ARGS[0], $ARGS[1], 4711); undef"
    loop.perl(code, VOLID, 32 << 20).ok()
    device = loops(loop.base / "folder")[0]["name"]
    shown = subprocess.run(["blockdev", "--getsize64", device], capture_output=True, check=True)
    assert int(shown.stdout) == 32 << 20
    smaller = loop.perl(code, VOLID, 16 << 20)
    sizes = f"from {32 << 20} to {16 << 20} bytes"
    assert smaller.error == f"can't shrink volume 'vm-100-disk-0' {sizes}\n"


LIFE = f"""
    {CFG}
    my $volid = $ARGS[0];
    my @seen;
    my $write = sub {{
        my ($id, $byte) = @_;
        PVE::Storage::activate_volumes($cfg, [$id]);
        open(my $fh, '+<', scalar(PVE::Storage::path($cfg, $id))) or die "open $id: $!";
        syswrite($fh, $byte x 4096) == 4096 or die "write: $!";
        close($fh);
        PVE::Storage::deactivate_volumes($cfg, [$id]);
    }};
    my $read = sub {{
        my ($id, $snap) = @_;
        PVE::Storage::activate_volumes($cfg, [$id], $snap);
        open(my $fh, '<', scalar(PVE::Storage::path($cfg, $id, $snap))) or die "open $id: $!";
        sysread($fh, my $byte, 1);
        close($fh);
        PVE::Storage::deactivate_volumes($cfg, [$id], $snap);
        return $byte;
    }};
    $write->($volid, 'a');
    PVE::Storage::volume_snapshot($cfg, $volid, 'one');
    $write->($volid, 'b');
    push @seen, $read->($volid), $read->($volid, 'one');
    push @seen, join(',', sort keys PVE::Storage::volume_snapshot_info($cfg, $volid)->%*);
    PVE::Storage::volume_snapshot_rollback($cfg, $volid, 'one');
    push @seen, $read->($volid);
    PVE::Storage::volume_snapshot_delete($cfg, $volid, 'one', 0);
    PVE::Storage::volume_snapshot_delete($cfg, $volid, 'one', 0);
    my $base = PVE::Storage::vdisk_create_base($cfg, $volid);
    my $clone = PVE::Storage::vdisk_clone($cfg, $base, 101);
    $write->($clone, 'c');
    push @seen, $base, $clone, $read->($base), $read->($clone);
    my $moved = PVE::Storage::rename_volume($cfg, $clone, 102);
    push @seen, $moved, $read->($moved);
    PVE::Storage::vdisk_free($cfg, $_) for $moved, $base;
    push @seen, scalar(PVE::Storage::vdisk_list($cfg, 'lo')->{{lo}}->@*);
    return [@seen];
"""


@pytest.mark.contract("C-044", "C-067", "C-068", "C-069", "C-080", "C-085", "C-087", "C-088")
def test_life_of_a_volume(loop: Node) -> None:
    volid = alloc(loop)
    assert loop.perl(LIFE, volid).ok() == [
        *("b", "a", "one", "a"),
        *("lo:base-100-disk-0", "lo:vm-101-disk-0", "a", "c"),
        *("lo:vm-102-disk-0", "c", 0),
    ]
    assert loops(loop.base / "folder") == []
    assert list((loop.base / "folder").iterdir()) == []


@pytest.mark.contract("C-061", "C-062")
def test_free_of_an_active_volume_with_snapshots(loop: Node) -> None:
    volid = alloc(loop)
    result = loop.perl(
        f"""
        {CFG}
        PVE::Storage::volume_snapshot($cfg, $ARGS[0], $_) for 'vzdump', '__migration__', 'x' x 40;
        PVE::Storage::activate_volumes($cfg, [$ARGS[0]]);
        PVE::Storage::activate_volumes($cfg, [$ARGS[0]], 'vzdump');
        PVE::Storage::vdisk_free($cfg, $ARGS[0]);
        PVE::Storage::vdisk_free($cfg, $ARGS[0]);
        """,
        volid,
    )
    result.ok()
    assert loops(loop.base / "folder") == []
    assert list((loop.base / "folder").iterdir()) == []


@pytest.mark.skipif(not GENUINE, reason="the stand-in has no container code to ask")
def test_genuine_core_accepts_the_blockdev(loop: Node) -> None:
    volid = alloc(loop)
    activate(loop, None, "activate")
    code = f"{CFG} PVE::Storage::qemu_blockdev_options($cfg, $ARGS[0], '10.0+pve1', {{}})"
    answer = loop.perl(code, volid).ok()
    assert answer["driver"] == "host_device"
    assert Path(answer["filename"]).is_block_device()
