# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""First act: ``pydir``.  The whole life of volumes: snapshots, templates, clones, transfers."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path

from stage import MIB, Stage

HINTS = {"guest-is-windows": 1, "plugin-may-deactivate-volume": 1}


def play(stage: Stage) -> None:
    """The life of a storage and its volumes, as PVE would have it."""
    stage.act("pydir", "PVE's directory storage, in Python")
    store = stage.base / "store"
    store.mkdir()

    stage.step(
        "PVE::API2::Storage::Config->create",
        "PVE::API2::Storage::Config->create({ storage => 'demo', type => 'pydir',"
        " path => $ARGS[0], content => 'images,iso' }); undef",
        str(store),
    )
    stage.step(
        "PVE::Storage::activate_storage", "PVE::Storage::activate_storage($cfg, 'demo'); undef"
    )
    raw = stage.step(
        "PVE::Storage::vdisk_alloc raw, 64 MiB",
        "PVE::Storage::vdisk_alloc($cfg, 'demo', 100, 'raw', undef, 65536)",
        expect="demo:100/vm-100-disk-0.raw",
    )
    qcow = stage.step(
        "PVE::Storage::vdisk_alloc qcow2, 64 MiB",
        "PVE::Storage::vdisk_alloc($cfg, 'demo', 100, 'qcow2', undef, 65536)",
        expect="demo:100/vm-100-disk-1.qcow2",
    )
    stage.step(
        "PVE::Storage::activate_volumes with hints",
        "PVE::Storage::activate_volumes($cfg, [@ARGS[0, 1]], undef, $ARGS[2]); undef",
        raw,
        qcow,
        HINTS,
    )
    stage.step(
        "PVE::Storage::map_volume with hints",
        "PVE::Storage::map_volume($cfg, $ARGS[0], undef, $ARGS[1])",
        raw,
        HINTS,
        expect=str(store / "images/100/vm-100-disk-0.raw"),
    )
    write_and_read(stage, qcow, 0x5A)
    snapshots(stage, qcow)
    resize(stage, qcow)
    clone = template_and_clone(stage, qcow)
    copy = transfer(stage, clone)
    inventory(stage, [raw, clone, copy])
    tear_down(stage, [raw, clone, copy], store)


def write_and_read(stage: Stage, volid: str, byte: int) -> None:
    """Open the volume the way QEMU would: PVE's options below, the format layer on top."""
    if stage.apiver >= 12:
        options = stage.step(
            "PVE::Storage::qemu_blockdev_options",
            "PVE::Storage::qemu_blockdev_options($cfg, $ARGS[0], '10.0+pve1', { hints => {} })",
            volid,
        )
    else:
        path = stage.step("PVE::Storage::path", "scalar(PVE::Storage::path($cfg, $ARGS[0]))", volid)
        options = {"driver": "file", "filename": path}
    image = "json:" + json.dumps({"driver": "qcow2", "file": options})
    stage.tool(
        f"qemu-io: write and read back 1 MiB of {byte:#x}",
        ["qemu-io", "-c", f"write -P {byte} 0 1M", "-c", f"read -P {byte} 0 1M", image],
    )


def snapshots(stage: Stage, volid: str) -> None:
    """Snapshot, change, roll back: the old data is there again."""
    stage.step(
        "PVE::Storage::volume_snapshot",
        "PVE::Storage::volume_snapshot($cfg, $ARGS[0], 'before'); undef",
        volid,
    )
    write_and_read(stage, volid, 0xA5)
    stage.step(
        "PVE::Storage::volume_snapshot_rollback",
        "PVE::Storage::volume_snapshot_rollback($cfg, $ARGS[0], 'before'); undef",
        volid,
    )
    path = str(stage.base / "store/images" / volid.split(":")[1])
    stage.tool("qemu-io: the old 0x5a is back", ["qemu-io", "-r", "-c", "read -P 0x5a 0 1M", path])
    stage.step(
        "PVE::Storage::volume_snapshot_delete",
        "PVE::Storage::volume_snapshot_delete($cfg, $ARGS[0], 'before', 0); undef",
        volid,
    )


def resize(stage: Stage, volid: str) -> None:
    """Grow to 96 MiB and ask for the size."""
    stage.step(
        "PVE::Storage::volume_resize to 96 MiB",
        "PVE::Storage::volume_resize($cfg, $ARGS[0], $ARGS[1], 0); undef",
        volid,
        96 * MIB,
    )
    stage.step(
        "PVE::Storage::volume_size_info",
        "scalar(PVE::Storage::volume_size_info($cfg, $ARGS[0], 5))",
        volid,
        expect=96 * MIB,
    )


