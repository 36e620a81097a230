# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""``pyrbd`` on any cluster: on the one of tests/fakes, and by tools/ceph-test on a real one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from rbd_util import REAL_CONF, RbdNode, RealNode, image_name

KEYRING_FILE = "priv/storage/far.keyring"


@pytest.fixture
def node(tmp_path: Path) -> Iterator[RbdNode]:
    with RealNode(tmp_path) if REAL_CONF else RbdNode(tmp_path, namespace="ns") as it:
        yield it


LIFE = """
    my $volid = $ARGS[0];
    PVE::Storage::activate_volumes($cfg, [$volid]);
    PVE::Storage::activate_volumes($cfg, [$volid]);
    PVE::Storage::deactivate_volumes($cfg, [$volid]);
    PVE::Storage::deactivate_volumes($cfg, [$volid, 'librbd:vm-999-disk-0']);
"""


@pytest.mark.contract("C-072", "C-074", "C-080", "C-082", "C-084", "C-085", "C-087", "C-088")
@pytest.mark.method(
    *("volume_snapshot", "volume_snapshot_delete", "volume_snapshot_rollback"),
    *("volume_snapshot_info", "volume_rollback_is_possible"),
)
def test_snapshots(node: RbdNode) -> None:
    volid = node.alloc()
    node.ask(LIFE, volid)
    node.write(volid, "a")
    node.ask("PVE::Storage::volume_snapshot($cfg, $ARGS[0], 'one')", volid)
    node.write(volid, "b")
    node.ask("PVE::Storage::volume_snapshot($cfg, $ARGS[0], 'two')", volid)
    node.write(volid, "c")
    assert [node.read(volid), node.read(volid, "one"), node.read(volid, "two")] == ["c", "a", "b"]
    info = node.ask("PVE::Storage::volume_snapshot_info($cfg, $ARGS[0])", volid)
    assert set(info) == {"one", "two"}
    assert int(info["one"]["id"]) < int(info["two"]["id"])
    assert info["one"]["timestamp"] > 1_700_000_000
    assert "exists already" in node.dies(
        "PVE::Storage::volume_snapshot($cfg, $ARGS[0], 'one')", volid
    )
    node.ask("PVE::Storage::volume_snapshot_rollback($cfg, $ARGS[0], 'one')", volid)
    assert node.read(volid) == "a"
    for _ in range(2):  # the second time it is gone (T-49)
        node.ask("PVE::Storage::volume_snapshot_delete($cfg, $ARGS[0], 'two'); undef", volid)
    assert set(node.ask("PVE::Storage::volume_snapshot_info($cfg, $ARGS[0])", volid)) == {"one"}
    gone = node.dies("PVE::Storage::volume_snapshot_rollback($cfg, $ARGS[0], 'two')", volid)
    assert gone == "can't rollback, snapshot 'two' does not exist on 'vm-100-disk-0'\n"


@pytest.mark.contract("C-090", "C-062")
def test_freeing_takes_the_snapshots_along(node: RbdNode) -> None:
    volid = node.alloc()
    for name in ("vzdump", "__migration__", "x" * 40, "a-b_c"):
        node.ask("PVE::Storage::volume_snapshot($cfg, @ARGS)", volid, name)
    for _ in range(2):
        node.ask("PVE::Storage::vdisk_free($cfg, $ARGS[0]); undef", volid)
    assert node.images() == {}


