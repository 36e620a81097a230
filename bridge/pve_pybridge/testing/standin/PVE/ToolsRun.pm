# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

package PVE::ToolsRun;

# PVE::Tools::run_command: a program, no shell, its output line by line to callbacks.

use strict;
use warnings;

use IO::Select;
use IPC::Open3;
use POSIX ();
use Symbol qw(gensym);
use Time::HiRes ();

my sub shell_text {
    my ($cmd) = @_;
    return join(' ', map { m/^[\w\/.:=@%+,-]+\z/ ? $_ : "'" . s/'/'\\''/gr . "'" } @$cmd);
}

# Feed whole lines of each stream to its callback until both are closed or time is up.
my sub pump {
    my ($streams, $deadline) = @_;
    my $select = IO::Select->new(map { $_->{fh} } @$streams);
    my %by_fd = map { fileno($_->{fh}) => $_ } @$streams;
    while ($select->count()) {
        my $left = defined($deadline) ? $deadline - Time::HiRes::time() : undef;
        die "got timeout\n" if defined($left) && $left <= 0;
        for my $fh ($select->can_read($left)) {
            my $stream = $by_fd{ fileno($fh) };
            my $got = sysread($fh, $stream->{text}, 65536, length($stream->{text}));
            next if !defined($got) && $!{EINTR};
            if (!$got) {
                $select->remove($fh);
                $stream->{code}->($stream->{text}) if length($stream->{text});
                next;
            }
            $stream->{code}->($1) while $stream->{text} =~ s/^([^\n]*)\n//;
        }
    }
}

my sub explain {
    my ($status) = @_;
    return 'got signal ' . ($status & 127) if $status & 127;
    return 'exit code ' . ($status >> 8);
}

# Options: timeout, input, outfunc, errfunc, logfunc, errmsg, noerr, quiet. Without a timeout the
# end of the command clears any alarm that was pending (contract 7.3): storage code under a shared
# lock owes its life to that, so the stand-in does the same. With one the alarm is left alone.
sub run_command {
    my ($cmd, %opt) = @_;
    $cmd = ['/bin/sh', '-c', $cmd] if !ref($cmd);
    my $log = $opt{logfunc};
    my $out = $opt{outfunc} // $log // sub { print STDOUT "$_[0]\n" if !$opt{quiet} };
    my $err = $opt{errfunc} // $log // sub { print STDERR "$_[0]\n" if !$opt{quiet} };

    local $SIG{CHLD} = 'DEFAULT';
    local $SIG{PIPE} = 'IGNORE';
    my ($pid, $status);
    eval {
        my $stderr = gensym;
        $pid = open3(my $stdin, my $stdout, $stderr, @$cmd);
        print {$stdin} $opt{input} if defined($opt{input});
        close($stdin);
        my $deadline = $opt{timeout} ? Time::HiRes::time() + $opt{timeout} : undef;
        pump(
            [
                { fh => $stdout, code => $out, text => '' },
                { fh => $stderr, code => $err, text => '' },
            ],
            $deadline,
        );
        1 while waitpid($pid, 0) < 0 && $!{EINTR};
        $status = $?;
    };
    my $failure = $@;
    # Only the command's own timeout kills it; another exception leaves it running (contract 7.4).
    if ($failure eq "got timeout\n" && $pid) {
        kill('KILL', $pid);
        waitpid($pid, 0);
    }
    alarm(0) if !$opt{timeout};

    die $failure if ref($failure);
    $failure = explain($status) . "\n" if $failure eq '' && $status;
    return $status >> 8 if $failure eq '' || ($opt{noerr} && defined($status));
    die "$opt{errmsg}: $failure" if $opt{errmsg};
    die "command '" . shell_text($cmd) . "' failed: $failure";
}

1;
