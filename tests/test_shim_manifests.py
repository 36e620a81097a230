# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Bad manifests and collisions cost their own type at most, and one line on STDERR."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bridge_util import GENUINE, ROOT, Node
from probe_util import enable_both
from pve_pybridge.testing.perl import PerlSession

SHIM = ROOT / "perl"
PACKAGE = "PVE::Storage::Custom::PyBridge"
TYPES = "return [grep { /^(?:probe|bare|other)$/ } PVE::Storage::Plugin->lookup_types()->@*];"

Change = Callable[[dict[str, Any]], object]


@pytest.fixture
def enabled(node: Node) -> Node:
    """Both test plugins enabled, no server running."""
    enable_both(node)
    return node


def edit(node: Node, type_: str, change: Change) -> Path:
    """Change an installed manifest by hand."""
    file = node.manifests / f"{type_}.json"
    data = json.loads(file.read_text())
    change(data)
    file.write_text(json.dumps(data))
    return file


def loaded(session: PerlSession) -> tuple[list[str], list[str]]:
    """The registered ones of our types, and what loading said on STDERR."""
    assert session.startup_stdout == ""
    return session.run(TYPES).ok(), session.startup_stderr.splitlines()


# --- manifests that can't be used --------------------------------------------------------------


def dangling_link(file: Path) -> None:
    file.unlink()
    file.symlink_to("/nowhere")


def directory(file: Path) -> None:
    file.unlink()
    file.mkdir(0o755)


UNUSABLE: list[tuple[str, Callable[[Path], object], str]] = [
    ("cut", lambda file: file.write_text(file.read_text()[:300]), "no valid JSON at byte 300"),
    ("empty", lambda file: file.write_text(""), "no valid JSON at byte 0"),
    ("binary", lambda file: file.write_bytes(b"\xff\xfe{}"), "no valid JSON at byte 0"),
    ("list", lambda file: file.write_text("[1]"), "it holds no object"),
    ("bare object", lambda file: file.write_text("{}"), "it has no manifest version"),
    (
        "no link",
        dangling_link,
        "can't read it: No such file or directory",
    ),
    ("directory", directory, "no valid JSON at byte 0"),
    ("group", lambda file: file.chmod(0o664), "others than its owner may write it"),
    ("world", lambda file: file.chmod(0o646), "others than its owner may write it"),
]
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"manifest": 3}, "it is of version 3, this shim reads up to 2: update pve-pybridge"),
    ({"manifest": "new"}, "it has no manifest version"),
    ({"type": "other"}, "it describes type 'other', so it must be called other.json"),
    ({"type": "../probe"}, "type '../probe' is no legal storage type"),
    ({"type": "Probe"}, "type 'Probe' is no legal storage type"),
    ({"type": None}, "type '' is no legal storage type"),
    ({"type": "a\nb"}, "type 'a b' is no legal storage type"),
    ({"methods": []}, "'methods' is missing or no object"),
    ({"properties": None}, "'properties' is missing or no object"),
    ({"names": {}}, "'names' is missing or no list"),
    ({"content": [["images"]]}, "'content' must hold two entries"),
    ({"options": {"nodes": 1}}, "'nodes' of 'options' is no object"),
    ({"properties": {"probe-a": []}}, "'probe-a' of 'properties' is no object"),
]


@pytest.mark.contract("C-008")
@pytest.mark.parametrize(
    ("spoil", "reason"), [case[1:] for case in UNUSABLE], ids=[case[0] for case in UNUSABLE]
)
def test_unusable_file(enabled: Node, spoil: Callable[[Path], object], reason: str) -> None:
    file = enabled.manifests / "probe.json"
    spoil(file)
    with enabled.session() as perl:
        assert loaded(perl) == (["bare"], [f"pve-pybridge: manifest {file} skipped: {reason}"])


@pytest.mark.contract("C-008")
@pytest.mark.parametrize(("change", "reason"), WRONG, ids=[reason for _, reason in WRONG])
def test_wrong_content(enabled: Node, change: dict[str, Any], reason: str) -> None:
    file = edit(enabled, "probe", lambda data: data.update(change))
    with enabled.session() as perl:
        assert loaded(perl) == (["bare"], [f"pve-pybridge: manifest {file} skipped: {reason}"])


