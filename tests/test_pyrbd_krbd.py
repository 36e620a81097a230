# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""``pyrbd`` on the cluster of tests/fakes: every command line, kernel devices, hints, secrets."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rbd_util import FSID, RbdNode

WINDOWS = {"guest-is-windows": 1}
MAY = {"guest-is-windows": 1, "plugin-may-deactivate-volume": 1}
MAY_NOT = {"guest-is-windows": 1, "plugin-may-deactivate-volume": 0}
VOLID = "krbd:vm-100-disk-0"
IMAGE = "rbd/vm-100-disk-0"
MAP, UNMAP = ["rbd", "map", IMAGE], ["rbd", "unmap", "/dev/rbd0"]
BOUNCE = [*MAP, "--options", "rxbounce"]
INFO = ["rbd", "info", IMAGE, "--format", "json"]
NAMES = ["rbd", "ls", "rbd", "--format", "json"]
LIST = ["rbd", "ls", "-l", "rbd", "--format", "json"]
SNAPS = ["rbd", "snap", "ls", IMAGE, "--format", "json"]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[RbdNode]:
    with RbdNode(tmp_path) as it:
        yield it


def call(node: RbdNode, method: str, storeid: str, *args: object) -> str:
    """A method of the class as PVE's activation calls it; returns STDERR."""
    result = node.perl(
        """
        my $cfg = PVE::Storage::config();
        my $class = PVE::Storage::Plugin->lookup('pyrbd');
        my ($storeid, $method, @args) = @ARGS;
        splice(@args, 1, 0, {}) if $method =~ /activate/;
        $class->$method($storeid, $cfg->{ids}->{$storeid}, 'vm-100-disk-0', @args);
        """,
        *(storeid, method, *args),
    )
    result.ok()
    return result.stderr


# fmt: off
MATRIX = [
    # how it is mapped, hints, commands that follow, whether there is a warning
    ("not",    None,             [MAP],                  False),
    ("not",    {},               [MAP],                  False),
    ("not",    {"guest-is-windows": 0, "plugin-may-deactivate-volume": 1}, [MAP], False),
    ("not",    WINDOWS,          [BOUNCE],               False),
    ("not",    MAY,              [BOUNCE],               False),
    ("plain",  None,             [],                     False),
    ("plain",  MAY,              [UNMAP, BOUNCE],        False),
    ("plain",  MAY_NOT,          [],                     True),
    ("plain",  WINDOWS,          [],                     True),
    ("busy",   MAY,              [UNMAP],                True),
    ("tuned",  None,             [],                     False),
    ("tuned",  MAY,              [],                     False),
    ("old",    MAY,              [BOUNCE, MAP],          True),
]
# fmt: on


@pytest.mark.contract("C-077", "C-078")
@pytest.mark.method("activate_volume", "map_volume")
@pytest.mark.parametrize("how", ["activate_volume", "map_volume"])
@pytest.mark.parametrize(("before", "hints", "commands", "warned"), MATRIX)
def test_hint_matrix(
    node: RbdNode,
    how: str,
    before: str,
    hints: dict[str, int] | None,
    commands: list[list[str]],
    warned: bool,
) -> None:
    """Mapped or not × allowed or not × open or not; ``old`` is a kernel without rxbounce."""
    node.alloc()
    if before in ("plain", "busy", "tuned"):
        call(node, how, "krbd", None, WINDOWS if before == "tuned" else None)
    node.state(open=["0"] if before == "busy" else [], map_options=["rxbounce"][before == "old" :])
    node.commands()
    stderr = call(node, how, "krbd", None, hints)
    assert node.commands() == commands
    assert ("rxbounce" in stderr) is warned
    shown = (node.home / "sys/0/config_info").read_text()
    assert ("rxbounce" in shown) is (commands[-1:] == [BOUNCE] or before == "tuned")


@pytest.mark.contract("C-077")
def test_a_new_map_keeps_what_somebody_else_asked_for(node: RbdNode) -> None:
    node.alloc()
    call(node, "activate_volume", "krbd", None, None)
    info = node.home / "sys/0/config_info"
    info.write_text(info.read_text().replace(" rbd ", ",queue_depth=64 rbd ", 1))
    node.state(map_options=["rxbounce", "queue_depth=64"])
    node.commands()
    call(node, "activate_volume", "krbd", None, MAY)
    assert node.commands() == [UNMAP, [*MAP, "--options", "queue_depth=64,rxbounce"]]


