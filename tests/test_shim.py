# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""What a call must not disturb, and what can't cross a socket as it is: closures, hashes."""

from __future__ import annotations

import pytest

from bridge_util import GENUINE
from probe_util import VOLUME, Probe, printed, scfg

S = scfg()
V = VOLUME
CLASS = "PVE::Storage::Custom::PyBridge::probe"

# --- Perl's global state -----------------------------------------------------------------------


@pytest.mark.contract("C-027")
@pytest.mark.parametrize("fault", ["", "log", "user"])
def test_callers_state_is_unchanged(probe: Probe, fault: str) -> None:
    code = f"""
        my ($scfg) = @ARGS;
        my $state = sub {{
            local $!; # looking at %SIG sets it
            return [
                "$@", $_[0], $?, $_, $0, umask(), fileno(STDIN), fileno(STDOUT), fileno(STDERR),
                (map {{ "$_=" . ($SIG{{$_}} // '') }} sort keys %SIG), $/, $|,
            ];
        }};
        local $SIG{{CHLD}} = sub {{ 1 }};
        local $SIG{{PIPE}} = 'DEFAULT';
        local ($@, $!, $?, $_) = ("before\\n", 17, 256, 'topic');
        my $before = $state->($! + 0);
        if ($scfg->{{'probe-mode'}} eq 'user') {{
            local $@;
            eval {{ {CLASS}->path($scfg, 'vm-1-disk-0', 'p1') }};
            die "no error\\n" if !$@;
        }} else {{
            {CLASS}->path($scfg, 'vm-1-disk-0', 'p1');
        }}
        return [$before, $state->($! + 0)];
    """
    before, after = probe.node.perl(code, probe.fault(fault)).ok()
    assert before == after
    assert before[:4] == ["before\n", 17, 256, "topic"]


@pytest.mark.contract("C-026")
def test_alarm_is_left_alone_and_passed_on(probe: Probe) -> None:
    code = f"""
        my ($scfg) = @ARGS;
        local $SIG{{ALRM}} = sub {{ die "alarm\\n" }};
        alarm(50);
        {CLASS}->activate_volume('p1', $scfg, 'vm-1-disk-0', undef, undef, undef);
        return alarm(0);
    """
    left = probe.node.perl(code, probe.fault("hang", "1.2")).ok()
    assert 47 <= left <= 49
    assert 48 < probe.last("activate_volume")["remaining"] <= 50
    probe.call("activate_volume", "p1", S, V).ok()
    assert probe.last("activate_volume")["remaining"] is None


@pytest.mark.contract("C-019")
def test_returned_path_can_be_opened_for_writing(probe: Probe) -> None:
    code = f"""
        my $path = {CLASS}->path(@ARGS);
        open(my $fh, '>', $path) or die "$path: $!\\n";
        print $fh 'written';
        close($fh);
        my ($path_again) = {CLASS}->path(@ARGS);
        unlink($path_again) or die "$path_again: $!\\n";
        system('/bin/true', $path_again) == 0 or die "can't run\\n";
        return $path;
    """
    answer = probe.node.perl(code, S, V, "p1", None, taint_args=True)
    assert answer.ok() == f"{probe.node.run}/{V}@"


@pytest.mark.contract("C-019")
def test_name_parts_are_untainted(probe: Probe) -> None:
    code = f"return [{CLASS}->parse_volname($ARGS[0])]"
    answer = probe.node.perl(code, "base-9-disk-0/vm-100-disk-0", taint_args=True)
    assert answer.ok()[1:5] == ["vm-100-disk-0", "100", "base-9-disk-0", "9"]
    assert not answer.tainted


# --- logs --------------------------------------------------------------------------------------


@pytest.mark.contract("C-028")
def test_log_lines_come_in_order_on_stderr(probe: Probe) -> None:
    code = f"""
        print STDERR "before\\n";
        {CLASS}->activate_storage('p1', $ARGS[0], undef);
        print STDERR "after\\n";
    """
    answer = probe.node.perl(code, probe.fault("log"))
    assert answer.stdout == ""
    assert printed(answer) == [
        "before",
        "first",
        "WARN: second, ünïcode",
        "third",
        "and its second line",
        "transferred 1.0 GiB of 10.0 GiB (10.00%)",
        "after",
    ]
    assert "only in the server's log" in probe.server.log.read_text()


@pytest.mark.contract("C-028")
def test_lines_logged_before_an_error_arrive(probe: Probe) -> None:
    answer = probe.call("volume_rollback_is_possible", probe.fault("log"), "p1", V, "old", [])
    assert answer.error == "newer snapshots exist\n"
    assert printed(answer)[0] == "first"


