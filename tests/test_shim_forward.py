# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Each method as PVE calls it: what the plugin gets, what PVE gets back, in which context."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from bridge_util import Node
from probe_util import VOLUME, Probe, scfg
from pve_pybridge.methods import LOCAL, METHODS

S = scfg()
V = VOLUME
HINTS = {"guest-is-windows": 1, "plugin-may-deactivate-volume": 0}
EXABYTE = 1 << 60


@dataclass(frozen=True)
class Case:
    """PVE's arguments after the class, what the plugin saw, what PVE got."""

    method: str
    given: list[Any]
    seen: dict[str, Any]
    value: Any = None
    context: str = "scalar"
    as_: str = ""


CASES = [
    Case(
        "on_add_hook",
        ["p1", {"type": "probe", "probe-limit": "5"}, "probe-token", "t0ken"],
        {"scfg": {"type": "probe", "probe-limit": "5"}, "sensitive": {"probe-token": "t0ken"}},
    ),
    Case(
        "on_update_hook",
        ["p1", {"type": "probe", "probe-limit": 7}, "probe-token", None],
        {
            "update": {"type": "probe", "probe-limit": 7},
            "delete": None,
            "sensitive": {"probe-token": None},
        },
        as_="on_update_hook_full",
    ),
    Case(
        "on_update_hook_full",
        ["p1", S, {"probe-limit": 7}, ["probe-value"], {"probe-token": None}],
        {
            "update": {"probe-limit": 7},
            "delete": ["probe-value"],
            "sensitive": {"probe-token": None},
        },
    ),
    Case("on_delete_hook", ["p1", S], {}),
    Case("path", [S, V, "p1", "s1"], {"volname": V, "snapname": "s1"}, "{run}/" + V + "@s1"),
    Case(
        "path",
        [S, V, "p1"],
        {"volname": V, "snapname": None},
        ["{run}/" + V + "@", 100, "images"],
        "list",
    ),
    Case("get_formats", [S, "p1"], {}, {"default": "qcow2", "valid": {"qcow2": 1, "raw": 1}}),
    Case("check_connection", ["p1", S], {}, 1),
    Case("activate_storage", ["p1", S, {}], {}),
    Case("deactivate_storage", ["p1", S, {}], {}),
    Case("status", ["p1", S, {}], {}, [EXABYTE, (1 << 53) + 1, 3, 1], "list"),
    Case("get_identity", [S, "p1"], {}, "identity"),
    Case(
        "alloc_image",
        ["p1", S, "100", "raw", None, "1.5"],
        {"vmid": 100, "format": "raw", "name": None, "size": 1536},
        "vm-100-disk-7",
    ),
    Case(
        "clone_image",
        [S, "p1", V, "101", "s1"],
        {"volname": V, "vmid": 101, "snapname": "s1"},
        "vm-101-disk-8",
    ),
    Case("create_base", ["p1", S, V], {"volname": V}, "base-100-disk-0"),
    Case(
        "free_image",
        ["p1", S, V, 1, "raw"],
        {"volname": V, "is_base": True, "format": "raw"},
        {"__code__": 1},
    ),
    Case(
        "list_images",
        ["p1", S, "100", ["p1:" + V], {}],
        {"vmid": 100, "vollist": ["p1:" + V]},
        [
            {
                "volid": "p1:vm-100-disk-0",
                "format": "raw",
                "size": EXABYTE + 1,
                "vmid": 100,
                "ctime": 1700000000,
            },
            {
                "volid": "p1:vm-100-disk-1",
                "format": "raw",
                "approximate-size": 5,
                "vmid": 100,
                "name": "ü",
                "notes": "ü",
            },
        ],
    ),
    Case(
        "list_volumes",
        ["p1", S, None, ["images", "iso"]],
        {"vmid": None, "content_types": ["images", "iso"]},
        [{"volid": "p1:" + V, "format": "raw", "size": 1, "content": "images", "notes": "nöte"}],
    ),
    Case("volume_size_info", [S, "p1", V, "5"], {"volname": V, "timeout": 5.0}, EXABYTE + 1),
    Case(
        "volume_size_info",
        [S, "p1", V],
        {"volname": V, "timeout": None},
        [EXABYTE + 1, "raw", 7, "pärent", 8],
        "list",
    ),
    Case(
        "volume_resize",
        [S, "p1", V, "1048576", 4711, None],
        {"volname": V, "size": 1 << 20, "running": True, "snapname": None},
    ),
    Case(
        "rename_volume",
        [S, "p1", V, "9", None],
        {"source_volname": V, "target_vmid": 9, "target_volname": None},
        "p1:vm-9-disk-9",
    ),
    Case(
        "volume_has_feature",
        [S, "snapshot", "p1", V, None, 0, {"valid_target_formats": ["raw"]}],
        {
            "feature": "snapshot",
            "volname": V,
            "snapname": None,
            "running": False,
            "opts": {"valid_target_formats": ["raw"]},
        },
        1,
    ),
    Case(
        "volume_has_feature",
        [S, "clone", "p1", V],
        {"feature": "clone", "volname": V, "snapname": None, "running": False, "opts": {}},
        0,
    ),
    Case(
        "get_import_metadata",
        [S, V, "p1"],
        {"volname": V},
        {"type": "vm", "disks": {"scsi0": True}},
    ),
    Case("volume_snapshot", [S, "p1", V, "s1"], {"volname": V, "snapname": "s1"}),
    Case(
        "volume_snapshot_delete",
        [S, "p1", V, "s1", 1],
        {"volname": V, "snapname": "s1", "running": True},
    ),
    Case("volume_snapshot_rollback", [S, "p1", V, "s1"], {"volname": V, "snapname": "s1"}),
    Case(
        "volume_rollback_is_possible",
        [S, "p1", V, "newest", []],
        {"volname": V, "snapname": "newest"},
        1,
    ),
    Case(
        "volume_snapshot_info",
        [S, "p1", V],
        {"volname": V},
        {"s1": {"id": "7", "timestamp": 1, "virtual-size": EXABYTE}},
    ),
    Case(
        "rename_snapshot",
        [S, "p1", V, "a", "b"],
        {"volname": V, "source_snapname": "a", "target_snapname": "b"},
    ),
    Case("volume_qemu_snapshot_method", ["p1", S, V], {"volname": V}, "mixed"),
    Case(
        "activate_volume",
        ["p1", S, V, "s1", {}, HINTS],
        {"volname": V, "snapname": "s1", "hints": HINTS},
    ),
    Case("deactivate_volume", ["p1", S, V, "s1", {}], {"volname": V, "snapname": "s1"}),
    Case(
        "map_volume",
        ["p1", S, V, None, HINTS],
        {"volname": V, "snapname": None, "hints": HINTS},
        "/dev/mapped",
    ),
    Case("unmap_volume", ["p1", S, V, "s1"], {"volname": V, "snapname": "s1"}, 1),
    Case(
        "qemu_blockdev_options",
        [S, "p1", V, "10.1+pve0", {"hints": {"efi-disk": 1}, "snapshot-name": "s1"}],
        {
            "volname": V,
            "machine_version": "10.1+pve0",
            "options": {"hints": {"efi-disk": 1}, "snapshot-name": "s1"},
        },
        {
            "driver": "nbd",
            "server": {"type": "unix", "path": "/run/x.sock"},
            "export": "ü",
            "open-timeout": 5,
            "flag": True,
        },
    ),
    Case(
        "get_volume_attribute",
        [S, "p1", V, "notes"],
        {"volname": V, "attribute": "notes"},
        "nötes ✓",
    ),
    Case(
        "update_volume_attribute",
        [S, "p1", V, "protected", 1],
        {"volname": V, "attribute": "protected", "value": "1"},
    ),
    Case(
        "prune_backups",
        [S, "p1", {"keep-last": "3", "keep-all": 0}, "100", "qemu", 1, None],
        {"keep": {"keep-last": 3, "keep-all": 0}, "vmid": 100, "type": "qemu", "dryrun": True},
        [
            {"volid": "p1:backup/a.vma", "ctime": 1, "type": "qemu", "mark": "keep", "vmid": 100},
            {"volid": "p1:b", "ctime": 2, "type": "lxc", "mark": "remove"},
        ],
    ),
    Case(
        "volume_export_formats",
        [S, "p1", V, "s1", "s0", ["s0", "s1"]],
        {"volname": V, "snapshot": "s1", "base_snapshot": "s0", "with_snapshots": ["s0", "s1"]},
        ["raw+size", "tar+size"],
        "list",
    ),
    Case(
        "volume_import_formats",
        [S, "p1", V, None, None, 0],
        {"volname": V, "snapshot": None, "base_snapshot": None, "with_snapshots": False},
        [],
        "list",
    ),
]


