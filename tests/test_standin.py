# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""The stand-in loads plugins as the contract says PVE does; its base class and its helpers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pve_pybridge.testing import perl
from pve_pybridge.testing.perl import PerlCrashed, PerlSession
from standin_util import Node, SessionMaker, isolate, session_maker

pytestmark = pytest.mark.timeout(60)

APIVERS = (10, 11, 12, 13, 14, 15)


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Node:
    (tmp_path / "empty").mkdir()
    isolate(monkeypatch, tmp_path / "empty")
    return Node(tmp_path)


@pytest.fixture
def open_session(node: Node) -> Iterator[SessionMaker]:
    yield from session_maker(node)


def types(session: PerlSession) -> list[str]:
    found: list[str] = session.run("PVE::Storage::Plugin->lookup_types()").ok()
    return found


# --- loading: contract 1.1 ---------------------------------------------------------------------


@pytest.mark.parametrize("apiver", APIVERS)
def test_constants(open_session: SessionMaker, apiver: int) -> None:
    session = open_session(apiver)
    versions = session.run("[PVE::Storage::APIVER(), PVE::Storage::APIAGE()]").ok()
    assert versions == [apiver, apiver - 9]
    assert session.startup_stderr == ""


@pytest.mark.parametrize("apiver", ["9", "16", "x"])
def test_unknown_version_is_refused(open_session: SessionMaker, apiver: str) -> None:
    with pytest.raises(PerlCrashed, match="PVE_STANDIN_APIVER must be one of 10 11 12 13 14 15"):
        open_session(PVE_STANDIN_APIVER=apiver)


@pytest.mark.parametrize("apiver", APIVERS)
@pytest.mark.parametrize(
    ("api", "outcome"),
    [
        ("PVE::Storage::APIVER()", (True, "")),
        ("PVE::Storage::APIVER() - 1", (True, "older storage API")),
        ("9", (True, "older storage API")),
        ("8", (False, "Error loading storage plugin")),
        ("PVE::Storage::APIVER() + 1", (False, "Error loading storage plugin")),
    ],
)
def test_version_check(
    node: Node, open_session: SessionMaker, apiver: int, api: str, outcome: tuple[bool, str]
) -> None:
    loads, complaint = outcome
    node.plugin("Foo", "foo", api=api)
    session = open_session(apiver)
    assert types(session) == (["dir", "foo"] if loads else ["dir"])
    assert session.startup_stderr.count("\n") == (1 if complaint else 0)
    assert complaint in session.startup_stderr


@pytest.mark.parametrize(
    "text",
    [
        "package PVE::Storage::Custom::Bad; sub {",
        "package PVE::Storage::Custom::Bad; die qq(no\\n);",
        "package PVE::Storage::Custom::Bad; sub api { 13 } 1;",
        "package PVE::Storage::Custom::Bad; use base 'PVE::Storage::Plugin'; 1;",
        "package PVE::Storage::Custom::Bad; use base 'PVE::Storage::Plugin'; sub api { 13 } 1;",
    ],
)
def test_bad_file_costs_only_itself(node: Node, open_session: SessionMaker, text: str) -> None:
    node.plugin("Foo", "foo")
    (node.custom / "Bad.pm").write_text(text)
    session = open_session()
    assert types(session) == ["dir", "foo"]
    begin = 'Error loading storage plugin "PVE::Storage::Custom::Bad": '
    assert session.startup_stderr.count(begin) == 1


def test_duplicate_type_is_a_warning(node: Node, open_session: SessionMaker) -> None:
    node.plugin("Foo", "dir")
    session = open_session()
    assert types(session) == ["dir"]
    assert "duplicate plugin registration (type = dir)" in session.startup_stderr