@pytest.mark.contract("C-028")
def test_logfunc_gets_each_line(probe: Probe) -> None:
    code = f"""
        my @log;
        my $log = sub {{ push @log, [@_] }};
        my $result = {CLASS}->prune_backups($ARGS[0], 'p1', {{}}, undef, undef, 0, $log);
        return [\\@log, scalar(@$result)];
    """
    answer = probe.node.perl(code, S)
    assert answer.ok() == [[["info", "removing 1"], ["warn", "can't remove 2"]], 2]
    assert answer.stderr == ""


def test_dying_logfunc_ends_the_call(probe: Probe) -> None:
    code = f"""
        my $log = sub {{ die "job aborted\\n" }};
        {CLASS}->prune_backups($ARGS[0], 'p1', {{}}, undef, undef, 0, $log);
    """
    assert probe.node.perl(code, S).error == "job aborted\n"
    assert probe.call("get_identity", S, "p1").ok() == "identity"


# --- errors ------------------------------------------------------------------------------------


@pytest.mark.contract("C-020")
@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("user", "the pool is full and so is the other\n"),
        ("unsupported", "the pool can't do that\n"),
    ],
)
def test_error_is_one_line(probe: Probe, mode: str, message: str) -> None:
    answer = probe.call("volume_snapshot", probe.fault(mode), "p1", V, "s1")
    assert (answer.error, answer.error_class) == (message, None)
    assert answer.stderr == ""


@pytest.mark.contract("C-020")
def test_bug_names_the_call_of_its_traceback(probe: Probe) -> None:
    answer = probe.call("volume_snapshot", probe.fault("bug"), "p1", V, "s1")
    what = "KeyError: 'boom\\\\nsecond line'"
    assert answer.error is not None
    head, _, tail = answer.error.partition(" (call ")
    assert head == f"internal error in plugin 'probe', volume_snapshot: {what}".replace(
        "\\\\", "\\"
    )
    number, _, rest = tail.partition(" ")
    assert rest == "in its log)\n"
    log = probe.server.log.read_text()
    assert f"call {number}: volume_snapshot failed" in log
    assert "Traceback" in log.split(number)[1]
    assert "Traceback" not in answer.error


@pytest.mark.contract("C-021")
def test_parameter_error_is_pves_exception(probe: Probe) -> None:
    answer = probe.call("on_add_hook", "p1", probe.fault("param", "wröng"))
    assert answer.error_class == "PVE::Exception"
    assert answer.error_data == {
        "code": 400,
        "errors": {"probe-limit": "too much", "probe-mode": "wröng"},
        "msg": "Parameter verification failed.\n",
    }


# --- out-parameters ----------------------------------------------------------------------------


@pytest.mark.contract("C-086")
@pytest.mark.method("volume_rollback_is_possible")
def test_blockers_are_pushed_into_the_callers_array(probe: Probe) -> None:
    code = f"""
        my $blockers = ['mine'];
        my $result = eval {{
            {CLASS}->volume_rollback_is_possible($ARGS[0], 'p1', $ARGS[1], $ARGS[2], $blockers) }};
        return [$result, $@, $blockers];
    """
    assert probe.node.perl(code, S, V, "old").ok() == [
        None,
        "newer snapshots exist\n",
        ["mine", "snap2", "snäp3"],
    ]
    assert probe.node.perl(code, S, V, "newest").ok() == [1, "", ["mine"]]


@pytest.mark.contract("C-086")
def test_blockers_may_be_missing(probe: Probe) -> None:
    for more in ([None], []):
        answer = probe.call("volume_rollback_is_possible", S, "p1", V, "old", *more)
        assert answer.error == "newer snapshots exist\n"


@pytest.mark.contract("C-096")
@pytest.mark.method("on_add_hook")
def test_add_hook_changes_the_callers_hash(probe: Probe) -> None:
    code = f"""
        my ($scfg) = @ARGS;
        my $shown = {CLASS}->on_add_hook('p1', $scfg);
        return [$scfg, $shown];
    """
    scfg_after, shown = probe.node.perl(code, probe.fault("generate", "goes")).ok()
    assert scfg_after == scfg(probe_mode="generate", probe_generated="made on add")
    assert shown == {"probe-token": "shown once"}
    assert "shown once" not in probe.server.trace.read_text()


@pytest.mark.method("on_update_hook_full", "on_update_hook")
@pytest.mark.parametrize("hook", ["on_update_hook", "on_update_hook_full"])
def test_update_hook_changes_the_callers_hash(probe: Probe, hook: str) -> None:
    code = f"""
        my $update = {{ 'probe-mode' => 'generate' }};
        $ARGS[0] eq 'on_update_hook'
            ? {CLASS}->on_update_hook('p1', $update)
            : {CLASS}->on_update_hook_full('p1', $ARGS[1], $update, undef, {{}});
        return [$update, $ARGS[1]];
    """
    update, section = probe.node.perl(code, hook, S).ok()
    assert update == {"probe-mode": "generate", "probe-generated": "made on update"}
    assert section == S


# --- closures ----------------------------------------------------------------------------------


