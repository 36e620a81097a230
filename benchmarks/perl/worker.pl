#!/usr/bin/perl
# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

# A PVE process that measures: one job per line on STDIN, its result in one line on STDOUT, both
# JSON. Contenders take turns in blocks of a few calls, in one process, so that drift hits them alike.

use v5.36;

use JSON;
use POSIX ();
use Time::HiRes qw(CLOCK_MONOTONIC clock_gettime sleep);

use Contenders;
use PVE::Storage;

my ($run, @python) = map { /\A(.+)\z/ } @ARGV;
$PVE::Storage::Custom::BenchSpawn::COMMAND = \@python;
$ENV{PATH} = '/usr/sbin:/usr/bin:/sbin:/bin'; ## no critic (RequireLocalizedPunctuationVars)

sub now { return clock_gettime(CLOCK_MONOTONIC); }

# A contender's sub; anew for each process, because a connection is not shared.
sub contender ($what, $who) {
    my %make = Contenders::contenders($what, $run);
    return $make{$who}->();
}

# Seconds per call, a list for each round: { what, who => [names], rounds, calls, batch }.
sub time_calls ($job) {
    my @who = $job->{who}->@*;
    my %sub = map { $_ => contender($job->{what}, $_) } @who;
    my ($batch, %taken, %count) = ($job->{batch} // 1);
    for my $round (1 .. $job->{warm} // 1, 1 .. $job->{rounds}) {
        for my $who (@who) {
            my ($sub, @times) = ($sub{$who});
            for (1 .. $job->{calls}) {
                my $start = now();
                for (1 .. $batch) { $sub->($count{$who}++); }
                push @times, (now() - $start) / $batch;
            }
            push $taken{$who}->@*, \@times;
        }
        @who = reverse(@who);
    }
    splice($taken{$_}->@*, 0, $job->{warm} // 1) for @who;
    return \%taken;
}

# Many processes at once: { what, who, processes, seconds, out }. Each writes the seconds that its
# calls took to a file, as floats; returns the calls in a second.
sub crowd ($job) {
    my ($out) = $job->{out} =~ /\A(.+)\z/;
    my $start = now() + 0.2 + 0.01 * $job->{processes};
    in_children(
        $job->{processes},
        $job->{processes},
        sub ($number) {
            my $sub = contender($job->{what}, $job->{who});
            $sub->(0);
            sleep($start - now()) if $start > now();
            my ($at, @times) = ($start);
            while ((my $begin = now()) < $start + $job->{seconds}) {
                $sub->(0);
                push @times, now() - $begin;
            }
            open(my $fh, '>:raw', "$out.$number") or die "$out: $!\n";
            print $fh pack('f*', @times);
            close($fh);
        },
    );
    return {};
}

# Many short-lived processes: { what, who, guests, processes }.
sub storm ($job) {
    my @before = times();
    my $start = now();
    in_children(
        $job->{guests}, $job->{processes},
        sub ($number) { contender($job->{what}, $job->{who})->(0); }
    );
    my @after = times();
    my $cpu = 0;
    $cpu += $after[$_] - $before[$_] for 0 .. 3;
    return { wall => now() - $start, cpu => $cpu };
}

# The first call of a process, or what its reference loads: { what, who, daemon }. In seconds. What a
# daemon forks has the shim's files from it.
sub first ($job) {
    pipe(my $reader, my $writer) or die "pipe: $!\n";
    in_children(
        1, 1,
        sub ($number) {
            my $sub =
                $job->{who} eq 'modules'
                ? sub ($i) { require Data::MessagePack; require Socket; }
                : contender($job->{what}, $job->{who});
            require PVE::Storage::PyBridge::Daemon if $job->{daemon};
            my $start = now();
            $sub->(0);
            syswrite($writer, pack('d', now() - $start));
        },
    );
    sysread($reader, my $bytes, 8);
    return { seconds => unpack('d', $bytes) };
}

# Messages that one call of a contender sends to a server: { what, who }.
sub trips ($job) {
    my $sub = contender($job->{what}, $job->{who});
    $sub->(0); # connects, which isn't as usual
    my ($exchange, $count) = (\&PVE::Storage::PyBridge::Client::exchange, 0);
    local *PVE::Storage::PyBridge::Client::exchange = sub { $count++; goto &$exchange; };
    $sub->(1);
    return { trips => $count };
}

# Memory of one call in a process of its own, KiB: { what, who }.
sub memory ($job) {
    pipe(my $reader, my $writer) or die "pipe: $!\n";
    in_children(
        1, 1,
        sub ($number) {
            my $small = contender('listing-1', $job->{who});
            $small->(0);
            my $sub = contender($job->{what}, $job->{who});
            my $before = status_of('VmRSS');
            reset_peak();
            my $kept = $sub->(0);
            syswrite($writer, join(' ', $before, status_of('VmRSS'), status_of('VmHWM')));
        },
    );
    sysread($reader, my $line, 100);
    my %kib;
    @kib{qw(before after peak)} = map { $_ + 0 } split(' ', $line);
    return \%kib;
}

sub reset_peak {
    open(my $fh, '>', '/proc/self/clear_refs') or die "clear_refs: $!\n";
    print $fh '5';
    close($fh);
    return;
}

sub status_of ($key) {
    open(my $fh, '<', '/proc/self/status') or die "status: $!\n";
    my ($line) = grep { /\A$key:/ } <$fh>;
    close($fh);
    return $line =~ /(\d+)/ ? $1 : die "no $key\n";
}

# Runs a sub in so many processes, at most so many at a time; a failure in one of them is ours.
sub in_children ($count, $at_once, $sub) {
    my ($running, $failed) = (0, 0);
    my $reap = sub { wait(); $running--; $failed ||= $?; };
    for my $number (1 .. $count) {
        $reap->() if $running >= $at_once;
        my $pid = fork() // die "fork: $!\n";
        if (!$pid) {
            eval { $sub->($number); 1 } or warn $@;
            POSIX::_exit($@ ? 1 : 0);
        }
        $running++;
    }
    $reap->() while $running;
    die "a process failed\n" if $failed;
    return;
}

my %DO = (
    time => \&time_calls, crowd => \&crowd, storm => \&storm, first => \&first,
    memory => \&memory, trips => \&trips
);
$| = 1; ## no critic (RequireLocalizedPunctuationVars)
while (defined(my $line = <STDIN>)) { ## no critic (ProhibitExplicitStdin)
    my ($clean) = $line =~ /\A(.*)\z/s;
    my $job = decode_json($clean);
    my $result = eval { $DO{ $job->{do} }->($job) };
    print encode_json($@ ? { error => "$@" } : { result => $result }), "\n";
}