def test_same_file_twice_in_inc_loads_once(node: Node, tmp_path: Path) -> None:
    node.plugin("Foo", "foo")
    second = Node(tmp_path / "second")
    second.plugin("Foo", "other")
    second.plugin("Bar", "bar")
    with PerlSession(lib=[node.lib, second.lib]) as session:
        assert types(session) == ["bar", "dir", "foo"]
        assert session.startup_stderr == ""


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("sub properties { return { path => {} } }", "duplicate property 'path'"),
        ("sub properties { return { nodes => {} } }", "duplicate property 'nodes'"),
        ("sub options { return { 'no-such' => {} } }", "undefined property 'no-such'"),
        ('sub properties { die "server down\\n" }', "server down"),
        ('sub options { die "server down\\n" }', "server down"),
    ],
)
def test_fatal_schema(node: Node, open_session: SessionMaker, extra: str, message: str) -> None:
    """T-01."""
    node.plugin("Foo", "foo", extra)
    with pytest.raises(PerlCrashed, match=message):
        open_session()


def test_two_plugins_with_one_property(node: Node, open_session: SessionMaker) -> None:
    node.plugin("Foo", "foo", "sub properties { return { mine => {} } } sub options { {} }")
    node.plugin("Bar", "bar", "sub properties { return { mine => {} } } sub options { {} }")
    with pytest.raises(PerlCrashed, match="duplicate property 'mine'"):
        open_session()


def test_register_may_create_several_types(node: Node, open_session: SessionMaker) -> None:
    """Contract 1.2."""
    register = """
        sub register {
            for my $type (qw(one two)) {
                no strict 'refs';
                my $class = "PVE::Storage::Custom::Foo::$type";
                @{"${class}::ISA"} = (__PACKAGE__);
                *{"${class}::type"} = sub { $type };
                *{"${class}::properties"} = sub { {} };
                *{"${class}::options"} = sub { { nodes => { optional => 1 } } };
                $class->SUPER::register();
            }
        }
    """
    node.plugin("Foo", "foo", register)
    assert types(open_session()) == ["dir", "one", "two"]


@pytest.mark.parametrize(
    ("method", "since"),
    [
        ("new_backup_provider", 11),
        ("get_formats", 12),
        ("qemu_blockdev_options", 12),
        ("rename_snapshot", 12),
        ("volume_qemu_snapshot_method", 12),
        ("is_hint_supported", 13),
        ("verify_hints", 13),
        ("on_update_hook_full", 13),
        ("get_identity", 14),
        ("volume_resize", 10),
    ],
)
def test_methods_appear_with_their_version(
    open_session: SessionMaker, method: str, since: int
) -> None:
    for apiver in (since - 1, since):
        if apiver >= 10:
            can = open_session(apiver).run("PVE::Storage::Plugin->can($ARGS[0]) ? 1 : 0", method)
            assert can.ok() == (1 if apiver >= since else 0)


# --- the base class: contract 2.11 -------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "args"),
    [
        ("get_subdir", "{}, 'images'"),
        ("activate_storage", "'one', {}, {}"),
        ("status", "'one', {}, {}"),
        ("list_images", "'one', {}"),
        ("alloc_image", "'one', {}, 100, 'raw', undef, 1"),
        ("free_image", "'one', {}, '100/vm-100-disk-0.raw'"),
        ("clone_image", "{}, 'one', '100/vm-100-disk-0.raw', 101"),
        ("create_base", "'one', {}, '100/vm-100-disk-0.raw'"),
        ("rename_volume", "{}, 'one', '100/vm-100-disk-0.raw', 101"),
        ("path", "{}, '100/vm-100-disk-0.raw', 'one'"),
        ("volume_snapshot", "{}, 'one', '100/vm-100-disk-0.raw', 's'"),
    ],
)
def test_base_methods_die_usefully(open_session: SessionMaker, method: str, args: str) -> None:
    """Contract 2.11."""
    result = open_session().run(f"PVE::Storage::Plugin->{method}({args})")
    assert result.error == "storage definition has no path\n"


def test_base_methods_that_behave(open_session: SessionMaker) -> None:
    session = open_session(15)
    base = "PVE::Storage::Plugin"
    volume = "{ type => 'dir' }, 'one', '100/vm-100-disk-0.raw'"
    assert session.run(f"[{base}->volume_export_formats({volume})]").ok() == []
    assert session.run(f"{base}->volume_rollback_is_possible({volume}, 's')").ok() == 1
    notes = session.run(f"[{base}->get_volume_attribute({volume}, 'notes')]")
    assert notes.ok() == []
    assert "is not supported" in str(
        session.run(f"{base}->update_volume_attribute({volume}, 'protected', 1)").error
    )
    assert "has no identity" in str(session.run(f"{base}->get_identity({{}}, 'one')").error)