def template_and_clone(stage: Stage, volid: str) -> str:
    """Turn the volume into a base image; a linked clone reads the base's data."""
    base = stage.step(
        "PVE::Storage::vdisk_create_base",
        "PVE::Storage::vdisk_create_base($cfg, $ARGS[0])",
        volid,
        expect="demo:100/base-100-disk-1.qcow2",
    )
    clone = stage.step(
        "PVE::Storage::vdisk_clone (linked)",
        "PVE::Storage::vdisk_clone($cfg, $ARGS[0], 101)",
        base,
        expect="demo:100/base-100-disk-1.qcow2/101/vm-101-disk-0.qcow2",
    )
    path = str(stage.base / "store/images/101/vm-101-disk-0.qcow2")
    stage.tool("qemu-io: the clone reads 0x5a", ["qemu-io", "-r", "-c", "read -P 0x5a 0 1M", path])
    stage.fails(
        "PVE::Storage::vdisk_free of the base in use",
        "PVE::Storage::vdisk_free($cfg, $ARGS[0])",
        base,
        message="base volume '100/base-100-disk-1.qcow2' is still in use by linked clones",
    )
    return str(clone)


EXPORT_IMPORT = """
    pipe(my $reader, my $writer) or die "pipe: $!";
    my $child = fork() // die "fork: $!";
    if (!$child) {
        close($reader);
        eval { PVE::Storage::volume_export($cfg, $writer, $ARGS[0], 'raw+size', undef, undef, 0) };
        warn $@ if $@;
        POSIX::_exit($@ ? 1 : 0);
    }
    close($writer);
    my $volid = PVE::Storage::volume_import(
        $cfg, $reader, $ARGS[1], 'raw+size', undef, undef, 0, 0);
    waitpid($child, 0);
    die "export failed\\n" if $?;
    $volid
"""


def transfer(stage: Stage, volid: str) -> str:
    """Export the clone through a pipe into a new raw volume; both must hold the same bytes."""
    copy = stage.step(
        "PVE::Storage::volume_export | volume_import",
        EXPORT_IMPORT,
        volid,
        "demo:102/vm-102-disk-0.raw",
        expect="demo:102/vm-102-disk-0.raw",
    )
    images = stage.base / "store/images"
    sums = {
        checksum(images / "101/vm-101-disk-0.qcow2"),
        checksum(images / "102/vm-102-disk-0.raw"),
    }
    stage.check("sha256 of both contents", len(sums) == 1, ", ".join(sorted(sums)))
    return str(copy)


def checksum(image: Path) -> str:
    """SHA-256 of an image's content, whatever its format."""
    with tempfile.NamedTemporaryFile(dir=image.parent, suffix=".raw") as plain:
        subprocess.run(["qemu-img", "convert", "-O", "raw", image, plain.name], check=True)
        done = subprocess.run(["sha256sum", plain.name], check=True, capture_output=True, text=True)
    return done.stdout.split()[0]


def inventory(stage: Stage, volids: list[str]) -> None:
    """What PVE sees of it."""
    base = "demo:100/base-100-disk-1.qcow2"
    stage.step(
        "PVE::Storage::vdisk_list",
        "[map { $_->{volid} } PVE::Storage::vdisk_list($cfg, 'demo')->{demo}->@*]",
        expect=sorted([*volids, base], key=str.lower),
    )
    stage.step(
        "PVE::Storage::storage_info",
        "my $i = PVE::Storage::storage_info($cfg)->{demo};"
        " { active => $i->{active}, sane => $i->{total} >= $i->{avail} ? 1 : 0 }",
        expect={"active": 1, "sane": 1},
    )


def tear_down(stage: Stage, volids: list[str], store: Path) -> None:
    """Free everything, clones before their base, and remove the storage."""
    for volid in [*volids, "demo:100/base-100-disk-1.qcow2"]:
        stage.step(
            f"PVE::Storage::vdisk_free {volid.rsplit('/', 1)[1]}",
            "PVE::Storage::vdisk_free($cfg, $ARGS[0]); undef",
            volid,
        )
    left = [path.name for path in (store / "images").rglob("*")]
    stage.check("nothing left in the directory", not left, ", ".join(left))
    stage.step(
        "PVE::API2::Storage::Config->delete",
        "PVE::API2::Storage::Config->delete({ storage => 'demo' }); undef",
    )
    config = (stage.base / "etc-pve/storage.cfg").read_text()
    stage.check("storage.cfg has no trace of it", "demo" not in config, config)
