# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""File handles that travel with a call, and the methods a plugin doesn't have."""

from __future__ import annotations

import os
from typing import Any

import pytest

from probe_util import CALL, VOLUME, Probe, printed, scfg
from pve_pybridge.methods import METHODS

S = scfg()
V = VOLUME
CLASS = "PVE::Storage::Custom::PyBridge::probe"

# --- file handles ------------------------------------------------------------------------------

EXPORT = f"{CLASS}->volume_export($ARGS[0], 'p1', $fh, 'vm-1-disk-0', 'raw+size', undef, undef, 0);"
IMPORT = f"{CLASS}->volume_import($ARGS[0], 'p1', $fh, 'vm-1-disk-0', 'raw+size')"
STREAM = (14).to_bytes(8, "little") + b"p1:vm-1-disk-0"
HANDLES = {
    "pipe": "pipe(my $in, my $out) or die;",
    "socket": "use Socket; socketpair(my $in, my $out, AF_UNIX, SOCK_STREAM, PF_UNSPEC) or die;",
    "file": "open(my $out, '>', $ARGS[1]) or die $!; open(my $in, '<', $ARGS[1]) or die $!;",
}


@pytest.mark.contract("C-092")
@pytest.mark.method("volume_export", "volume_import")
@pytest.mark.parametrize("kind", HANDLES)
def test_handles_of_every_kind(probe: Probe, kind: str) -> None:
    code = f"""
        {HANDLES[kind]}
        my $fh = $out;
        {EXPORT}
        close($out);
        $fh = $in;
        return {IMPORT};
    """
    file = probe.node.base / "stream"
    assert probe.node.perl(code, S, str(file)).ok() == "p1:vm-9-imported"
    assert probe.last("received")["args"] == {"data": "p1:vm-1-disk-0"}
    if kind == "file":
        assert file.read_bytes() == STREAM


def test_export_to_stdout_leaves_it_usable(probe: Probe) -> None:
    code = f"""
        open(my $fh, '>&', \\*STDOUT) or die $!;
        {EXPORT}
        close($fh);
        return fileno(STDOUT);
    """
    answer = probe.node.perl(code, probe.fault("volume_export:log"))
    assert answer.ok() == 1
    assert answer.stdout.encode() == STREAM
    assert printed(answer)[0] == "first"


def test_import_stops_at_an_early_end(probe: Probe) -> None:
    code = f"""
        pipe(my $fh, my $out) or die;
        syswrite($out, pack('H*', $ARGS[1]));
        close($out);
        return {IMPORT};
    """
    answer = probe.node.perl(code, S, STREAM[:-3].hex())
    assert answer.error == "the stream ended after 11 of 14 bytes\n"


def test_closed_handle(probe: Probe) -> None:
    code = f"open(my $fh, '<', '/dev/null') or die; close($fh); {EXPORT}"
    answer = probe.node.perl(code, S)
    assert answer.error == "storage 'p1': volume_export: the file handle is not open\n"
    assert probe.call("get_identity", S, "p1").ok() == "identity"


def test_server_keeps_no_descriptor(probe: Probe) -> None:
    def count() -> int:
        return len(os.listdir(f"/proc/{probe.server.process.pid}/fd"))

    code = f"pipe(my $in, my $fh) or die; {EXPORT} return 1;"
    probe.node.perl(code, S).ok()
    before = count()
    for _ in range(5):
        probe.node.perl(code, S).ok()
    assert count() == before


# --- methods a plugin doesn't have -------------------------------------------------------------