@pytest.mark.parametrize("feature", ["copy", "template", "sparseinit"])
def test_base_says_yes_for_raw(open_session: SessionMaker, feature: str) -> None:
    """Contract 2.11: dangerous, which is why the shim must not inherit it."""
    ask = "PVE::Storage::Plugin->volume_has_feature({}, $ARGS[0], 'one', '100/vm-100-disk-0.raw')"
    assert open_session().run(ask, feature).ok() == 1


# --- helpers of PVE::Tools and friends ---------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "value"),
    [
        ("[PVE::Tools::split_list('a, b;c d')]", ["a", "b", "c", "d"]),
        ("PVE::Tools::run_with_timeout(5, sub { 'done' })", "done"),
        ("PVE::Tools::run_fork_with_timeout(5, sub { [1, { a => 2 }] })", [1, {"a": 2}]),
        ("PVE::Tools::run_command(['sh', '-c', 'exit 3'], noerr => 1)", 3),
        (
            "my @o; PVE::Tools::run_command(['printf', 'a\\nb'], outfunc => sub { push @o, @_ });"
            "\\@o",
            ["a", "b"],
        ),
        (
            "PVE::JSONSchema::parse_property_string('prune-backups', 'keep-last=3,keep-all=0')",
            {"keep-last": "3", "keep-all": 0},
        ),
        ("[map { PVE::JSONSchema::parse_boolean($_) } 'yes', '0', 'odd']", [1, 0, None]),
        ("PVE::JSONSchema::parse_storage_id('a', 1)", None),
        ("[PVE::Storage::parse_volume_id('ab:c:d')]", ["ab", "c:d"]),
        ("PVE::Cluster::get_vmlist()->{ids}", {}),
    ],
)
def test_helpers(open_session: SessionMaker, code: str, value: object) -> None:
    assert open_session().run(code).ok() == value


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (
            "PVE::Tools::run_command(['sleep', '9'], timeout => 0.3)",
            "command 'sleep 9' failed: got timeout\n",
        ),
        ("PVE::Tools::run_command(['false'], errmsg => 'oh')", "oh: exit code 1\n"),
        ("PVE::Tools::run_with_timeout(0.3, sub { sleep 9 })", "got timeout\n"),
        ("PVE::Tools::run_fork_with_timeout(0.3, sub { sleep 9 })", "got timeout\n"),
        ('PVE::Tools::run_fork_with_timeout(5, sub { die "inner\\n" })', "inner\n"),
        (
            "PVE::JSONSchema::parse_storage_id('a')",
            "storage ID 'a' cannot be shorter than 2 characters\n",
        ),
        (
            "PVE::JSONSchema::parse_storage_id('_a')",
            "storage ID '_a' contains illegal characters\n",
        ),
        ("PVE::Storage::parse_volume_id('nocolon')", "unable to parse volume ID 'nocolon'\n"),
        ("PVE::Storage::Plugin->lookup('nope')", "unknown section type 'nope'\n"),
    ],
)
def test_helper_errors(open_session: SessionMaker, code: str, error: str) -> None:
    assert open_session().run(code).error == error


@pytest.mark.parametrize(
    "call", ["run_with_timeout(5, sub { 1 })", "run_command(['true'], timeout => 5)"]
)
def test_timeouts_keep_a_pending_alarm(open_session: SessionMaker, call: str) -> None:
    code = f"alarm(100); PVE::Tools::{call}; alarm(0)"
    assert 95 <= open_session().run(code).ok() <= 100


def test_everything_compiles_alone_under_taint(open_session: SessionMaker) -> None:
    root = Path(perl.__file__).resolve().parent / "standin"
    names = sorted(str(path.relative_to(root)) for path in root.rglob("*.pm"))
    assert len(names) > 15
    for name in names:
        if "StandinBase" in name or "StandinVolumes" in name:
            continue  # parts of another package, loaded by it
        with PerlSession(preload=f"require '{name}';") as session:
            assert session.startup_stderr == ""
