# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Alarms, signals and forks of the calling process."""

from __future__ import annotations

from typing import Any

import pytest

from probe_util import Probe, scfg

S = scfg()

INTERRUPTED = """
    my ($signal, $slow, $scfg) = @ARGS;
    require Time::HiRes;
    local $SIG{$signal} = sub { die "got $signal\\n" };
    my $class = 'PVE::Storage::Custom::PyBridge::probe';
    $class->get_identity($scfg, 'p1');
    my $child;
    if ($signal eq 'ALRM') {
        Time::HiRes::alarm(0.5);
    } else {
        my $parent = $$;
        $child = fork() // die;
        if (!$child) {
            Time::HiRes::sleep(0.5);
            kill($signal, $parent);
            require POSIX;
            POSIX::_exit(0);
        }
    }
    my $started = Time::HiRes::time();
    eval { $class->volume_snapshot($slow, 'p1', 'vm-1-disk-0', 's1') };
    my $error = $@;
    my $took = Time::HiRes::time() - $started;
    waitpid($child, 0) if $child;
    my $next = $class->path($scfg, 'vm-7-disk-7', 'p1');
    return [$error, $took, $next];
"""


@pytest.mark.contract("C-022", "C-023")
@pytest.mark.parametrize("signame", ["ALRM", "TERM", "INT"])
def test_signal_during_a_call(probe: Probe, signame: str) -> None:
    """It ends the call at once, the plugin is told, and the next call gets its own answer."""
    probe.record.unlink(missing_ok=True)
    error, took, path = probe.node.perl(INTERRUPTED, signame, probe.fault("sleep", "30"), S).ok()
    assert error == f"got {signame}\n"
    assert 0.3 < took < 2
    assert path == f"{probe.node.run}/vm-7-disk-7@"
    assert probe.wait_for("woken", 5)["args"] == {"by": "Cancelled"}


def test_signal_that_does_not_die(probe: Probe) -> None:
    """A child's end is no reason to give up (contract 10)."""
    code = """
        my ($slow) = @ARGS;
        my $ended = 0;
        local $SIG{CHLD} = sub { $ended++ };
        my $pid = fork() // die;
        if (!$pid) {
            select(undef, undef, undef, 0.3);
            require POSIX;
            POSIX::_exit(0);
        }
        my $identity = PVE::Storage::Custom::PyBridge::probe->get_identity($slow, 'p1');
        waitpid($pid, 0);
        return [$identity, $ended];
    """
    assert probe.node.perl(code, probe.fault("hang", "1")).ok() == ["identity", 1]


@pytest.mark.contract("C-024")
def test_parent_and_child_have_their_own_connections(probe: Probe) -> None:
    code = """
        my ($scfg) = @ARGS;
        my $class = 'PVE::Storage::Custom::PyBridge::probe';
        my $ask = sub {
            my ($who) = @_;
            my @wrong;
            for my $number (1 .. 50) {
                my $path = $class->path($scfg, "vm-$who-disk-$number", 'p1');
                push @wrong, $path if $path !~ m!/vm-$who-disk-$number\\@$!;
            }
            return scalar(@wrong);
        };
        $class->get_identity($scfg, 'p1');
        my $pid = fork() // die;
        my $wrong = $ask->($pid ? 1 : 2);
        if (!$pid) {
            require POSIX;
            POSIX::_exit($wrong);
        }
        waitpid($pid, 0);
        return [$wrong, $?, $pid, $$];
    """
    wrong, status, child, parent = probe.node.perl(code, S).ok()
    assert (int(wrong), status) == (0, 0)
    entries = probe.seen("path")[-100:]
    pids: dict[Any, set[Any]] = {}
    for entry in entries:
        pids.setdefault(entry["args"]["volname"][:4], set()).add(entry["host"]["pid"])
    assert pids == {"vm-1": {parent}, "vm-2": {child}}
