# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""The stand-in's storage.cfg: parsing, writing, and the hooks around changing it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from standin_util import CONFIG, SECTION, Node, SessionMaker, calls, isolate, session_maker

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Node:
    (tmp_path / "empty").mkdir()
    isolate(monkeypatch, tmp_path / "empty")
    return Node(tmp_path)


@pytest.fixture
def open_session(node: Node) -> Iterator[SessionMaker]:
    yield from session_maker(node)


# --- configuration: contract 1.6, 1.7 ----------------------------------------------------------


def test_parsed_form(node: Node, open_session: SessionMaker) -> None:
    node.plugin("Foo", "foo")
    node.configure(
        "FOO: one\n\tfoo-size 7\n\tfoo-flag\n\tfoo-list a\n\tfoo-list b\n\tnodes n1,n2\n"
        "\tdisable\n\tcontent images,iso\n\n"
        "dir: two\n\tpath /srv\n\tcontent iso\n\tprune-backups keep-last=3\n"
    )
    result = open_session().run("PVE::Storage::config()->{ids}")
    ids = result.ok()
    assert ids["one"] == {
        "type": "foo",
        "content": {"images": 1},
        "foo-size": 7,
        "foo-flag": 1,
        "foo-list": ["a", "b"],
        "nodes": {"n1": 1, "n2": 1},
        "disable": 1,
    }
    assert ids["two"]["content"] == {"iso": 1}
    assert ids["two"]["prune-backups"] == "keep-last=3"
    assert ids["local"]["type"] == "dir"
    assert ids["local"]["path"] == "/var/lib/vz"
    assert result.warnings == ["storage does not support content type 'iso'\n"]


@pytest.mark.parametrize(
    ("line", "warning"),
    [
        ("foo-size 4", "minimum value of 5"),
        ("foo-size big", "type check ('integer') failed"),
        ("foo-flag yes", "type check ('boolean') failed"),
        ("unknown 1", "unknown property type"),
    ],
)
def test_bad_line_is_dropped(
    node: Node, open_session: SessionMaker, line: str, warning: str
) -> None:
    node.plugin("Foo", "foo")
    node.configure(f"foo: one\n\t{line}\n")
    result = open_session().run("PVE::Storage::config()->{ids}{one}")
    assert result.ok() == {"type": "foo", "content": {"images": 1}}
    assert warning in "".join(result.warnings)


def test_round_trip(node: Node, open_session: SessionMaker) -> None:
    node.plugin("Foo", "foo")
    node.configure(
        "dir: local\n\tpath /var/lib/vz\n\tcontent iso\n\n"
        "foo: one\n\tdisable\n\tcontent images\n\tfoo-flag 0\n\tfoo-list a\n\tfoo-list b\n"
        "\tfoo-size 7\n\n"
    )
    before = node.storage_cfg
    open_session().run("PVE::Storage::write_config(PVE::Storage::config())").ok()
    assert node.storage_cfg == before


def test_shared_is_forced_by_the_list(node: Node, open_session: SessionMaker) -> None:
    node.plugin("Foo", "foo", "push @PVE::Storage::Plugin::SHARED_STORAGE, 'foo';")
    node.configure(SECTION)
    assert open_session().run("PVE::Storage::config()->{ids}{one}{shared}").ok() == 1


def test_unknown_type_is_dropped_on_write(node: Node, open_session: SessionMaker) -> None:
    """T-02."""
    node.configure("gone: other\n\tsecret 1\n\ndir: kept\n\tpath /srv\n\tcontent iso\n")
    session = open_session()
    result = session.run("PVE::Storage::write_config(PVE::Storage::config())")
    assert result.error is None
    assert len(result.warnings) == 1
    assert "unsupported type 'gone'" in result.warnings[0]
    assert "gone" not in node.storage_cfg
    assert "dir: kept" in node.storage_cfg


@pytest.mark.parametrize(
    ("extra", "section"),
    [
        (
            "sub server_name { return ('foo-server' => {}) }"
            " sub properties { { 'foo-server' => {} } }",
            "",
        ),
        (
            "sub plugindata { { content => [{ images => 1 }, { images => 1 }] } }",
            "\tcontent iso\n",
        ),
    ],
)
def test_check_config_death(
    node: Node, open_session: SessionMaker, extra: str, section: str
) -> None:
    """Contract 0.3: an undef section; storage_info dies for all and nothing can be written."""
    if "server" in extra:
        extra += " sub options { return { server_name(), nodes => { optional => 1 } } }"
    node.plugin("Foo", "foo", extra)
    node.configure(f"foo: one\n{section}\ndir: two\n\tpath /srv\n")
    before = node.storage_cfg
    session = open_session()
    result = session.run(
        "my $ids = PVE::Storage::config()->{ids}; [exists $ids->{one}, $ids->{one}]"
    )
    assert result.ok() == [True, None]
    assert "section 'one'" in "".join(result.warnings)
    info = session.run("PVE::Storage::storage_info(PVE::Storage::config())")
    assert info.error == "storage 'one' does not exist\n"
    write = session.run("PVE::Storage::write_config(PVE::Storage::config())")
    assert "unable to write section 'one'" in str(write.error)
    assert node.storage_cfg == before


