# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""The stand-in's entry points for volumes: locks, arguments, order, contexts, listings."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from standin_util import SECTION, Node, SessionMaker, calls, isolate, session_maker

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Node:
    (tmp_path / "empty").mkdir()
    isolate(monkeypatch, tmp_path / "empty")
    return Node(tmp_path)


@pytest.fixture
def open_session(node: Node) -> Iterator[SessionMaker]:
    yield from session_maker(node)


# --- locks: contract 0.5, 7.3 ------------------------------------------------------------------

SHARED = "foo: one\n\tshared 1\n"
ALLOC = "PVE::Storage::vdisk_alloc(PVE::Storage::config(), 'one', 100, 'raw', undef, 1.5)"


def test_shared_lock_has_an_alarm(node: Node, open_session: SessionMaker) -> None:
    node.plugin("Foo", "foo", "sub alloc_image { pipe(my $r, my $w); sysread($r, my $b, 1) }")
    node.configure(SHARED)
    session = open_session(PVE_STANDIN_LOCK_SECONDS="0.5")
    begin = time.monotonic()
    result = session.run("alarm(100);" + ALLOC)
    assert result.error == "'storage-one'-locked command timed out - aborting\n"
    assert 0.4 < time.monotonic() - begin < 10
    assert 95 <= session.run("alarm(0)").ok() <= 100
    assert not list(node.locks.glob("cfs-*"))


def test_local_lock_has_none(node: Node, open_session: SessionMaker) -> None:
    node.plugin("Foo", "foo", "sub alloc_image { select(undef, undef, undef, 1); 'vm-100-x' }")
    node.configure(SECTION)
    session = open_session(PVE_STANDIN_LOCK_SECONDS="0.5")
    assert session.run(ALLOC).ok() == "one:vm-100-x"


def test_run_command_clears_the_alarm(node: Node, open_session: SessionMaker) -> None:
    extra = """
        sub alloc_image {
            PVE::Tools::run_command(['true']);
            select(undef, undef, undef, 1);
            return 'vm-100-x';
        }
    """
    node.plugin("Foo", "foo", extra)
    node.configure(SHARED)
    session = open_session(PVE_STANDIN_LOCK_SECONDS="0.5")
    assert session.run(ALLOC).ok() == "one:vm-100-x"


def test_lock_keeps_exception_objects(node: Node, open_session: SessionMaker) -> None:
    """V21."""
    extra = "sub alloc_image { PVE::Exception::raise_param_exc({ size => 'odd' }) }"
    node.plugin("Foo", "foo", extra)
    for text in (SHARED, SECTION):
        node.configure(text)
        assert open_session().run(ALLOC).error_data == {
            "msg": "Parameter verification failed.\n",
            "code": 400,
            "errors": {"size": "odd"},
        }


LOCKED_TWICE = """
    my $lock = sub { PVE::Storage::Plugin->cluster_lock_storage('one', $ARGS[0], 0.3, $_[0]) };
    $lock->(sub { $lock->(sub { 'inside' }) });
"""


def test_only_the_local_lock_is_reentrant(open_session: SessionMaker) -> None:
    session = open_session()
    assert session.run(LOCKED_TWICE, 0).ok() == "inside"
    error = session.run(LOCKED_TWICE, 1).error
    assert error == "error with cfs lock 'storage-one': got lock request timeout\n"
    assert session.run(LOCKED_TWICE, 0).ok() == "inside"


def test_two_processes_exclude_each_other(open_session: SessionMaker) -> None:
    holder, other = open_session(), open_session()
    take = """
        my ($shared, $sleep) = @ARGS;
        PVE::Storage::Plugin->cluster_lock_storage('one', $shared, 0.2, sub {
            select(undef, undef, undef, $sleep);
            1;
        });
    """
    for shared in (0, 1):
        holder.run(
            f"our $pid = fork() // die; if (!$pid) {{ {take}; POSIX::_exit(0) }} 1", shared, 1.5
        ).ok()
        time.sleep(0.5)
        assert "timeout" in str(other.run(take, shared, 0).error)
        holder.run("our $pid; waitpid($pid, 0)").ok()
        assert other.run(take, shared, 0).ok() == 1


# --- volumes -----------------------------------------------------------------------------------


def test_alloc(node: Node, open_session: SessionMaker) -> None:
    node.plugin("Foo", "foo")
    node.configure(SECTION)
    session = open_session()
    alloc = ALLOC.replace("'raw'", "undef")
    assert session.run(f"umask(022); my $v = {alloc}; [$v, umask()]").ok() == [
        "one:vm-100-disk-0",
        18,
    ]
    noted = calls(session)[-1]
    assert noted[:2] == ["alloc_image", "one"]
    assert noted[3:] == [100, "raw", None, 1.5, 0o037]


