# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Twenty processes of one node on a block storage at once, each with a guest of its own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bridge_util import Node
from qemu_util import CFG, FUSE, MIB, Store, daemon_pid, nbd_store, requires

CROWD = f"""
    use POSIX ();
    my ($storeid, $together) = @ARGS;
    my $life = sub {{
        my ($vmid) = @_;
        {CFG}
        my $volid = PVE::Storage::vdisk_alloc($cfg, $storeid, $vmid, 'raw', undef, 8192);
        for my $turn (1 .. 3) {{
            PVE::Storage::activate_volumes($cfg, [$volid]);
            PVE::Storage::map_volume($cfg, $volid);
            PVE::Storage::deactivate_volumes($cfg, [$volid]);
        }}
        PVE::Storage::volume_snapshot($cfg, $volid, 'one');
        PVE::Storage::volume_snapshot_delete($cfg, $volid, 'one', 0);
        PVE::Storage::volume_resize($cfg, $volid, {16 * MIB}, 0);
        my ($size) = PVE::Storage::volume_size_info($cfg, $volid, 5);
        die "size is $size\\n" if $size != {16 * MIB};
        my $mine = PVE::Storage::vdisk_list($cfg, $storeid, $vmid)->{{$storeid}};
        die "sees " . scalar(@$mine) . " volumes\\n" if @$mine != 1;
        PVE::Storage::activate_volumes($cfg, [$together]);
        PVE::Storage::vdisk_free($cfg, $volid);
    }};
    my %vmids;
    for my $vmid (201 .. 220) {{
        my $pid = fork() // die "fork: $!";
        if (!$pid) {{
            eval {{ $life->($vmid) }};
            warn "$vmid: $@" if $@;
            POSIX::_exit($@ ? 1 : 0);
        }}
        $vmids{{$pid}} = $vmid;
    }}
    my @failed;
    for my $pid (keys %vmids) {{
        waitpid($pid, 0);
        push @failed, $vmids{{$pid}} if $?;
    }}
    [sort @failed]
"""


def crowd(store: Store) -> None:
    together = store.alloc(8192)
    result = store.perl(CROWD, store.id, together, timeout=100)
    assert result.ok() == [], result.stderr
    assert [one["volid"] for one in store.list()] == [together]
    store.write(together, "a", keep=True)
    assert store.read(together) == "a"
    store.call("deactivate_volumes", [together])
    store.call("vdisk_free", together)
    assert os.listdir(store.folder) == []


@pytest.mark.contract("C-103", "C-064")
@requires("losetup", "qemu-io")
def test_pyloop(node: Node) -> None:
    if not Path("/dev/loop-control").exists():
        pytest.skip("needs loop devices")
    folder = node.base / "folder"
    folder.mkdir()
    store = Store(node, "pyloop", "lo", folder)
    node.add("lo", "pyloop", pyloop_folder=folder, content="images")
    crowd(store)
    assert list((node.base / "pve-pybridge-loop" / "lo").iterdir()) == []


@pytest.mark.contract("C-103", "C-064")
@requires("qemu-storage-daemon", "qemu-nbd", "qemu-io")
@FUSE
def test_pynbd(node: Node) -> None:
    with nbd_store(node) as store:
        crowd(store)
        assert daemon_pid(store) is None