def test_missing_content_types_leave_an_empty_set(node: Node, open_session: SessionMaker) -> None:
    """C-011, with 'none' allowed."""
    node.plugin("Foo", "foo")
    node.configure("foo: one\n\tcontent iso\n")
    assert open_session().run("PVE::Storage::config()->{ids}{one}{content}").ok() == {}


def test_config_is_shared_until_the_file_changes(node: Node, open_session: SessionMaker) -> None:
    session = open_session()
    same = "PVE::Storage::config() == our $before ? 1 : 0"
    session.run("our $before = PVE::Storage::config(); 1").ok()
    assert session.run(same).ok() == 1
    node.configure("dir: two\n\tpath /srv\n")
    assert session.run(same).ok() == 0


# --- adding, changing, removing: contract 6 ----------------------------------------------------


def test_add(node: Node, open_session: SessionMaker) -> None:
    extra = """
        sub on_add_hook {
            my ($class, $storeid, $scfg, %secrets) = @_;
            note('on_add_hook', $storeid, {%$scfg}, \\%secrets);
            $scfg->{'foo-size'} = 99;
            return { shown => 'once' };
        }
    """
    node.plugin("Foo", "foo", extra)
    session = open_session()
    code = (
        f"{CONFIG}->create({{ storage => 'one', type => 'foo', 'foo-token' => 's3', nodes => '' }})"
    )
    assert session.run(code).ok()["config"] == {"shown": "once"}
    noted = calls(session)
    # C-096: no default content, no secret in the configuration.
    assert noted[0][:2] == ["on_add_hook", "one"]
    assert noted[0][3] == {"foo-token": "s3"}
    scfg = noted[0][2]
    assert isinstance(scfg, dict)
    assert "content" not in scfg
    assert "foo-token" not in scfg
    assert "foo-size 99" in node.storage_cfg
    assert "s3" not in node.storage_cfg


ADD = f"{CONFIG}->create({{ storage => 'one', type => 'foo', 'foo-token' => 'x' }})"


def test_add_checks_and_activates(node: Node, open_session: SessionMaker) -> None:
    node.plugin("Foo", "foo")
    session = open_session()
    session.run(ADD).ok()
    assert [call[0] for call in calls(session)] == [
        "on_add_hook",
        "check_connection",
        "activate_storage",
    ]
    again = session.run(ADD)
    assert again.error == "create storage failed: storage ID 'one' already defined\n"


@pytest.mark.parametrize(
    ("extra", "message", "hooks"),
    [
        (
            'sub activate_storage { die "no route\\n" }',
            "no route",
            ["on_add_hook", "on_delete_hook"],
        ),
        (
            "sub check_connection { 0 }",
            "storage 'one' is not online",
            ["on_add_hook", "on_delete_hook"],
        ),
        ('sub on_add_hook { die "bad token\\n" }', "bad token", []),
    ],
)
def test_failed_add(
    node: Node, open_session: SessionMaker, extra: str, message: str, hooks: list[str]
) -> None:
    """C-097; a death of on_add_hook itself is not followed by on_delete_hook."""
    node.plugin("Foo", "foo", extra)
    session = open_session()
    assert session.run(ADD).error == f"create storage failed: {message}\n"
    noted = [call[0] for call in calls(session) if str(call[0]).startswith("on_")]
    assert noted == hooks
    assert not (node.etc / "storage.cfg").exists()
    ids = session.run("[sort keys %{PVE::Storage::config()->{ids}}]").ok()
    assert ids == ["local"]


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ("'foo-size' => 4", "foo-size"),
        ("'no-such' => 1", "no-such"),
        ("storage => 'x'", "storage"),
        ("nodes => '-bad-'", "nodes"),
    ],
)
def test_parameter_errors(node: Node, open_session: SessionMaker, params: str, field: str) -> None:
    node.plugin("Foo", "foo")
    code = f"{CONFIG}->create({{ storage => 'one', type => 'foo', {params} }})"
    result = open_session().run(code)
    assert result.error_class == "PVE::Exception"
    assert result.error_data is not None
    assert result.error_data["code"] == 400
    assert list(result.error_data["errors"]) == [field]


