# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""A plugin that can't be loaded, lies about types, prints, exits; and names that aren't its own."""

from __future__ import annotations

import re
from typing import Any

import pytest

from bridge_util import Node
from probe_util import CALL, PROBE, VOLUME, Probe, printed, scfg
from pve_pybridge.errors import StorageError
from pve_pybridge.loader import load
from pve_pybridge.names import parse_volname

S = scfg()
V = VOLUME

# --- files that can't be loaded ----------------------------------------------------------------

GOOD = """
    from pve_pybridge import StoragePlugin, StorageConfig, NamePattern, Rule, option
    class {name}(StoragePlugin):
        type = {type!r}
        {more}
        def path(self, storage, volname, snapname): return "x"
        def status(self, storage): return None
        def list_images(self, storage, vmid, vollist): return []
"""


def plugin(type_: str = "mine", more: str = "", name: str = "Mine") -> str:
    return GOOD.format(type=type_, more=more, name=name)


BROKEN = [
    (
        "missing import",
        "import os\nimport nowhere_to_be_found\n",
        "ModuleNotFoundError: No module named 'nowhere_to_be_found' (line 2)",
    ),
    ("raises", "x = 1\n\nraise ValueError('two\\nlines')\n", "ValueError: two lines (line 3)"),
    ("syntax", "def broken(:\n    pass\n", "syntax error in line 1: invalid syntax"),
    ("exit", "import sys\nsys.exit('no disk')\n", "SystemExit: no disk (line 2)"),
    ("interrupt", "raise KeyboardInterrupt\n", "KeyboardInterrupt (line 1)"),
    (
        "empty",
        "",
        "holds no plugin: write a class that inherits BlockPlugin, DirectoryPlugin or "
        "StoragePlugin and has a type",
    ),
    (
        "two",
        plugin(name="One") + plugin(name="Two"),
        "holds the plugins One (type 'mine'), Two (type 'mine'), but a server serves one type: "
        "keep one of them, and put the others into files of their own",
    ),
]
UNUSABLE = [
    (plugin("My Type"), "type 'My Type' must be lower case letters, digits and dashes"),
    (plugin("nfs"), "type 'nfs' is PVE's own; choose another name"),
    (plugin(more="content = ('disks',)"), "unknown content type 'disks'"),
    (
        plugin(more="formats = ('qed',)"),
        "unknown image format 'qed'; PVE knows ['qcow2', 'raw', 'subvol', 'vmdk']",
    ),
    (plugin(more="formats = ()"), "formats must name at least one format"),
    (
        plugin(more="concurrency = 'some'"),
        "concurrency must be one of parallel, per-storage, serial",
    ),
    (
        plugin(more="names = (NamePattern('images', 'vm-.*'),)"),
        "name pattern 'vm-.*' has no group (?P<name>…)",
    ),
    (
        plugin(more="names = (NamePattern('images', '(?P<name>vm'),)"),
        "name pattern '(?P<name>vm' is no regular expression: missing ), unterminated subpattern "
        "at position 0",
    ),
    (
        plugin(more="rules = {'path': (Rule('x'),)}"),
        "rules for 'path': not a method that can be answered statically",
    ),
    (
        plugin().replace("def status", "def stat"),
        "method 'status' is missing; every storage needs it, without it PVE would show the storage "
        "as unknown: write def status(self, storage), returning a Status in bytes, None while "
        "inactive",
    ),
]


@pytest.mark.parametrize(
    ("source", "message"), [case[1:] for case in BROKEN], ids=[case[0] for case in BROKEN]
)
def test_file_that_cannot_be_loaded(node: Node, source: str, message: str) -> None:
    """The same line from every command, and exit status 1: systemd shows it, too."""
    file = node.plugin("broken", source)
    for command in ("manifest", "serve"):
        done = node.cli(command, str(file), check=False)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == f"pve-pybridge: {file}: {message}\n"


@pytest.mark.parametrize(("source", "message"), UNUSABLE, ids=[message for _, message in UNUSABLE])
def test_class_that_would_disturb_pve(node: Node, source: str, message: str) -> None:
    file = node.plugin("unusable", source)
    done = node.cli("manifest", str(file), check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"pve-pybridge: plugin Mine: {message}\n"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("/nowhere/plugin.py", "/nowhere/plugin.py: no such file"),
        (
            "no_such_module",
            "no_such_module: ModuleNotFoundError: No module named 'no_such_module'",
        ),
    ],
)
def test_nothing_there(node: Node, name: str, message: str) -> None:
    done = node.cli("serve", name, check=False)
    assert (done.returncode, done.stderr) == (1, f"pve-pybridge: {message}\n")


def test_plugin_that_prints_when_imported(node: Node) -> None:
    """The manifest on STDOUT must stay one."""
    file = node.plugin("noisy", plugin() + "\n    print('hello')\n")
    done = node.cli("manifest", str(file))
    assert done.stdout.startswith("{")
    assert "hello" not in done.stdout
    assert done.stderr == "hello\n"