@pytest.fixture(autouse=True, scope="module")
def configured(probe: Probe) -> None:
    """on_update_hook isn't given the section: the shim looks it up."""
    probe.node.add("p1", "probe", content="images", probe_value="old")


@pytest.mark.contract("C-014", "C-016", "C-017", "C-018", "C-019")
@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=pytest.mark.method(case.method)) for case in CASES],
    ids=[f"{case.method}-{case.context}" for case in CASES],
)
def test_forwarded(probe: Probe, case: Case) -> None:
    context: Any = case.context
    before = len(probe.seen())
    answer = probe.call(case.method, *case.given, context=context, taint_args=True)
    assert answer.ok() == in_run(case.value, probe)
    assert (answer.stdout, answer.warnings, answer.tainted) == ("", [], False)
    (entry,) = probe.seen()[before:]
    assert (entry["method"], entry["storeid"]) == (case.as_ or case.method, "p1")
    assert typed(given(entry)) == typed(case.seen)


def given(entry: dict[str, Any]) -> dict[str, Any]:
    """The recorded arguments; of hints only what was given."""
    found: dict[str, Any] = entry["args"]
    if "hints" in found:
        return {**found, "hints": found["hints"]["given"]}
    return found


def in_run(value: Any, probe: Probe) -> Any:
    if isinstance(value, list):
        return [in_run(item, probe) for item in value]
    return value.replace("{run}", str(probe.node.run)) if isinstance(value, str) else value