def test_hints_are_verified_and_passed_from_13_on(node: Node, open_session: SessionMaker) -> None:
    node.plugin("Foo", "foo")
    node.configure(SECTION)
    activate = (
        "PVE::Storage::activate_volumes(PVE::Storage::config(), ['one:vm-100-a'], undef, $ARGS[0])"
    )
    mapping = "PVE::Storage::map_volume(PVE::Storage::config(), 'one:vm-100-a', undef, $ARGS[0])"
    hints = {"guest-is-windows": 1, "plugin-may-deactivate-volume": 0}

    new = open_session(13)
    new.run(activate, hints).ok()
    assert calls(new)[-1][6:] == [hints]
    assert new.run(mapping, hints).ok() == "/dev/mapped"
    assert calls(new)[-1][5:] == [hints]
    for bad in ({"no-such": 1}, {"guest-is-windows": ""}, {"guest-is-windows": "yes"}):
        for code in (activate, mapping):
            assert "internal error" in str(new.run(code, bad).error)
    truth = "{ 'guest-is-windows' => JSON::true }"
    new.run(activate.replace("$ARGS[0]", truth)).ok()
    known = "[map { PVE::Storage::Plugin::is_hint_supported($_) } @ARGS]"
    assert new.run(known, "guest-is-windows", "no-such").ok() == [1, 0]

    old = open_session(12)
    old.run(activate, {"no-such": 1}).ok()
    assert len(calls(old)[-1]) == 6
    old.run(mapping, {"no-such": 1}).ok()
    assert len(calls(old)[-1]) == 5


def test_activation_order_and_cache(node: Node, open_session: SessionMaker) -> None:
    node.plugin("Foo", "foo")
    node.configure(SECTION)
    session = open_session()
    vols = "['one:vm-100-a', 'one:vm-100-b']"
    session.run(f"PVE::Storage::activate_volumes(PVE::Storage::config(), {vols})").ok()
    assert [call[0] for call in calls(session)] == [
        "check_connection",
        "activate_storage",
        "activate_volume",
        "activate_volume",
    ]
    session.run(f"PVE::Storage::deactivate_volumes(PVE::Storage::config(), {vols})").ok()
    assert [call[0] for call in calls(session)] == ["deactivate_volume"] * 2


def test_deactivation_tries_all(node: Node, open_session: SessionMaker) -> None:
    node.plugin("Foo", "foo", 'sub deactivate_volume { note("x"); die "busy $_[3]\\n" }')
    node.configure(SECTION)
    session = open_session()
    vols = "['one:vm-100-a', 'one:vm-100-b']"
    result = session.run(f"PVE::Storage::deactivate_volumes(PVE::Storage::config(), {vols})")
    assert result.error == "volume deactivation failed: one:vm-100-a one:vm-100-b\n"
    assert result.warnings == ["busy vm-100-a\n", "busy vm-100-b\n"]


def test_resize_pads_and_passes_snapname_from_15_on(node: Node, open_session: SessionMaker) -> None:
    node.plugin("Foo", "foo", "sub volume_resize { note(scalar(@_), @_[4 .. $#_]); 1 }")
    node.configure(SECTION)
    resize = "PVE::Storage::volume_resize(PVE::Storage::config(), 'one:vm-100-a', 1025, 7, 'snap')"
    for apiver, expected in ((14, [6, 2048, 7]), (15, [7, 2048, 7, "snap"])):
        session = open_session(apiver)
        session.run(resize).ok()
        assert calls(session) == [expected]


FREE = "PVE::Storage::vdisk_free(PVE::Storage::config(), 'one:vm-100-a')"


def test_free_runs_the_closure_in_a_worker(
    node: Node, open_session: SessionMaker, tmp_path: Path
) -> None:
    """V5: in another process and session, ending without END blocks, outside the lock."""
    extra = f"""
        our $owner = $$;
        END {{ print STDERR "END in a worker\\n" if $$ != $owner }}
        sub free_image {{
            return sub {{
                my ($upid) = @_;
                open(my $fh, '>', '{tmp_path}/out') or die;
                my $locked = -e '{node.locks}/cfs-storage-one' ? 1 : 0;
                print $fh join(' ', $$ != $owner, getpgrp() == $$, $locked, $upid);
                print STDERR "cleaning\\n";
            }};
        }}
    """
    node.plugin("Foo", "foo", extra)
    node.configure(SHARED)
    result = open_session().run(FREE)
    assert result.ok() is None
    assert result.stderr == "cleaning\n"
    out = (tmp_path / "out").read_text().split(" ")
    assert out[:3] == ["1", "1", "0"]
    assert out[3].startswith("UPID:")
    assert ":imgdel::root@pam:" in out[3]


def test_failed_worker_is_only_reported(node: Node, open_session: SessionMaker) -> None:
    node.plugin("Foo", "foo", "sub free_image { return sub { kill TERM => $$; sleep 5 } }")
    node.configure(SECTION)
    result = open_session().run(FREE)
    assert result.error is None
    assert "TASK ERROR: received interrupt" in result.stderr
    assert "worker 'imgdel' failed" in result.warnings[0]