@pytest.mark.parametrize(
    ("kind", "message"),
    [("file", "is in the way: it is no socket"), ("taken", "a server is already listening on")],
)
def test_serve_on_a_place_that_is_taken(node: Node, kind: str, message: str) -> None:
    if kind == "taken":
        path = node.serve(PROBE).socket
    else:
        path = node.base / "precious"
        path.write_text("data")
    done = node.cli("serve", str(PROBE), "--socket", str(path), check=False)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert kind == "taken" or path.read_text() == "data"


# --- answers of the wrong type -----------------------------------------------------------------

WRONG = [
    ("path", [S, V, "p1"], "int", "must be str, not int"),
    ("path", [S, V, "p1"], "none", "must be str, not NoneType"),
    ("get_identity", [S, "p1"], "none", "must be str, not NoneType"),
    ("alloc_image", ["p1", S, 100, "raw", None, 1], "none", "must be str, not NoneType"),
    ("rename_volume", [S, "p1", V, 9, None], "none", "must be str, not NoneType"),
    ("rename_volume", [S, "p1", V, 9, None], "int", "must be str, not int"),
    ("map_volume", ["p1", S, V], "int", "must be str, not int"),
    ("status", ["p1", S, {}], "list", "must be Status or None, not list"),
    (
        "status",
        ["p1", S, {}],
        "badstatus",
        "must have 'total' in bytes, not 'a'",
    ),
    ("list_images", ["p1", S, None], "none", "must be a list of Volume, not NoneType"),
    ("list_images", ["p1", S, None], "str", "must be a list of Volume, not str"),
    ("list_images", ["p1", S, None], "list", "must be a list of Volume, but holds int"),
    (
        "list_images",
        ["p1", S, None],
        "badvolume",
        "'size' of 'vm-1-disk-0' must be int, not str",
    ),
    ("list_images", ["p1", S, None], "namelessvolume", "must be str, not NoneType"),
    ("volume_size_info", [S, "p1", V], "int", "must be VolumeSize, not int"),
    (
        "volume_snapshot_info",
        [S, "p1", V],
        "none",
        "must be a mapping of SnapshotInfo, not NoneType",
    ),
    (
        "volume_snapshot_info",
        [S, "p1", V],
        "map",
        "must be a mapping of SnapshotInfo, but holds dict",
    ),
    ("prune_backups", [S, "p1", {}], "list", "must be a list of PruneEntry, but holds int"),
    ("free_image", ["p1", S, V, 0, "raw"], "int", "must be Cleanup or None, not int"),
    ("qemu_blockdev_options", [S, "p1", V], "none", "must be a mapping, not NoneType"),
    ("get_formats", [S, "p1"], "str", "must be a list of formats, the default one first"),
    ("volume_export_formats", [S, "p1", V], "str", "must be a list of str, not str"),
    ("get_volume_attribute", [S, "p1", V, "x"], "object", "must be str, not object"),
]


@pytest.mark.contract("C-020")
@pytest.mark.parametrize(
    ("method", "given", "value", "message"), WRONG, ids=[f"{w[0]}-{w[2]}" for w in WRONG]
)
def test_wrong_answer(
    probe: Probe, method: str, given: list[Any], value: str, message: str
) -> None:
    """A bug of the plugin, said in one line: never an empty list, undef, or a guess."""
    section = probe.fault("wrong", value)
    given = [section if item is S else item for item in given]
    answer = probe.call(method, *given, context="list")
    expected = (
        rf"plugin 'probe', {method}: its answer {re.escape(message)}; PVE would [^;\n]+; "
        r"return [^\n]+ \(call [0-9a-f]{8} in its log\)\n"
    )
    assert re.fullmatch(expected, answer.error or "")
    assert answer.value is None


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("surrogate", "UnicodeEncodeError: "),
        ("huge", "OverflowError: Integer value out of range"),
        ("big", "result frame"),
    ],
)
def test_answer_that_cannot_be_sent(probe: Probe, value: str, message: str) -> None:
    answer = probe.call("get_volume_attribute", probe.fault("wrong", value), "p1", V, "notes")
    assert answer.error is not None
    assert answer.error.count("\n") == 1
    if value == "big":
        message = "result frame of 67108879 bytes exceeds the limit of 67108864\n"
        assert answer.error == message
    else:
        assert f"internal error in plugin 'probe', get_volume_attribute: {message}" in answer.error
    assert probe.call("get_identity", S, "p1").ok() == "identity"


# --- other bad manners -------------------------------------------------------------------------


@pytest.mark.contract("C-028")
def test_what_a_plugin_prints_is_in_its_log(probe: Probe) -> None:
    answer = probe.call("get_identity", probe.fault("print"), "p1")
    assert (answer.ok(), answer.stdout, printed(answer)) == ("identity", "", [])
    log = probe.server.log.read_text()
    assert "printed by the plugin" in log
    assert "printed by a child" in log


