#!/usr/bin/perl
# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

# PVE processes by the dozen: loads the storage modules once and forks a caller for each one asked
# for. A job per line on STDIN, JSON; the process IDs of its callers, one line, on STDOUT. What the
# callers found goes to the job's file, a line each: kind, tag, start, end, outcome.

use v5.36;

use Fcntl qw(O_APPEND O_CREAT O_WRONLY);
use JSON;
use POSIX ();
use Time::HiRes qw(CLOCK_MONOTONIC clock_gettime sleep);

use PVE::Storage;

my $class = 'PVE::Storage::Custom::PyBridge::faulty';

sub now { return clock_gettime(CLOCK_MONOTONIC); }

sub memory {
    open(my $fh, '<', '/proc/self/statm') or die "statm: $!\n";
    my $line = <$fh>;
    close($fh);
    return (split(' ', $line))[1] * 4;
}

# Each kind of call with the answer it must get: one that nobody else's call can have.
my %CALL = (
    attribute => sub ($job, $tag) {
        my $got =
            $class->get_volume_attribute($job->{scfg}, $job->{storeid}, "vm-1-$tag", $tag);
        return $got eq "vm-1-$tag:$tag";
    },
    alloc => sub ($job, $tag) {
        my $got = $class->alloc_image($job->{storeid}, $job->{scfg}, 100, 'raw', $tag, 1024);
        return $got eq "vm-100-$tag";
    },
    status => sub ($job, $tag) {
        my @got = $class->status($job->{storeid}, $job->{scfg}, {});
        return 'inactive' if !@got;
        return "@got" eq '1099511627776 1098437885952 1073741824 1';
    },
);

sub record ($job, @fields) {
    my $line = join("\t", map { s/\s+/ /gr } @fields) . "\n";
    sysopen(my $fh, $job->{out}, O_WRONLY | O_APPEND | O_CREAT, oct(600))
        or die "$job->{out}: $!\n";
    syswrite($fh, $line);
    close($fh);
    return;
}

sub one_call ($job, $kind, $tag) {
    my $start = now();
    my $right = eval { $CALL{$kind}->($job, $tag) };
    my $err = $@;
    my $end = now();
    return ($start, $end, $err ? "error: $err" : !$right ? 'WRONG' : $right eq '1' ? 'ok' : $right);
}

# What PVE does after it was interrupted, in the same process.
sub clean_up ($job, $tag) {
    my $start = now();
    eval {
        $class->deactivate_volume($job->{storeid}, $job->{scfg}, "vm-100-$tag");
        $class->free_image($job->{storeid}, $job->{scfg}, "vm-100-$tag", 0, 'raw');
    };
    record($job, 'cleanup', $tag, $start, now(), $@ ? "error: $@" : 'ok');
    return;
}

sub run ($job) {
    my @kinds = $job->{kinds}->@*;
    my ($count, $failed, $worst, $half) = (0, 0, 0, 0);
    sleep($job->{at} - now()) if $job->{at} && $job->{at} > now();
    while (!$job->{count} || $count < $job->{count}) {
        last if $job->{until} && now() >= $job->{until};
        my $kind = $kinds[$count % @kinds];
        my $tag = "t$$-$count";
        my ($start, $end, $outcome) = one_call($job, $kind, $tag);
        $count++;
        $failed++ if $outcome ne 'ok' && $outcome ne 'inactive';
        $worst = $end - $start if $end - $start > $worst;
        record($job, $kind, $tag, $start, $end, $outcome)
            if $job->{each} || ($outcome ne 'ok' && $outcome ne 'inactive');
        clean_up($job, $tag) if $job->{cleanup} && $outcome =~ /interrupted/;
        $half = memory() if $job->{count} && $count == int($job->{count} / 2);
        sleep($job->{pause}) if $job->{pause};
    }
    record($job, 'total', $count, $failed, $worst, memory() - $half) if !$job->{each};
    return;
}

$| = 1; ## no critic (RequireLocalizedPunctuationVars)
$SIG{CHLD} = 'IGNORE'; ## no critic (RequireLocalizedPunctuationVars)
require PVE::Storage::PyBridge::Forward;
while (defined(my $line = <STDIN>)) { ## no critic (ProhibitExplicitStdin)
    my ($clean) = $line =~ /\A(.*)\z/s;
    my $job = decode_json($clean);
    my @pids;
    for (1 .. $job->{callers}) {
        my $pid = fork() // die "fork: $!\n";
        if (!$pid) {
            local $SIG{CHLD} = 'DEFAULT';
            local $SIG{TERM} = sub { die "interrupted by signal\n" };
            local $SIG{ALRM} = sub { die "interrupted by alarm\n" };
            eval { run($job) };
            record($job, 'died', "t$$", 0, 0, "error: $@") if $@;
            POSIX::_exit(0);
        }
        push @pids, $pid;
    }
    print join(' ', @pids), "\n";
}