@pytest.mark.contract("C-008")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_manifest_of_another_user(enabled: Node) -> None:
    file = enabled.manifests / "probe.json"
    os.chown(file, 65534, 0)
    reason = "it must belong to root, not to user 65534"
    with enabled.session() as perl:
        assert loaded(perl) == (["bare"], [f"pve-pybridge: manifest {file} skipped: {reason}"])


@pytest.mark.contract("C-008")
def test_no_manifests_at_all(node: Node) -> None:
    (node.manifests / "probe.json.new").write_text("half written")
    (node.manifests / ".probe.json").write_text("hidden")
    with node.session() as perl:
        assert loaded(perl) == ([], [])
    for file in node.manifests.iterdir():
        file.unlink()
    node.manifests.rmdir()
    with node.session() as perl:
        assert loaded(perl) == ([], [])


UNREGISTRABLE: list[tuple[str, Change, str]] = [
    (
        "kind of call",
        lambda data: data["methods"].update(guess={"path": ""}),
        "methods of an unknown kind of call, 'guess'",
    ),
    (
        "name of a method",
        lambda data: data["methods"]["refuse"].update({"x::y": ""}),
        "method 'x::y' has no proper name",
    ),
    (
        "regular expression",
        lambda data: data["names"].append({"vtype": "iso", "pattern": "(", "format": "raw"}),
        "Unmatched ( in regex",
    ),
    (
        "code in a regular expression",
        lambda data: data["names"].append(
            {"vtype": "iso", "pattern": "(?{ die })", "format": "raw"}
        ),
        "Eval-group not allowed at runtime",
    ),
]


@pytest.mark.contract("C-008")
@pytest.mark.parametrize(
    ("change", "reason"), [u[1:] for u in UNREGISTRABLE], ids=[u[0] for u in UNREGISTRABLE]
)
def test_unregistrable(enabled: Node, change: Change, reason: str) -> None:
    file = edit(enabled, "probe", change)
    with enabled.session() as perl:
        types, said = loaded(perl)
    assert types == ["bare"]
    (line,) = said
    assert line.startswith(f"pve-pybridge: storage type 'probe' ({file}) not registered: {reason}")


# --- what the shim makes of a manifest ---------------------------------------------------------


def version_1(data: dict[str, Any]) -> None:
    """As the first releases wrote it."""
    rows = {}
    for call, methods in data["methods"].items():
        for name, text in methods.items():
            context, result, *words = [*text.split(), "", ""] if call == "refuse" else text.split()
            said = dict(word.split("=") for word in words if "=" in word)
            args = [word.split(":") for word in words if "=" not in word]
            rows[name] = {"call": call}
            if call != "refuse":
                pairs = [[arg[0], arg[-1]] for arg in args]
                rows[name] |= {"args": pairs, "context": context, "result": result}
                rows[name] |= {key: float(value) for key, value in said.items()}
    data.update(manifest=1, methods=rows)


ANSWERS = f"""
    my $class = '{PACKAGE}::bare';
    my @found = map {{ my ($name, @args) = @$_; eval {{ $class->$name(@args) }} // $@ }} (
        ['volume_has_feature', {{}}, 'snapshot', 'b1', 'vm-1-a'],
        ['volume_snapshot_needs_fsfreeze'],
        ['volume_resize', {{}}, 'b1', 'vm-1-a', 1],
        ['path', {{}}, 'vm-1-a', 'b1'],
    );
    return [@found, $class->parse_volname('vm-1-a')];
"""


def test_manifest_of_version_1(enabled: Node) -> None:
    """A package built with an older bridge answers as before."""
    with enabled.session() as perl:
        now = perl.run(ANSWERS).ok()
    assert now[2] == "storage type 'bare' does not support volume_resize\n"
    assert "b1" in now[3], "no server runs"
    edit(enabled, "bare", version_1)
    with enabled.session() as perl:
        assert loaded(perl) == (["bare", "probe"], [])
        assert perl.run(ANSWERS).ok() == now


def test_rows_of_version_1_that_are_none(enabled: Node) -> None:
    def spoil(data: dict[str, Any]) -> None:
        version_1(data)
        data["methods"]["path"] = []

    file = edit(enabled, "probe", spoil)
    with enabled.session() as perl:
        assert loaded(perl) == (
            ["bare"],
            [
                f"pve-pybridge: storage type 'probe' ({file}) not registered: "
                "methods of an unknown kind of call, ''"
            ],
        )


