# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

package PVE::RPCEnvironment;

# The request environment: who asks, what he may do (root, everything), and task workers.

use strict;
use warnings;

use IO::Handle;
use POSIX ();

use PVE::INotify;

my $env;

sub init { return $env = bless { user => 'root@pam', worker => 0 }, shift }
sub get { return $env // __PACKAGE__->init() }
sub setup_default_cli_env { return shift->init() }

sub get_user { return $_[0]->{user} }
sub set_user { $_[0]->{user} = $_[1] }
sub check { return 1 }
sub check_any { return 1 }
sub is_worker { return $env && $env->{worker} }

# The genuine environment loads PVE::AccessControl, and PVE::API2::Storage::Config relies on that
# when a storage is removed. Nobody has rights here that could stay behind.
sub PVE::AccessControl::remove_storage_access { return }

my sub upid {
    my ($dtype, $id, $user, $pid) = @_;
    return sprintf(
        "UPID:%s:%08X:%08X:%08X:%s:%s:%s:",
        PVE::INotify::nodename(), $pid, 0, time(), $dtype, $id // '', $user
    );
}

# What a worker is to the code in it (contract 7.4, 10): a session of its own, signals that die,
# SIGPIPE at its default, and an end through _exit: no END blocks, no destructors.
my sub run_worker {
    my ($code, $upid) = @_;
    local $SIG{INT} = local $SIG{QUIT} = local $SIG{TERM} = sub { die "received interrupt\n" };
    local $SIG{PIPE} = local $SIG{CHLD} = 'DEFAULT';
    eval { $code->($upid) };
    my $err = "$@";
    if ($err ne '') {
        chomp $err;
        $err =~ s/\n/ /g;
        print STDERR "TASK ERROR: $err\n";
    }
    STDOUT->flush();
    STDERR->flush();
    return $err eq '' ? 0 : 255;
}

# The parent waits as the command-line tools do. A failed worker is only reported: the callers,
# such as "pvesm free", succeed all the same (contract 10).
sub fork_worker {
    my ($self, $dtype, $id, $user, $code) = @_;
    STDOUT->flush();
    STDERR->flush();
    local $SIG{CHLD} = 'DEFAULT';
    my $pid = fork() // die "fork failed: $!\n";
    if (!$pid) {
        POSIX::setsid();
        $self->{worker} = 1;
        POSIX::_exit(run_worker($code, upid($dtype, $id, $user, $$)));
    }
    1 while waitpid($pid, 0) < 0 && $!{EINTR};
    my $status = $?;
    warn "worker '$dtype' failed with status $status\n" if $status;
    return upid($dtype, $id, $user, $pid);
}

1;
