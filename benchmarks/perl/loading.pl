#!/usr/bin/perl
# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

# loading.pl SHIM ROUNDS: what a directory in @INC, the shim's, adds to loading PVE::Storage, in seconds
# of processor time. Whole processes take 0.6 s, which differ by more than what is asked for. So one
# process loads all that PVE::Storage needs, and each of its children loads PVE::Storage itself anew: it
# compiles it, finds, checks and registers plugins, the shim among them or not, and calls init().

use v5.36;

use JSON ();
use POSIX ();
use Time::HiRes qw(clock_gettime CLOCK_PROCESS_CPUTIME_ID);

my ($shim, $rounds) = map { /\A(.+)\z/ } @ARGV;
my @with = @INC;
my @without = grep { $_ ne $shim } @INC;

@INC = @without; ## no critic (RequireLocalizedPunctuationVars): for good
require PVE::Storage::Plugin;
my $private = PVE::Storage::Plugin->private();
my $pristine = copy($private);
require PVE::Storage;
{
    no warnings qw(redefine once); ## no critic (ProhibitNoWarnings): the file is registered already
    *PVE::Cluster::cfs_register_file = sub { };
}
local $SIG{__WARN__} = sub ($text) { warn $text if $text !~ /\b(?:redefined|older storage API) / };

my @taken = ([], []);
for my $round (0 .. $rounds) {
    for my $which ($round % 2 ? (0, 1) : (1, 0)) {
        my $seconds = child($which ? \@with : \@without);
        push $taken[$which]->@*, $seconds if $round; # the first ones read files from disk
    }
}
say JSON::encode_json({ with => $taken[1], without => $taken[0] });

sub copy ($data) {
    return $data if ref($data) ne 'HASH';
    return { map { $_ => copy($data->{$_}) } keys %$data };
}

sub child ($include) {
    pipe(my $read, my $write) or die "no pipe: $!\n";
    my $pid = fork() // die "can't fork: $!\n";
    if (!$pid) {
        my $seconds = eval { loading($include) };
        syswrite($write, $seconds // "$@") && POSIX::_exit(0);
    }
    close($write);
    my $said = do { local $/ = undef; <$read> };
    waitpid($pid, 0);
    die "loading failed: $said\n" if $said !~ /\A[0-9.e-]+\z/;
    return $said + 0;
}

sub loading ($include) {
    @INC = @$include; ## no critic (RequireLocalizedPunctuationVars): a process of its own
    %$private = %$pristine;
    delete $INC{'PVE/Storage.pm'};
    my $before = clock_gettime(CLOCK_PROCESS_CPUTIME_ID);
    require PVE::Storage;
    my $taken = clock_gettime(CLOCK_PROCESS_CPUTIME_ID) - $before;
    my $ours = grep { $_->can('pybridge_manifest') } values $private->{plugins}->%*;
    die "$ours of our types registered\n" if !$ours == ($include == \@with);
    return $taken;
}