def test_a_row_that_says_too_little(enabled: Node) -> None:
    """Found by its first call only: PVE's start reads no rows."""
    edit(enabled, "probe", lambda data: data["methods"]["forward"].update(path="first"))
    with enabled.session() as perl:
        assert loaded(perl) == (["bare", "probe"], [])
        error = perl.run(f"return {PACKAGE}::probe->path({{}}, 'vm-1-a', 'p1')").error
        assert error == "method 'path': its row says too little: 'first'\n"


def test_what_pve_asks_at_its_start_is_no_row(enabled: Node) -> None:
    rows = {"type": "", "plugindata": "", "register": "", "pybridge_manifest": ""}
    edit(enabled, "probe", lambda data: data["methods"]["refuse"].update(rows))
    with enabled.session() as perl:
        assert loaded(perl) == (["bare", "probe"], [])
        assert perl.run(f"return {PACKAGE}::probe->type()").ok() == "probe"


def test_keys_of_the_shim_in_a_manifest(enabled: Node) -> None:
    made = {"package": "main", "plans": {"path": 1}, "properties": {"nodes": {}}, "parser": 1}
    edit(enabled, "probe", lambda data: data.update(made=made, file="/x"))
    with enabled.session() as perl:
        assert loaded(perl) == (["bare", "probe"], [])
        assert perl.run(f"return [{PACKAGE}::probe->parse_volname('vm-1-a')]").ok()[1] == "vm-1-a"


def test_stubs_answer_can_and_stay_where_they_are_wrapped(enabled: Node) -> None:
    with enabled.session() as perl:
        answer = perl.run(f"""
            my $class = '{PACKAGE}::bare';
            my $stub = $class->can('volume_has_feature');
            my @ask = ($class, {{}}, 'copy', 'b1', 'vm-1-a');
            my @found = ($stub->(@ask), $class->can('volume_has_feature') != $stub, $stub->(@ask));

            my $freeze = $class->can('volume_snapshot_needs_fsfreeze');
            my $asked = 0;
            no strict 'refs';
            no warnings 'redefine';
            *{{"${{class}}::volume_snapshot_needs_fsfreeze"}} = sub {{ $asked++; goto &$freeze }};
            $class->volume_snapshot_needs_fsfreeze() for 1 .. 3;

            @PVETest::Derived::ISA = ($class);
            my @parsed = PVETest::Derived->parse_volname('vm-1-a');
            return [@found, $asked, $parsed[1], defined($class->can('no_method'))];
        """)
        assert answer.ok() == [1, True, 1, 3, "vm-1-a", False]
        assert answer.stderr == ""


# --- collisions --------------------------------------------------------------------------------

OTHER = """
    package PVE::Storage::Custom::Other;
    use strict;
    use warnings;
    use base qw(PVE::Storage::Plugin);
    sub api {{ return PVE::Storage::APIVER() }}
    sub type {{ return '{type}' }}
    sub plugindata {{ return {{ content => [{{ images => 1, none => 1 }}, {{ images => 1 }}] }} }}
    sub properties {{ return {{ {properties} }} }}
    sub options {{ return {{ disable => {{ optional => 1 }}, {options} }} }}
    1;
"""


def other_plugin(node: Node, type_: str = "other", properties: str = "", options: str = "") -> Path:
    """Another vendor's plugin, in Perl; returns the directory for @INC."""
    lib = node.base / "lib"
    custom = lib / "PVE" / "Storage" / "Custom"
    custom.mkdir(parents=True)
    text = OTHER.format(type=type_, properties=properties, options=options)
    (custom / "Other.pm").write_text(text)
    return lib


@pytest.fixture(params=["other first", "shim first"])
def order(request: pytest.FixtureRequest) -> Callable[[Path], list[Path]]:
    """Custom plugins are loaded in any order: both are tried."""
    return lambda lib: [lib] if request.param == "other first" else [SHIM, lib]


@pytest.mark.contract("C-004")
def test_type_of_another_plugin(enabled: Node, order: Callable[[Path], list[Path]]) -> None:
    include = order(other_plugin(enabled, "probe"))
    with enabled.session(lib=include) as perl:
        types, said = loaded(perl)
        assert types == ["bare", "probe"]
        (line,) = said
        owner = perl.run("return PVE::Storage::Plugin->lookup('probe')").ok()
        if include[0] == SHIM:
            assert owner == f"{PACKAGE}::probe"
            assert line.startswith('Error loading storage plugin "PVE::Storage::Custom::Other"')
        else:
            assert owner == "PVE::Storage::Custom::Other"
            assert line == (
                f"pve-pybridge: storage type 'probe' ({enabled.manifests}/probe.json) not "
                "registered: the type exists already (PVE::Storage::Custom::Other)"
            )