@pytest.mark.contract("C-043", "C-044", "C-045", "C-064", "C-067", "C-068", "C-069")
@pytest.mark.method("create_base", "clone_image", "rename_volume", "free_image")
def test_templates_and_linked_clones(node: RbdNode) -> None:
    volid = node.alloc()
    node.write(volid, "a")
    base = node.ask("PVE::Storage::vdisk_create_base($cfg, $ARGS[0])", volid)
    assert base == "librbd:base-100-disk-0"
    clone = node.ask("PVE::Storage::vdisk_clone($cfg, $ARGS[0], 101)", base)
    assert clone == "librbd:base-100-disk-0/vm-101-disk-0"
    node.write(clone, "b")
    assert [node.read(base), node.read(clone)] == ["a", "b"]
    listed = node.ask("PVE::Storage::vdisk_list($cfg, 'librbd')->{librbd}")
    assert {one["volid"] for one in listed} == {base, clone}
    assert "in use" in node.dies("PVE::Storage::vdisk_free($cfg, $ARGS[0])", base)
    moved = node.ask("PVE::Storage::rename_volume($cfg, $ARGS[0], 102)", clone)
    assert moved == "librbd:base-100-disk-0/vm-102-disk-0"
    assert node.read(moved) == "b"
    second = node.ask("PVE::Storage::vdisk_create_base($cfg, $ARGS[0])", moved)
    assert second == "librbd:base-100-disk-0/base-102-disk-0"
    third = node.ask("PVE::Storage::vdisk_clone($cfg, $ARGS[0], 103)", second)
    assert third == "librbd:base-102-disk-0/vm-103-disk-0"
    assert node.read(third) == "b"
    for one in (third, second, base):
        node.ask("PVE::Storage::vdisk_free($cfg, $ARGS[0]); undef", one)
    assert node.images() == {}


@pytest.mark.contract("C-068")
def test_clone_of_a_snapshot(node: RbdNode) -> None:
    """No name shows that it depends on the snapshot, so the plugin protects that (T-22, T-24)."""
    volid = node.alloc()
    node.write(volid, "a")
    node.ask("PVE::Storage::volume_snapshot($cfg, $ARGS[0], 'one')", volid)
    node.write(volid, "b")
    clone = node.ask("PVE::Storage::vdisk_clone($cfg, $ARGS[0], 101, 'one')", volid)
    assert clone == "librbd:vm-101-disk-0"
    assert node.read(clone) == "a"
    why = node.dies("PVE::Storage::volume_snapshot_delete($cfg, $ARGS[0], 'one')", volid)
    assert why.startswith("rbd snap unprotect ")
    assert "cannot unprotect: at least 1 child(ren)" in why
    assert why.count("\n") == 1
    assert set(node.images()) == {"vm-100-disk-0", "vm-101-disk-0"}
    node.ask("PVE::Storage::vdisk_free($cfg, $ARGS[0]); undef", clone)
    node.ask("PVE::Storage::volume_snapshot_delete($cfg, $ARGS[0], 'one'); undef", volid)


@pytest.mark.contract("C-055", "C-057", "C-058", "C-065")
@pytest.mark.method("alloc_image", "volume_size_info", "list_images")
@pytest.mark.parametrize(
    ("kib", "mib"), [(1, 1), (528, 1), (4096, 4), (1.5, 1), (1025, 2), (2**36, 2**26)]
)
def test_sizes(node: RbdNode, kib: float, mib: int) -> None:
    if kib > 2**30 and not REAL_CONF:
        pytest.skip("the fake keeps contents in files")
    volid = node.alloc(kib=kib)
    size = "scalar(PVE::Storage::volume_size_info($cfg, $ARGS[0], 5))"
    assert node.ask(size, volid) == mib << 20
    (entry,) = node.ask("PVE::Storage::vdisk_list($cfg, 'librbd')->{librbd}")
    assert (entry["size"], entry["vmid"], entry["format"]) == (mib << 20, 100, "raw")


@pytest.mark.contract("C-056", "C-010")
def test_names_of_core(node: RbdNode) -> None:
    for name in ("vm-100-cloudinit", "vm-100-state-before", "vm-100-fleece-0", "vm-100-disk-17"):
        assert node.alloc(name=name) == f"librbd:{name}"
        code = "PVE::Storage::vdisk_alloc($cfg, 'librbd', $ARGS[0], 'raw', $ARGS[1], 1024)"
        assert node.dies(code, 100, name) == f"volume '{name}' already exists\n"
        assert "illegal name" in node.dies(code, 101, name)
    assert [node.alloc(), node.alloc()] == ["librbd:vm-100-disk-0", "librbd:vm-100-disk-1"]