REFUSED: list[tuple[str, list[Any]]] = [
    ("alloc_image", ["b1", S, 100, "raw", None, 1024]),
    ("clone_image", [S, "b1", V, 101, None]),
    ("create_base", ["b1", S, V]),
    ("free_image", ["b1", S, V, 0, "raw"]),
    ("volume_size_info", [S, "b1", V]),
    ("volume_resize", [S, "b1", V, 1024, 0]),
    ("rename_volume", [S, "b1", V, 101, None]),
    ("volume_snapshot", [S, "b1", V, "s"]),
    ("volume_snapshot_delete", [S, "b1", V, "s"]),
    ("volume_snapshot_rollback", [S, "b1", V, "s"]),
    ("volume_rollback_is_possible", [S, "b1", V, "s", []]),
    ("volume_snapshot_info", [S, "b1", V]),
    ("rename_snapshot", [S, "b1", V, "a", "b"]),
    ("prune_backups", [S, "b1", {"keep-last": 1}, None, None, 0]),
    ("volume_export", [S, "b1", None, V, "raw+size"]),
    ("volume_import", [S, "b1", None, V, "raw+size"]),
]
STATIC: list[tuple[str, list[Any], Any]] = [
    ("parse_volname", ["iso/a.iso"], ["iso", "a.iso", None, None, None, None, "raw"]),
    ("get_formats", [S, "b1"], [{"default": "raw", "valid": {"raw": 1}}]),
    ("volume_has_feature", [S, "copy", "b1", V], [1]),
    ("volume_has_feature", [S, "snapshot", "b1", V], [0]),
    ("volume_has_feature", [S, "sparseinit", "b1", V], [0]),
    ("volume_has_feature", [S, "clone", "b1", "base-1-disk-0"], [0]),
    ("volume_qemu_snapshot_method", ["b1", S, V], ["storage"]),
    ("volume_snapshot_needs_fsfreeze", [], [0]),
    ("storage_can_replicate", [S, "b1", "raw"], [0]),
    ("activate_storage", ["b1", S, {}], [None]),
    ("activate_volume", ["b1", S, V, None, {}, None], [None]),
    ("volume_export_formats", [S, "b1", V, None, None, 0], ["raw+size"]),
    ("volume_export_formats", [S, "b1", V, None, None, 1], []),
    ("volume_import_formats", [S, "b1", V, None, None, 0], []),
]
INHERITED: list[tuple[str, list[Any], Any]] = [
    ("check_connection", ["b1", S], [1]),
    ("deactivate_storage", ["b1", S, {}], "ignored"),
    ("deactivate_volume", ["b1", S, V, None, {}], "ignored"),
    ("unmap_volume", ["b1", S, V, None], [1]),
    ("on_delete_hook", ["b1", S], [None]),
    ("map_volume", ["b1", S, V, None, None], ["/dev/bare/b1/vm-100-disk-0"]),
]


@pytest.mark.contract("C-034")
@pytest.mark.parametrize(("method", "given"), REFUSED, ids=[method for method, _ in REFUSED])
def test_refused(probe: Probe, method: str, given: list[Any]) -> None:
    answer = probe.node.perl(CALL, "bare", method, *given)
    assert answer.error == f"storage type 'bare' does not support {method}\n"
    assert not [call for call in probe.bare.calls() if call["method"] == method]


@pytest.mark.contract("C-034", "C-015", "C-017", "C-089")
@pytest.mark.parametrize(("method", "given", "value"), STATIC, ids=[s[0] for s in STATIC])
def test_static(probe: Probe, method: str, given: list[Any], value: list[Any]) -> None:
    """Answered in Perl, from the manifest."""
    before = len(probe.bare.calls())
    assert probe.node.perl(CALL, "bare", method, *given, context="list").ok() == value
    assert len(probe.bare.calls()) == before


@pytest.mark.contract("C-034")
@pytest.mark.parametrize(("method", "given", "value"), INHERITED, ids=[i[0] for i in INHERITED])
def test_inherited(probe: Probe, method: str, given: list[Any], value: Any) -> None:
    """PVE's base method, where that is safe for a storage without a directory (contract 2.11)."""
    before = len(probe.bare.calls(method))
    found = probe.node.perl(CALL, "bare", method, *given, context="list").ok()
    assert value in ("ignored", found)
    assert len(probe.bare.calls(method)) == before


def test_every_absent_method_is_here() -> None:
    """By the table's column; the list of those inherited untouched is in test_methods_table."""
    missing = {
        name
        for name, row in METHODS.items()
        if row.absent != "inherit" and name not in ("path", "status", "list_images")
    }
    tried = {case[0] for case in REFUSED} | {case[0] for case in STATIC}
    assert missing - tried == {"free_image_cleanup"}