@pytest.mark.contract("C-063")
@pytest.mark.method("free_image", "free_image_cleanup")
def test_cleanup_runs_in_another_process(probe: Probe) -> None:
    code = f"""
        my $later = {CLASS}->free_image(@ARGS);
        my $pid = fork() // die "fork: $!\\n";
        if (!$pid) {{
            eval {{ $later->() }};
            require POSIX;
            POSIX::_exit($@ ? 1 : 0);
        }}
        waitpid($pid, 0);
        my $status = $?;
        my $path = {CLASS}->path($ARGS[1], 'vm-1-disk-0', 'p1');
        return [$pid, $status, $path];
    """
    pid, status, path = probe.node.perl(code, "p1", S, V, 0, "raw").ok()
    assert (status, path) == (0, f"{probe.node.run}/vm-1-disk-0@")
    entry = probe.last("free_image_cleanup")
    assert entry["args"] == {"data": {"left": V, "size": 1 << 60}}
    assert entry["host"]["pid"] == pid


WORKER = """
    # a worker without the daemons that real ones need
    no warnings 'redefine', 'once';
    require POSIX;
    my $env = bless {}, 'PVE::RPCEnvironment';
    *PVE::RPCEnvironment::get = sub { return $env };
    *PVE::RPCEnvironment::get_user = sub { return 'root@pam' };
    *PVE::RPCEnvironment::fork_worker = sub {
        my (undef, undef, undef, undef, $worker) = @_;
        my $pid = fork() // die "fork: $!\\n";
        if (!$pid) {
            eval { $worker->('UPID') };
            POSIX::_exit($@ ? 1 : 0);
        }
        waitpid($pid, 0);
        die "worker failed\\n" if $?;
    };
    return 1;
"""


@pytest.mark.contract("C-063")
def test_vdisk_free_runs_the_cleanup(probe: Probe) -> None:
    probe.node.add("p3", "probe", content="images")
    before = len(probe.seen("free_image_cleanup"))
    with probe.node.session() as perl:
        if GENUINE:
            perl.run(WORKER).ok()
        code = "PVE::Storage::vdisk_free(PVE::Storage::config(), $ARGS[0]); return $$;"
        pid = perl.run(code, f"p3:{V}").ok()
    assert probe.last("free_image")["storeid"] == "p3"
    (entry,) = probe.seen("free_image_cleanup")[before:]
    assert entry["host"]["pid"] != pid


# --- operations --------------------------------------------------------------------------------


def test_one_operation_has_one_id(probe: Probe) -> None:
    """Calls of one activate_volumes share PVE's cache; the next operation has another (V3)."""
    probe.node.add("p4", "probe", content="images")
    code = """
        my $volumes = ['p4:vm-1-disk-0', 'p4:vm-1-disk-1'];
        PVE::Storage::activate_volumes(PVE::Storage::config(), $volumes);
    """
    ids = []
    for _ in range(2):
        before = len(probe.seen())
        probe.node.perl(code).ok()
        entries = probe.seen()[before:]
        assert [entry["method"] for entry in entries] == [
            "check_connection",
            "activate_storage",
            "activate_volume",
            "activate_volume",
        ]
        found = {entry["operation"] for entry in entries if entry["method"] != "check_connection"}
        assert len(found) == 1
        ids.append(found.pop())
    assert all(ids)


def test_without_cache_there_is_no_operation(probe: Probe) -> None:
    probe.call("activate_storage", "p1", S, None).ok()
    assert probe.last("activate_storage")["operation"] is None
    code = f"""
        my ($one, $other) = ({{}}, {{ foreign => sub {{ 1 }} }});
        {CLASS}->activate_storage('p1', $ARGS[0], $_) for $one, $other, $one;
        return [$one, $other];
    """
    assert probe.node.perl(code, S).ok() == [{}, {"foreign": {"__code__": 1}}]
    first, second, third = [entry["operation"] for entry in probe.seen("activate_storage")[-3:]]
    assert first == third != second


# --- JSON --------------------------------------------------------------------------------------


@pytest.mark.contract("C-081")
@pytest.mark.method("qemu_blockdev_options")
def test_blockdev_options_keep_their_types_as_json(probe: Probe) -> None:
    code = f"""
        require JSON;
        my $options = {CLASS}->qemu_blockdev_options(@ARGS);
        return JSON::to_json($options, {{ canonical => 1, ascii => 1 }});
    """
    for machine in ("10.0+pve0", "pc-q35-10.1", None):
        text = probe.node.perl(code, S, "p1", V, machine, None).ok()
        assert text == (
            '{"driver":"nbd","export":"\\u00c3\\u00bc","flag":true,"open-timeout":5,'
            '"server":{"path":"/run/x.sock","type":"unix"}}'
        )
        assert probe.last("qemu_blockdev_options")["args"]["machine_version"] == machine