@pytest.mark.contract("C-066")
@pytest.mark.method("volume_resize")
def test_resize(node: RbdNode) -> None:
    volid = node.alloc()
    code = "PVE::Storage::volume_resize($cfg, @ARGS); undef"
    node.ask(code, volid, 33 << 20, 0)
    size = "scalar(PVE::Storage::volume_size_info($cfg, $ARGS[0], 5))"
    assert node.ask(size, volid) == 33 << 20
    assert "can't shrink" in node.dies(code, volid, 16 << 20, 0)
    node.ask(code, volid, 64 << 20, 1)  # QEMU, which has it open, resizes it itself
    assert node.ask(size, volid) == 33 << 20


TRANSFER = """
    my ($from, $to, $allow, $snap, $cut) = @ARGS;
    pipe(my $reader, my $writer) or die "pipe: $!";
    defined(my $pid = fork()) or die "fork: $!";
    if (!$pid) {
        close($reader);
        eval { PVE::Storage::volume_export($cfg, $writer, $from, 'raw+size', $snap, undef, 0) };
        print STDERR $@;
        POSIX::_exit($@ ? 1 : 0);
    }
    close($writer);
    if (defined($cut)) {
        pipe(my $less, my $cutter) or die "pipe: $!";
        sysread($reader, my $part, 8);
        syswrite($cutter, $part . ('x' x $cut));
        close($cutter);
        close($reader);
        $reader = $less;
    }
    my $volid = eval {
        PVE::Storage::volume_import($cfg, $reader, $to, 'raw+size', undef, undef, 0, $allow);
    };
    my $err = $@;
    close($reader);
    waitpid($pid, 0);
    die $err if $err;
    return [$volid, $? >> 8];
"""


@pytest.mark.contract("C-091", "C-092", "C-093", "C-017")
@pytest.mark.method("volume_export", "volume_import")
def test_export_and_import(node: RbdNode) -> None:
    volid = node.alloc()
    node.write(volid, "a")
    node.ask("PVE::Storage::volume_snapshot($cfg, $ARGS[0], 'one')", volid)
    node.ask("PVE::Storage::volume_resize($cfg, $ARGS[0], 16777216, 0); undef", volid)
    node.write(volid, "b")
    to = "librbd:vm-200-disk-0"
    size = "scalar(PVE::Storage::volume_size_info($cfg, $ARGS[0], 5))"
    assert node.ask(TRANSFER, volid, to, 0) == [to, 0]
    assert (node.read(to), node.ask(size, to)) == ("b", 16 << 20)
    error = node.dies(TRANSFER, volid, to, 0)
    assert error == "volume 'vm-200-disk-0' already exists\n"
    other = "librbd:vm-200-disk-1"
    assert node.ask(TRANSFER, volid, to, 1, "one") == [other, 0]
    assert (node.read(other), node.ask(size, other)) == ("a", 8 << 20)
    before = set(node.images())
    error = node.dies(TRANSFER, volid, "librbd:vm-201-disk-0", 0, None, 4096)
    assert error == f"import: stream ended after 4096 of {16 << 20} bytes\n"
    assert set(node.images()) == before
    formats = "[PVE::Storage::volume_export_formats($cfg, $ARGS[0], undef, undef, $ARGS[1])]"
    assert [node.ask(formats, volid, flag) for flag in (0, 1)] == [["raw+size"], []]


@pytest.mark.contract("C-038", "C-036")
@pytest.mark.method("status", "check_connection", "get_identity")
def test_status_and_identity(node: RbdNode) -> None:
    info = node.ask("PVE::Storage::storage_info($cfg, undef, 1)->{librbd}")
    assert info["active"]
    assert info["total"] == info["avail"] + info["used"]
    assert info["total"] >= info["avail"] > 0
    scfg = "my $scfg = PVE::Storage::storage_config($cfg, 'librbd');"
    code = f"{scfg} PVE::Storage::Plugin->lookup('pyrbd')->get_identity($scfg, 'librbd')"
    conf = (node.etc / "ceph.conf").read_text()
    assert node.ask(code) == f"{conf.split('fsid = ')[1].split()[0]}/{node.pool}"