@pytest.mark.contract("C-072", "C-073", "C-074", "C-079", "C-080", "C-053")
@pytest.mark.method("activate_volume", "deactivate_volume", "map_volume", "unmap_volume", "path")
def test_krbd_devices(node: RbdNode) -> None:
    node.alloc()
    node.ask("PVE::Storage::volume_snapshot($cfg, $ARGS[0], 'one')", VOLID)
    node.commands()
    devices = f"{node.home}/dev/{FSID}"
    there = "-e scalar(PVE::Storage::path($cfg, @ARGS)) ? 1 : 0"
    for snap, path in ((None, f"{devices}/{IMAGE}"), ("one", f"{devices}/{IMAGE}@one")):
        code = "scalar(PVE::Storage::path($cfg, @ARGS))"
        assert node.ask(code, VOLID, snap) == path
        for _ in range(2):
            node.ask("PVE::Storage::activate_volumes($cfg, [$ARGS[0]], $ARGS[1])", VOLID, snap)
        assert node.ask(there, VOLID, snap) == 1
        blockdev = node.blockdev(VOLID, snap)
        assert blockdev == {"driver": "host_device", "filename": path}
        for _ in range(2):
            node.ask("PVE::Storage::deactivate_volumes($cfg, [$ARGS[0]], $ARGS[1])", VOLID, snap)
        assert node.ask(there, VOLID, snap) == 0
        image = path.removeprefix(f"{devices}/")
        ours = [one for one in node.commands() if one[0] == "rbd"]
        assert ours == [["rbd", "map", image], UNMAP]


@pytest.mark.contract("C-079")
def test_librbd_maps_for_containers_only(node: RbdNode) -> None:
    """T-13, T-14: the mapping is undone by deactivate_volume, whoever made it."""
    volid = node.alloc()
    node.commands()
    node.ask("PVE::Storage::activate_volumes($cfg, [$ARGS[0]])", volid)
    assert [one for one in node.commands() if one[0] == "rbd"] == []
    path = node.ask("PVE::Storage::map_volume($cfg, $ARGS[0])", volid)
    assert path == f"{node.home}/dev/{FSID}/{IMAGE}"
    assert Path(path).exists()
    node.ask("PVE::Storage::deactivate_volumes($cfg, [$ARGS[0]])", volid)
    assert not Path(path).exists()
    node.ask("PVE::Storage::map_volume($cfg, $ARGS[0])", volid)
    node.ask("PVE::Storage::unmap_volume($cfg, $ARGS[0])", volid)
    assert node.commands() == [MAP, UNMAP, MAP, UNMAP]


@pytest.mark.contract("C-075", "C-061")
def test_open_device_stays(node: RbdNode) -> None:
    node.alloc()
    call(node, "activate_volume", "krbd", None, None)
    node.state(open=["0"])
    result = node.perl(
        "PVE::Storage::deactivate_volumes(PVE::Storage::config(), [$ARGS[0]])", VOLID
    )
    assert (result.error or "").startswith(f"volume deactivation failed: {VOLID}")
    assert "/dev/rbd0 is in use" in result.stderr
    assert node.dies("PVE::Storage::vdisk_free($cfg, $ARGS[0])", VOLID) == "/dev/rbd0 is in use\n"
    assert list(node.images()) == ["vm-100-disk-0"]


def test_device_of_another_cluster_is_not_ours(node: RbdNode) -> None:
    node.alloc()
    call(node, "activate_volume", "krbd", None, None)
    (node.home / "sys/0/cluster_fsid").write_text("00000000-0000-0000-0000-000000000000\n")
    node.commands()
    call(node, "deactivate_volume", "krbd", None)
    assert node.commands() == []


@pytest.mark.contract("C-066")
@pytest.mark.method("volume_resize")
def test_resize_of_a_mapped_image(node: RbdNode) -> None:
    node.alloc()
    call(node, "activate_volume", "krbd", None, None)
    node.commands()
    node.ask("PVE::Storage::volume_resize($cfg, @ARGS); undef", VOLID, 32 << 20, 1)
    assert node.commands() == [INFO, ["rbd", "resize", "--size", "32", IMAGE]]
    assert (node.home / "sys/0/size").read_text() == f"{32 << 20}\n"