def test_plugin_that_exits(probe: Probe) -> None:
    """Only this call is affected."""
    answer = probe.call("get_identity", probe.fault("exit"), "p1")
    what = "internal error in plugin 'probe', get_identity: SystemExit: 3 "
    assert (answer.error or "").startswith(what)
    assert probe.call("get_identity", S, "p1").ok() == "identity"
    assert probe.server.process.poll() is None


def test_method_that_only_a_newer_shim_knows(probe: Probe) -> None:
    """Its manifest and the server's table are of different releases."""
    code = """
        require PVE::Storage::PyBridge::Forward;
        my $row = { args => [['storeid', 'storeid']], context => 'scalar', result => 'str' };
        my $sub = PVE::Storage::PyBridge::Forward::plan({ type => 'probe' }, 'volume_polish', $row);
        return $sub->('class', 'p1');
    """
    assert probe.node.perl(code).error == "unknown method 'volume_polish'\n"


def test_argument_type_that_only_a_newer_manifest_has(probe: Probe) -> None:
    code = """
        require PVE::Storage::PyBridge::Forward;
        my $row = { args => [['x', 'holes']], context => 'scalar', result => 'str' };
        PVE::Storage::PyBridge::Forward::plan({ type => 'probe' }, 'path', $row);
    """
    assert probe.node.perl(code).error == "unknown argument type 'holes': update pve-pybridge\n"


@pytest.mark.parametrize("method", ["list_images", "list_volumes"])
def test_failed_listing_is_no_empty_listing(probe: Probe, method: str) -> None:
    answer = probe.call(method, "p1", probe.fault("user", "no route to host"), None, ["images"])
    assert (answer.value, answer.error) == (None, "no route to host\n")


def test_failed_listing_through_pve(probe: Probe) -> None:
    probe.node.add("bad", "probe", content="images", probe_mode="list_images:user")
    code = "return PVE::Storage::vdisk_list(PVE::Storage::config(), 'bad');"
    answer = probe.node.perl(code)
    assert answer.error == "the pool is full and so is the other\n"


# --- names -------------------------------------------------------------------------------------

FOREIGN = [
    "",
    "disk",
    "vm-disk-0",
    "vm--disk-0",
    "vm-100-",
    "vm-100",
    "vm-x-disk-0",
    "vm-100-disk 0",
    "vm-100-disk-0\n",
    "vm-100-disk-0\nvm-101-disk-0",
    " vm-100-disk-0",
    "vm-100-disk/../../etc/passwd",
    "../vm-100-disk-0",
    "/etc/passwd",
    "vm-100-disk/0",
    "iso/a.iso",
    "100/vm-100-disk-0.raw",
    "base-100-disk-0/",
    "base-100-disk-0/../vm-100-disk-0",
    "vm-100-disk-0/vm-101-disk-0",
    "vm-\N{ARABIC-INDIC DIGIT ONE}00-disk-0",
    "VM-100-disk-0",
]


@pytest.mark.contract("C-042")
@pytest.mark.method("parse_volname")
@pytest.mark.parametrize("name", FOREIGN)
def test_name_of_another_scheme(probe: Probe, name: str) -> None:
    answer = probe.call("parse_volname", name, context="list")
    shown = name.replace("\n", "?")  # an error is one line
    assert answer.error == f"unable to parse probe volume name '{shown}'\n"
    with pytest.raises(StorageError):
        parse_volname(load(str(PROBE)).names, name)


def test_undefined_name(probe: Probe) -> None:
    answer = probe.call("parse_volname", None, context="list")
    assert (answer.error, answer.warnings) == ("unable to parse probe volume name ''\n", [])


NAMES = [
    "vm-100-disk-0",
    "vm-100-cloudinit",
    "vm-100-state-before_upgrade",
    "vm-100-fleece-0",
    "base-100-disk-0",
    "base-100-disk-0/vm-101-disk-1",
    "vm-999999999-disk-1023",
]


@pytest.mark.contract("C-015")
@pytest.mark.method("parse_volname")
@pytest.mark.parametrize("name", NAMES)
def test_name_in_both_languages(probe: Probe, name: str) -> None:
    here = parse_volname(load(str(PROBE)).names, name)
    for _ in range(2):  # the second time from memory
        found = probe.call("parse_volname", name, context="list").ok()
        assert found == [
            here.vtype,
            here.name,
            None if here.vmid is None else str(here.vmid),
            here.base_name,
            None if here.base_vmid is None else str(here.base_vmid),
            1 if here.is_base else None,
            here.format,
        ]
    assert "parse_volname" not in {entry["method"] for entry in probe.server.calls()}


def test_call_of_the_bare_class(probe: Probe) -> None:
    """PVE loads PyBridge itself as a plugin: it is no storage type."""
    code = "return PVE::Storage::Plugin->lookup('pybridge');"
    assert "unknown section type" in (probe.node.perl(code).error or "")
    assert probe.bare.process.poll() is None
    answer = probe.node.perl(CALL, "bare", "path", S, V, "b1")
    assert answer.ok() == f"/dev/bare/b1/{V}"