def test_base_in_use_is_not_freed(node: Node, open_session: SessionMaker) -> None:
    """T-22."""
    listing = (
        "sub list_images { [map { { volid => $_ } } 'one:base-100-a', 'one:base-100-a/vm-101-b'] }"
    )
    node.plugin("Foo", "foo", listing)
    node.configure(SECTION)
    session = open_session()
    free = "PVE::Storage::vdisk_free(PVE::Storage::config(), $ARGS[0])"
    assert session.run(free, "one:base-100-a").error == (
        "base volume 'base-100-a' is still in use by linked clones\n"
    )
    session.run(free, "one:base-100-b").ok()
    session.run(free, "one:base-100-a/vm-101-b").ok()


def blockdev(answer: str) -> str:
    return f"sub qemu_blockdev_options {{ return {answer} }}"


ASK_BLOCKDEV = (
    "PVE::Storage::qemu_blockdev_options(PVE::Storage::config(), 'one:vm-100-a', undef, {})"
)


@pytest.mark.parametrize(
    ("answer", "value", "dropped"),
    [
        ("{ driver => 'file', filename => '/x' }", {"driver": "file", "filename": "/x"}, 0),
        (
            "{ driver => 'nbd', server => { type => 'unix', any => 1 }, 'tls-creds' => 'y' }",
            {"driver": "nbd", "server": {"type": "unix", "any": 1}},
            1,
        ),
    ],
)
def test_unlisted_blockdev_options_are_dropped(
    node: Node, open_session: SessionMaker, answer: str, value: object, dropped: int
) -> None:
    node.plugin("Foo", "foo", blockdev(answer))
    node.configure(SECTION)
    result = open_session().run(ASK_BLOCKDEV)
    assert result.ok() == value
    assert result.stderr.count("WARN: ") == dropped
    assert result.stderr.count("dropping block device option") == dropped


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ("{ driver => 'nvme', device => 'x' }", "block device driver 'nvme' not allowed"),
        ("{ filename => '/x' }", "no driver in the block device options"),
        ("undef", "no driver in the block device options"),
    ],
)
def test_unlisted_blockdev_driver_is_fatal(
    node: Node, open_session: SessionMaker, answer: str, error: str
) -> None:
    node.plugin("Foo", "foo", blockdev(answer))
    node.configure(SECTION)
    assert error in str(open_session().run(ASK_BLOCKDEV).error)


def test_blockdev_needs_version_12(open_session: SessionMaker) -> None:
    assert "Undefined subroutine" in str(open_session(11).run(ASK_BLOCKDEV).error)


def test_rollback_asks_first(node: Node, open_session: SessionMaker) -> None:
    extra = """
        sub volume_rollback_is_possible {
            my ($class, $scfg, $storeid, $volname, $snap, $blockers) = @_;
            push @$blockers, 'newer' if $blockers;
            die "newer snapshots exist\\n";
        }
        sub volume_snapshot_rollback { note('rolled back') }
    """
    node.plugin("Foo", "foo", extra)
    node.configure(SECTION)
    session = open_session()
    args = "(PVE::Storage::config(), 'one:vm-100-a', 's'"
    assert session.run(f"PVE::Storage::volume_snapshot_rollback{args})").error == (
        "newer snapshots exist\n"
    )
    asked = f"my @b; eval {{ PVE::Storage::volume_rollback_is_possible{args}, \\@b) }}; \\@b"
    assert session.run(asked).ok() == ["newer"]
    assert calls(session) == []


# --- listings and status -----------------------------------------------------------------------


def test_list_volumes_splits_by_guest_type(node: Node, open_session: SessionMaker) -> None:
    node.plugin("Foo", "foo")
    node.configure("foo: one\n\tcontent images,rootdir\n")
    (node.etc / ".vmlist").write_text('{"version":1,"ids":{"200":{"node":"a","type":"lxc"}}}')
    session = open_session()
    listing = """
        my $list = PVE::Storage::volume_list(PVE::Storage::config(), 'one', undef, $ARGS[0]);
        [map { "$_->{volid} $_->{content}" } @$list];
    """
    images = ["one:vm-100-disk-0 images", "one:vm-100-disk-1 images"]
    assert session.run(listing, "images").ok() == images
    assert session.run(listing, "rootdir").ok() == ["one:vm-200-disk-0 rootdir"]
    assert session.run(listing, "iso").ok() == []
    assert len(session.run(listing, None).ok()) == 3
    (node.etc / ".vmlist").unlink()
    assert len(session.run(listing, "images").ok()) == 3


def test_storage_info(node: Node, open_session: SessionMaker) -> None:
    node.plugin("Foo", "foo")
    node.plugin("Bar", "bar", 'sub status { die "hung\\n" }')
    node.plugin("Off", "off", 'sub activate_storage { die "must not be called\\n" }')
    node.configure(SECTION + "bar: two\n\noff: three\n\tdisable\n")
    result = open_session().run("PVE::Storage::storage_info(PVE::Storage::config(), 'images', 1)")
    info = result.ok()
    assert info["one"] == {
        "type": "foo",
        "content": "images",
        "shared": 0,
        "enabled": 1,
        "active": 1,
        "total": 100,
        "avail": 60,
        "used": 40,
        "format": [{"raw": 1}, "raw"],
    }
    assert (info["two"]["active"], info["three"]["active"], info["three"]["enabled"]) == (0, 0, 0)
    assert result.warnings == ["hung\n"]