@pytest.mark.contract("C-055", "C-062")
@pytest.mark.method("alloc_image", "create_base", "clone_image", "rename_volume", "free_image")
def test_command_lines(node: RbdNode) -> None:
    """All of them; ``--allow-shrink`` and ``--force`` are in none."""
    steps = {
        "PVE::Storage::vdisk_alloc($cfg, 'librbd', 100, 'raw', undef, 8192)": [
            NAMES,
            ["rbd", "create", "--image-format", "2", "--size", "8", IMAGE],
        ],
        "PVE::Storage::volume_snapshot($cfg, 'librbd:vm-100-disk-0', 'one')": [
            SNAPS,
            ["rbd", "snap", "create", f"{IMAGE}@one"],
        ],
        "PVE::Storage::volume_snapshot_rollback($cfg, 'librbd:vm-100-disk-0', 'one')": [
            SNAPS,  # PVE itself asks whether it is possible
            SNAPS,
            ["rbd", "snap", "rollback", f"{IMAGE}@one"],
        ],
        "PVE::Storage::volume_snapshot_delete($cfg, 'librbd:vm-100-disk-0', 'one', 0); undef": [
            SNAPS,
            ["rbd", "snap", "rm", f"{IMAGE}@one"],
        ],
        "PVE::Storage::vdisk_create_base($cfg, 'librbd:vm-100-disk-0')": [
            SNAPS,
            ["rbd", "rename", IMAGE, "rbd/base-100-disk-0"],
            ["rbd", "snap", "create", "rbd/base-100-disk-0@__base__"],
            ["rbd", "snap", "protect", "rbd/base-100-disk-0@__base__"],
        ],
        "PVE::Storage::vdisk_clone($cfg, 'librbd:base-100-disk-0', 101)": [
            NAMES,
            ["rbd", "snap", "protect", "rbd/base-100-disk-0@__base__"],
            ["rbd", "clone", "rbd/base-100-disk-0@__base__", "rbd/vm-101-disk-0"],
        ],
        "PVE::Storage::rename_volume($cfg, 'librbd:base-100-disk-0/vm-101-disk-0', 102)": [
            NAMES,
            ["rbd", "rename", "rbd/vm-101-disk-0", "rbd/vm-102-disk-0"],
        ],
        "PVE::Storage::vdisk_free($cfg, 'librbd:base-100-disk-0/vm-102-disk-0'); undef": [
            ["rbd", "info", "rbd/vm-102-disk-0", "--format", "json"],
            ["rbd", "status", "rbd/vm-102-disk-0", "--format", "json"],
            ["rbd", "info", "rbd/vm-102-disk-0", "--format", "json"],
            LIST,
            ["rbd", "snap", "ls", "rbd/vm-102-disk-0", "--format", "json"],
            ["rbd", "rm", "rbd/vm-102-disk-0"],
        ],
        "PVE::Storage::vdisk_free($cfg, 'librbd:base-100-disk-0'); undef": [
            LIST,  # PVE itself looks for clones of a base
            ["rbd", "info", "rbd/base-100-disk-0", "--format", "json"],
            ["rbd", "status", "rbd/base-100-disk-0", "--format", "json"],
            ["rbd", "info", "rbd/base-100-disk-0", "--format", "json"],
            LIST,
            ["rbd", "snap", "ls", "rbd/base-100-disk-0", "--format", "json"],
            ["rbd", "snap", "rm", "rbd/base-100-disk-0@__base__"],
            ["rbd", "snap", "unprotect", "rbd/base-100-disk-0@__base__"],
            ["rbd", "snap", "rm", "rbd/base-100-disk-0@__base__"],
            ["rbd", "rm", "rbd/base-100-disk-0"],
        ],
    }
    for code, commands in steps.items():
        node.ask(code)
        asked = [one for one in node.commands() if one[0] == "rbd"]
        assert asked == commands, code
    for line in node.home.joinpath("argv").read_text().splitlines():
        assert json.loads(line)[1:5] == ["-c", f"{node.etc}/ceph.conf", "-n", "client.admin"]


@pytest.mark.method("alloc_image", "clone_image")
def test_data_pool(node: RbdNode) -> None:
    node.add("ec", "pyrbd", pool="rbd", data_pool="data")
    volid = node.ask("PVE::Storage::vdisk_alloc($cfg, 'ec', 100, 'raw', undef, 8192)")
    base = node.ask("PVE::Storage::vdisk_create_base($cfg, $ARGS[0])", volid)
    node.ask("PVE::Storage::vdisk_clone($cfg, $ARGS[0], 101)", base)
    made = [one for one in node.commands() if one[1] in ("create", "clone")]
    assert [one[one.index("--data-pool") + 1] for one in made] == ["data", "data"]