@pytest.mark.parametrize(
    ("params", "secrets", "deleted"),
    [
        ("'foo-token' => 'new'", {"foo-token": "new"}, None),
        ("delete => 'foo-token'", {"foo-token": None}, ["foo-token"]),
        ("'foo-size' => 6", {}, None),
        ("delete => 'foo-token', 'foo-token' => 'new'", {"foo-token": "new"}, ["foo-token"]),
    ],
)
def test_secret_set_deleted_untouched(
    node: Node,
    open_session: SessionMaker,
    params: str,
    secrets: dict[str, str | None],
    deleted: list[str] | None,
) -> None:
    """C-099, through the full hook and, on an older host, through the other one."""
    extra = """
        sub on_update_hook_full {
            my ($class, $storeid, $scfg, $update, $delete, $secrets) = @_;
            note('full', $storeid, {%$scfg}, {%$update}, $delete, $secrets);
        }
        sub on_update_hook {
            my ($class, $storeid, $update, %secrets) = @_;
            note('short', $storeid, {%$update}, \\%secrets);
        }
    """
    node.plugin("Foo", "foo", extra)
    node.configure(SECTION)
    code = f"{CONFIG}->update({{ storage => 'one', {params} }})"
    update = {"type": "foo", "foo-size": 6} if "size" in params else {"type": "foo"}

    session = open_session(13)
    session.run(code).ok()
    scfg = {"type": "foo", "content": {"images": 1}}
    assert calls(session) == [["full", "one", scfg, update, deleted, secrets]]

    node.configure(SECTION)
    session = open_session(12)
    session.run(code).ok()
    assert calls(session) == [["short", "one", update, secrets]]
    assert "new" not in node.storage_cfg


@pytest.mark.parametrize(
    ("apiver", "api", "hook"),
    [(12, "12", "short"), (13, "12", "short"), (13, "13", "full"), (15, "13", "full")],
)
def test_which_update_hook(
    node: Node, open_session: SessionMaker, apiver: int, api: str, hook: str
) -> None:
    extra = "sub on_update_hook_full { note('full') } sub on_update_hook { note('short') }"
    node.plugin("Foo", "foo", extra, api=api)
    node.configure(SECTION)
    session = open_session(apiver)
    session.run(f"{CONFIG}->update({{ storage => 'one', 'foo-size' => 6 }})").ok()
    assert calls(session) == [[hook]]
    assert "foo-size 6" in node.storage_cfg


def test_base_full_hook_calls_the_short_one(node: Node, open_session: SessionMaker) -> None:
    node.plugin("Foo", "foo")
    node.configure(SECTION)
    session = open_session(13)
    session.run(f"{CONFIG}->update({{ storage => 'one', 'foo-size' => 6 }})").ok()
    assert [call[0] for call in calls(session)] == ["on_update_hook"]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ("path => '/other'", "can't change value of fixed parameter 'path'"),
        ("delete => 'path'", "unable to delete required option 'path'"),
        ("delete => 'no-such'", "no such option 'no-such'"),
        ("mkdir => 0, digest => 'old'", "detected modified configuration"),
    ],
)
def test_refused_updates(node: Node, open_session: SessionMaker, params: str, message: str) -> None:
    node.configure("dir: two\n\tpath /srv\n")
    result = open_session().run(f"{CONFIG}->update({{ storage => 'two', {params} }})")
    assert result.error is not None
    assert result.error.startswith(f"update storage failed: {message}")


def test_legacy_secrets_on_version_10(node: Node, open_session: SessionMaker) -> None:
    """C-098: the type's own names count from version 11 on."""
    node.plugin("Foo", "foo")
    names = "PVE::Storage::Plugin::sensitive_properties($ARGS[0])"
    assert open_session(11).run(names, "foo").ok() == ["foo-token"]
    legacy = ["encryption-key", "keyring", "master-pubkey", "password"]
    assert open_session(10).run(names, "foo").ok() == legacy


def test_delete(node: Node, open_session: SessionMaker) -> None:
    node.plugin("Foo", "foo")
    node.plugin("Bar", "bar", "sub properties { {} } sub options { { base => {} } }")
    node.configure(SECTION + "bar: two\n\tbase one:vm-100-disk-0\n")
    session = open_session()
    refused = session.run(f"{CONFIG}->delete({{ storage => 'one' }})")
    assert refused.error == (
        "delete storage failed: storage 'one' is used as base of storage 'two'\n"
    )
    session.run(f"{CONFIG}->delete({{ storage => 'two' }})").ok()
    session.run(f"{CONFIG}->delete({{ storage => 'one' }})").ok()
    assert [call[0] for call in calls(session)] == ["on_delete_hook", "on_delete_hook"]
    assert "one" not in node.storage_cfg