@pytest.mark.parametrize(
    ("property_", "error"),
    [
        ({"pool": "nopool"}, "rbd ls nopool: error opening pool 'nopool': (2) "),
        ({"namespace": "nons"}, "rbd ls rbd/nons: namespace 'nons' does not exist."),
    ],
)
def test_missing_pool_or_namespace(node: RbdNode, property_: dict[str, str], error: str) -> None:
    node.add("lost", "pyrbd", **property_)
    code = "PVE::Storage::Plugin->lookup('pyrbd')->list_images('lost', $cfg->{ids}->{lost})"
    assert node.dies(code).startswith(error)


@pytest.mark.contract("C-061", "C-062")
def test_an_image_in_use_stays_whole(node: RbdNode) -> None:
    volid = node.alloc()
    node.ask("PVE::Storage::volume_snapshot($cfg, $ARGS[0], 'one')", volid)
    free = "PVE::Storage::vdisk_free($cfg, $ARGS[0])"
    if isinstance(node, RealNode):
        qemu = subprocess.Popen(
            ["qemu-io", image_name(node.blockdev(volid))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert qemu.stdin
        assert qemu.stdout
        qemu.stdin.write(b"write 0 512\n")
        qemu.stdin.flush()
        while b"ops" not in qemu.stdout.readline():
            pass
        error = node.dies(free, volid)
        qemu.communicate(b"quit\n", timeout=30)
    else:
        images = node.state()["images"]
        images[f"{node.pool}/vm-100-disk-0"]["watchers"] = ["127.0.0.1:0/1"]
        node.state(images=images)
        error = node.dies(free, volid)
        images[f"{node.pool}/vm-100-disk-0"]["watchers"] = []
        node.state(images=images)
    assert error.startswith("volume 'vm-100-disk-0' is in use by 127.0.0.1:0/")
    assert set(node.ask("PVE::Storage::volume_snapshot_info($cfg, $ARGS[0])", volid)) == {"one"}
    node.ask(f"{free}; undef", volid)
    assert node.images() == {}


@pytest.mark.contract("C-081")
@pytest.mark.method("qemu_blockdev_options", "path")
@pytest.mark.parametrize("machine", ["10.0+pve0", "pc-q35-10.1", None])
def test_a_cluster_of_somebody_else(node: RbdNode, machine: str | None) -> None:
    """``monhost`` and a keyring; QEMU finds the key by way of a file that names its file."""
    monitor, key = "127.0.0.1:3300", "[client.admin]\n\tkey = AQCx=="
    if isinstance(node, RealNode):
        monitor = node.rbd("--show-config-value", "mon_host").split("v2:")[1].split("/")[0]
        command = ["ceph", "-c", str(REAL_CONF), "auth", "get-key", "client.admin"]
        shown = subprocess.run(command, check=True, capture_output=True, text=True)
        key = f"[client.admin]\n\tkey = {shown.stdout}"
    scfg = {"type": "pyrbd", "pool": "rbd", "namespace": node.namespace, "monhost": monitor}
    code = """
        PVE::Storage::Plugin->lookup('pyrbd')->on_add_hook('far', $ARGS[0], keyring => $ARGS[1]);
        undef;
    """
    assert "is no Ceph keyring" in node.dies(code, scfg, "AQCx==")
    assert not (node.etc / KEYRING_FILE).exists()
    node.ask(code, scfg, key)
    keyring, conf = node.etc / KEYRING_FILE, node.etc / "priv/ceph/far.conf"
    assert keyring.read_text() == f"{key}\n", "Ceph can't read a last line without an end"
    node.add("far", "pyrbd", pool="rbd", namespace=node.namespace, monhost=monitor)
    volid = node.alloc().replace("librbd:", "far:")
    node.write(volid, "q")
    assert node.read(volid) == "q"
    host, _, port = monitor.partition(":")
    assert node.blockdev(volid, machine=machine) == {
        "driver": "rbd",
        "pool": "rbd",
        "namespace": node.namespace,
        "image": "vm-100-disk-0",
        "conf": str(conf),
        "user": "admin",
        "auth-client-required": ["cephx"],
        "server": [{"host": host, "port": port}],
    }
    path = node.ask("scalar(PVE::Storage::path($cfg, $ARGS[0]))", volid)
    assert path == (
        f"rbd:{node.pool}/vm-100-disk-0:conf={conf}:mon_host={host}\\:{port}"
        f":auth_supported=cephx:id=admin:keyring={keyring}"
    )
    if isinstance(node, RealNode):
        shown = subprocess.run(
            ["qemu-img", "info", path], check=True, capture_output=True, text=True
        )
        assert "virtual size: 8 MiB" in shown.stdout
    node.ask("PVE::Storage::Plugin->lookup('pyrbd')->on_delete_hook('far', $ARGS[0]); undef", scfg)
    assert not conf.exists()
    assert not keyring.exists()


@pytest.mark.contract("C-036", "C-037")
def test_unreachable_cluster(node: RbdNode) -> None:
    """Nobody listens (real), or nobody answers (fake): pvestatd gets on with its other storages."""
    if REAL_CONF:
        node.add("far", "pyrbd", monhost="127.0.0.1:1")
    else:
        node.add("far", "pyrbd", monhost="127.0.0.1")
        (node.home / "down").touch()
    ask = (
        "my @args = ('far', $cfg->{ids}->{far}); my $class = PVE::Storage::Plugin->lookup('pyrbd');"
    )
    result = node.perl(
        f"""
        my $cfg = PVE::Storage::config(); {ask}
        my $start = time();
        my $online = $class->check_connection(@args) ? 1 : 0;
        my $after_check = time() - $start;
        my @status = eval {{ $class->status(@args, {{}}) }};
        return [$online, $after_check, 0 + grep({{ defined }} @status), time() - $start];
        """
    )
    online, after_check, answers, both = result.ok()
    assert (online, answers) == (0, 0)
    assert after_check <= 4
    assert both <= 9
    assert "can't reach the cluster: " in result.stderr


@pytest.mark.contract("C-055", "C-103")
def test_parallel_allocations(node: RbdNode) -> None:
    """The cluster itself decides who gets a name (T-47)."""
    found = node.ask(
        """
        my $class = PVE::Storage::Plugin->lookup('pyrbd');
        my (@pipes, @names);
        for (1 .. 4) {
            pipe(my $reader, my $writer) or die "pipe: $!";
            if (!fork()) {
                my $name = eval {
                    $class->alloc_image('librbd', $cfg->{ids}->{librbd}, 100, 'raw', undef, 1024);
                } // $@;
                syswrite($writer, $name);
                POSIX::_exit(0);
            }
            close($writer);
            push @pipes, $reader;
        }
        for my $pipe (@pipes) {
            sysread($pipe, my $name, 1000);
            push @names, $name;
        }
        wait() for @pipes;
        return [sort @names];
        """
    )
    assert found == [f"vm-100-disk-{number}" for number in range(4)]


def test_real_krbd(tmp_path: Path) -> None:
    """Mapping by a real kernel: run by hand on a node that has the module and a cluster."""
    if not REAL_CONF:
        pytest.skip("no real cluster; krbd is tested against tests/fakes in test_pyrbd_krbd.py")
    if not Path("/sys/bus/rbd").exists() or os.geteuid() != 0:
        pytest.skip(
            f"kernel {os.uname().release} has no rbd module loaded: krbd is tested against"
            " tests/fakes only, in test_pyrbd_krbd.py"
        )
    with RealNode(tmp_path) as node:
        node.add("krbd", "pyrbd", pool="rbd", namespace=str(node.namespace), krbd=1)
        volid = node.alloc().replace("librbd:", "krbd:")
        node.ask("PVE::Storage::activate_volumes($cfg, [$ARGS[0]])", volid)
        path = node.ask("scalar(PVE::Storage::path($cfg, $ARGS[0]))", volid)
        assert Path(path).is_block_device()
        node.ask("PVE::Storage::vdisk_free($cfg, $ARGS[0]); undef", volid)