@pytest.mark.contract("C-081", "C-082")
@pytest.mark.method("qemu_blockdev_options")
@pytest.mark.parametrize("machine", ["10.0+pve0", "pc-q35-10.1", None])
def test_librbd_blockdev(node: RbdNode, machine: str | None) -> None:
    volid = node.alloc()
    expected = {"driver": "rbd", "pool": "rbd", "image": "vm-100-disk-0", "user": "admin"}
    expected["conf"] = f"{node.etc}/ceph.conf"
    assert node.blockdev(volid, machine=machine) == expected
    snapshot = node.blockdev(volid, "one", machine=machine)
    assert snapshot == {**expected, "snapshot": "one"}
    node.commands()
    node.blockdev(volid, hints={"efi-disk": 1}, machine=machine)
    ask = ["rbd", "config", "image", "set", IMAGE, "rbd_cache_policy", "writeback"]
    assert node.commands() == [ask]


@pytest.mark.contract("C-078")
def test_efi_disk_without_cache_starts_all_the_same(node: RbdNode) -> None:
    node.needs("qemu_blockdev_options")
    code = """
        PVE::Storage::qemu_blockdev_options(
            $cfg, 'librbd:vm-100-disk-9', undef, { hints => { 'efi-disk' => 1 } });
    """
    result = node.perl(f"my $cfg = PVE::Storage::config(); {code}")
    assert result.ok()["image"] == "vm-100-disk-9"
    assert "the EFI disk stays slow: rbd config image set rbd/vm-100-disk-9" in result.stderr


@pytest.mark.contract("C-083", "C-089", "C-069")
@pytest.mark.method(
    *("volume_qemu_snapshot_method", "volume_snapshot_needs_fsfreeze", "volume_has_feature")
)
def test_static_answers(node: RbdNode) -> None:
    node.needs("volume_qemu_snapshot_method")
    code = "PVE::Storage::volume_qemu_snapshot_method($cfg, $ARGS[0] . ':vm-100-disk-0')"
    assert [node.ask(code, one) for one in ("librbd", "krbd")] == ["qemu", "storage"]
    assert node.ask("PVE::Storage::Plugin->lookup('pyrbd')->volume_snapshot_needs_fsfreeze()")
    code = "PVE::Storage::volume_has_feature($cfg, @ARGS) ? 1 : 0"
    volid, base = "librbd:vm-100-disk-0", "librbd:base-100-disk-0"
    yes = [
        *(("snapshot", volid), ("snapshot", volid, "one"), ("clone", base)),
        *(("clone", volid, "one"), ("template", volid), ("copy", volid), ("copy", base)),
        *(("copy", volid, "one"), ("sparseinit", volid), ("rename", volid)),
    ]
    assert [one for one in yes if not node.ask(code, *one)] == []
    no = [("clone", volid), ("template", base), ("replicate", volid)]
    assert [one for one in no if node.ask(code, *one)] == []