@pytest.mark.contract("C-004")
def test_type_of_pve(enabled: Node) -> None:
    file = enabled.manifests / "dir.json"
    data = json.loads((enabled.manifests / "probe.json").read_text())
    file.write_text(json.dumps({**data, "type": "dir"}))
    with enabled.session() as perl:
        types, said = loaded(perl)
        assert types == ["bare", "probe"]
        assert said == [
            f"pve-pybridge: storage type 'dir' ({file}) not registered: "
            "the type exists already (PVE::Storage::DirPlugin)"
        ]


@pytest.mark.contract("C-005")
def test_property_of_another_plugin(enabled: Node, order: Callable[[Path], list[Path]]) -> None:
    theirs = "'probe-mode' => { type => 'string', maxLength => 3 }"
    uses = "'probe-mode' => { optional => 1 }"
    lib = other_plugin(enabled, properties=theirs, options=uses)
    for _ in range(4):  # init() asks in the order of a hash
        with enabled.session(lib=order(lib)) as perl:
            assert loaded(perl) == (
                ["bare", "other", "probe"],
                [
                    "pve-pybridge: type 'probe' uses the property 'probe-mode' of "
                    "PVE::Storage::Custom::Other"
                ],
            )
            schema = perl.run(
                "return PVE::Storage::Plugin->createSchema()->{properties}->{'probe-mode'}"
            ).ok()
            assert schema["maxLength"] == 3
            options = perl.run(f"return {PACKAGE}::probe->options()").ok()
            assert options["probe-mode"] == {"optional": 1}


@pytest.mark.contract("C-005")
@pytest.mark.parametrize(
    ("name", "owner"),
    [("nodes", "PVE"), ("port", "PVE"), ("path", "PVE::Storage::DirPlugin")],
)
def test_property_of_pve(enabled: Node, name: str, owner: str) -> None:
    def claim(data: dict[str, Any]) -> None:
        data["properties"][name] = {"type": "string"}
        data["options"][name] = {"optional": 1}

    edit(enabled, "probe", claim)
    with enabled.session() as perl:
        assert loaded(perl) == (
            ["bare", "probe"],
            [f"pve-pybridge: type 'probe' uses the property '{name}' of {owner}"],
        )


@pytest.mark.contract("C-006")
def test_property_of_two_of_ours(enabled: Node) -> None:
    def claim(data: dict[str, Any]) -> None:
        data["properties"]["common"] = {"type": "string"}
        data["options"]["common"] = {"optional": 1}

    edit(enabled, "probe", claim)
    edit(enabled, "bare", claim)
    enabled.add("p1", "probe", common="x")
    enabled.add("b1", "bare", common="y")
    for _ in range(4):
        with enabled.session() as perl:
            types, said = loaded(perl)
            assert types == ["bare", "probe"]
            assert said == [
                f"pve-pybridge: type 'probe' uses the property 'common' of {PACKAGE}::bare"
            ]
            ids = perl.run("return PVE::Storage::config()->{ids}").ok()
            assert (ids["p1"]["common"], ids["b1"]["common"]) == ("x", "y")


@pytest.mark.contract("C-007")
def test_option_without_a_property(enabled: Node) -> None:
    edit(enabled, "probe", lambda data: data["options"].update({"of-the-future": {}}))
    enabled.add("p1", "probe", content="images")
    with enabled.session() as perl:
        assert loaded(perl) == (["bare", "probe"], [])
        assert "of-the-future" not in perl.run(f"return {PACKAGE}::probe->options()").ok()
        assert perl.run("return PVE::Storage::config()->{ids}->{p1}->{type}").ok() == "probe"


@pytest.mark.skipif(GENUINE, reason="the stand-in's APIVER is chosen by the environment")
@pytest.mark.contract("C-007")
def test_option_of_a_newer_host(enabled: Node) -> None:
    """A property that PVE itself brought later: the option is there as soon as the host has it."""
    edit(enabled, "probe", lambda data: data["options"].update({"subdir": {"optional": 1}}))
    with enabled.session() as perl:
        assert "subdir" in perl.run(f"return {PACKAGE}::probe->options()").ok()