def typed(value: Any) -> Any:
    """1, 1.0 and True are equal in Python: tell them apart."""
    if isinstance(value, dict):
        return {key: typed(item) for key, item in value.items()}
    return [typed(item) for item in value] if isinstance(value, list) else (type(value), value)


def test_every_method_that_is_forwarded_is_here() -> None:
    elsewhere = {"parse_volname", "free_image_cleanup", "volume_export", "volume_import"}
    elsewhere |= {"volume_snapshot_needs_fsfreeze", "storage_can_replicate"}  # rules only
    assert {case.method for case in CASES} == METHODS.keys() - LOCAL - elsewhere


@pytest.mark.parametrize(
    "method",
    ["activate_storage", "volume_snapshot", "activate_volume", "status", "path", "list_images"],
)
def test_void_context(probe: Probe, method: str) -> None:
    case = next(case for case in CASES if case.method == method)
    answer = probe.call(method, *case.given, context="void")
    assert (answer.error, answer.value, answer.warnings) == (None, None, [])


def test_nothing_is_an_empty_list_or_undef(probe: Probe) -> None:
    """In list context a method without an answer returns no elements at all (V7)."""
    assert probe.call("activate_storage", "p1", S, {}, context="list").ok() == []
    assert probe.call("get_volume_attribute", S, "p1", V, "x", context="list").ok() == []
    assert probe.call("get_volume_attribute", S, "p1", V, "x").ok() is None
    assert probe.call("status", "p1", scfg(probe_mode="inactive"), {}, context="list").ok() == []
    assert probe.call("list_images", "p1", scfg(probe_mode="empty"), None).ok() == []


@pytest.mark.contract("C-049")
def test_lists_are_fresh(probe: Probe) -> None:
    code = """
        my $list = sub { PVE::Storage::Custom::PyBridge::probe->list_images('p1', $ARGS[0]) };
        my $first = $list->();
        $_->{spoiled} = 1 for @$first;
        push @$first, 'more';
        return $list->();
    """
    found = probe.node.perl(code, S).ok()
    assert len(found) == 2
    assert not [entry for entry in found if "spoiled" in entry]


@pytest.mark.contract("C-014")
@pytest.mark.method("path")
def test_two_types_and_two_storages_in_one_process(probe: Probe) -> None:
    code = """
        my @found;
        for my $round (1, 2) {
            for my $target (['probe', 'p1'], ['bare', 'b1'], ['probe', 'p2'], ['bare', 'b2']) {
                my ($type, $storeid) = @$target;
                my $class = PVE::Storage::Plugin->lookup($type);
                push @found, scalar($class->path({ type => $type }, 'vm-1-disk-0', $storeid));
            }
        }
        return \\@found;
    """
    before = len(probe.bare.calls("path"))
    probe_path = f"{probe.node.run}/vm-1-disk-0@"
    bare = [f"/dev/bare/{storeid}/vm-1-disk-0" for storeid in ("b1", "b2")]
    assert probe.node.perl(code).ok() == [probe_path, bare[0], probe_path, bare[1]] * 2
    assert [entry["storeid"] for entry in probe.seen("path")[-4:]] == ["p1", "p2"] * 2
    calls = probe.bare.calls("path")[before:]
    assert [entry["storeid"] for entry in calls] == ["b1", "b2"] * 2


def test_a_first_call_loads_no_more_than_it_needs(node: Node) -> None:
    """It waits for each line that is compiled.  Answer is for those that take more than 0.1 s."""
    probe = Probe(node)
    probe.call("get_identity", S, "p1").ok()
    code = """
        PVE::Storage::Custom::PyBridge::probe->get_identity($ARGS[0], 'p1');
        return [map { m!Storage/PyBridge/(\\w+)! ? $1 : () } keys %INC];
    """
    with node.session() as session:
        needed = {"Forward", "Client", "Connection", "Codec"}
        at_load = {"Manifest", "Guard", "Type", "Method"}
        assert {*session.run(code, S).ok()} - {"Answer"} == needed | at_load


@pytest.mark.parametrize("file", ["Forward", "Client", "Values"])
def test_a_signal_while_files_are_loaded(node: Node, file: str) -> None:
    """Perl refuses a file whose loading was interrupted; the next call must not meet that."""
    probe = Probe(node)
    code = """
        my ($scfg, $file) = @ARGS;
        local $SIG{ALRM} = sub { die "got ALRM\\n" };
        my $times = 0;
        local @INC = (sub { kill('ALRM', $$) if $_[1] =~ /$file/ && !$times++; return }, @INC);
        my $class = 'PVE::Storage::Custom::PyBridge::probe';
        my @call = ($scfg, 'p1', 'vm-1-disk-0', 4096, 0);
        return [map { eval { $class->volume_resize(@call); 1 } ? 'fine' : $@ } 1 .. 2];
    """
    answer = probe.node.perl(code, S, file)
    first, second = answer.ok()
    assert first.startswith("got ALRM\n")
    assert second == "fine"
    assert answer.warnings == []