@pytest.mark.contract("C-098", "C-097", "C-099")
@pytest.mark.method("on_add_hook", "on_update_hook_full", "on_delete_hook")
def test_secrets_are_named_by_their_file_only(node: RbdNode) -> None:
    key = "AQDtVerySecret=="
    scfg = {"type": "pyrbd", "monhost": "10.0.0.1 10.0.0.2:3300;[fd00::1]:6789", "pool": "rbd"}
    hook = "PVE::Storage::Plugin->lookup('pyrbd')->"
    add = f"{hook}on_add_hook('far', $ARGS[0], keyring => $ARGS[1]); undef"
    node.ask(add, scfg, f"[client.admin]\nkey = {key}")
    node.add("far", "pyrbd", monhost=scfg["monhost"], pool="rbd")
    conf, keyring = node.etc / "priv/ceph/far.conf", node.etc / "priv/storage/far.keyring"
    assert f"keyring = {keyring}" in conf.read_text()
    volid = node.ask("PVE::Storage::vdisk_alloc($cfg, 'far', 100, 'raw', undef, 1024)")
    server = [{"host": "10.0.0.1", "port": "3300"}, {"host": "10.0.0.2", "port": "3300"}]
    server.append({"host": "fd00::1", "port": "6789"})
    assert node.blockdev(volid)["server"] == server
    path = node.ask("scalar(PVE::Storage::path($cfg, $ARGS[0]))", volid)
    assert ":mon_host=10.0.0.1;10.0.0.2\\:3300;[fd00\\:\\:1]\\:6789:auth_supported=cephx:" in path
    monitors = "10.0.0.1,10.0.0.2:3300,[fd00::1]:6789"
    found = ["-c", str(conf), "-m", monitors, "--auth_supported", "cephx", "-n", "client.admin"]
    assert node.connections()[-1] == [*found, "--keyring", str(keyring)]
    written = (node.home / "argv").read_text() + node.storage_cfg()
    written += "".join(
        file.read_text() for file in (*node.base.glob("*.log"), *node.base.glob("*.trace"))
    )
    assert key not in written
    update = f"{hook}on_update_hook_full('far', $ARGS[0], {{}}, $ARGS[1], $ARGS[2]); undef"
    node.ask(update, scfg, None, {"keyring": f"[client.admin]\nkey = {key}\n\n"})
    assert keyring.read_text() == f"[client.admin]\nkey = {key}\n"
    node.ask(update, scfg, ["keyring"], {"keyring": None})
    assert not keyring.exists()
    assert not conf.exists()


@pytest.mark.contract("C-096")
def test_what_an_administrator_wrote_is_used_and_kept(node: RbdNode) -> None:
    """/etc/pve/priv/ceph is where PVE documents both files."""
    folder = node.etc / "priv/ceph"
    folder.mkdir(parents=True)
    (folder / "far.keyring").write_text("[client.vm]\nkey = x\n")
    (folder / "far.conf").write_text(
        f"[global]\nkeyring = {folder}/far.keyring\nms_mode = secure\n"
    )
    node.add("far", "pyrbd", monhost="10.0.0.1", username="vm")
    volid = node.ask("PVE::Storage::vdisk_alloc($cfg, 'far', 100, 'raw', undef, 1024)")
    assert node.connections()[-1][-1] == f"{folder}/far.keyring"
    assert node.blockdev(volid)["user"] == "vm"
    node.ask(
        "PVE::Storage::Plugin->lookup('pyrbd')->on_delete_hook('far', $cfg->{ids}->{far}); undef"
    )
    assert sorted(file.name for file in folder.iterdir()) == ["far.conf", "far.keyring"]


def test_open_cluster(node: RbdNode) -> None:
    """``monhost`` without a keyring: PVE takes it for a cluster without authentication."""
    node.add("far", "pyrbd", monhost="10.0.0.1")
    volid = node.ask("PVE::Storage::vdisk_alloc($cfg, 'far', 100, 'raw', undef, 1024)")
    expected = ["-m", "10.0.0.1", "--auth_supported", "none", "-n", "client.admin"]
    assert node.connections()[-1] == expected
    blockdev = node.blockdev(volid)
    assert blockdev["auth-client-required"] == ["none"]
    assert "user" not in blockdev
    assert "conf" not in blockdev


@pytest.mark.contract("C-060", "C-092")
def test_import_whose_caller_goes_leaves_nothing(node: RbdNode) -> None:
    """The commands that clean up run although the call they belong to is cancelled."""
    node.ask(
        """
        pipe(my $reader, my $writer) or die "pipe: $!";
        my $pid = fork() // die "fork: $!";
        if (!$pid) {
            eval {
                PVE::Storage::volume_import(
                    $cfg, $reader, 'librbd:vm-100-disk-0', 'raw+size', undef, undef, 0, 0);
            };
            POSIX::_exit(0);
        }
        syswrite($writer, pack('Q<', 1 << 20) . ('x' x 4096));
        my $state = "$ARGS[0]/state.json";
        for (1 .. 100) {
            last if PVE::Tools::file_get_contents($state) =~ /vm-100-disk-0/;
            select(undef, undef, undef, 0.1);
        }
        die "nothing was made" if PVE::Tools::file_get_contents($state) !~ /vm-100-disk-0/;
        kill('KILL', $pid);
        waitpid($pid, 0);
        undef;
        """,
        str(node.home),
    )
    ends = time.monotonic() + 20
    while node.images() and time.monotonic() < ends:
        time.sleep(0.1)
    assert node.images() == {}
    assert os.listdir(node.home / "data") == []
