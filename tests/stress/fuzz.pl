#!/usr/bin/perl
# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

# A PVE process that calls a server of broken frames again and again. Prints what became of the calls
# and how much memory that took, as JSON.

use v5.36;

use JSON;
use POSIX ();

use PVE::Storage;

my $class = 'PVE::Storage::Custom::PyBridge::faulty';
my $scfg = { type => 'faulty' };

sub memory {
    open(my $fh, '<', '/proc/self/status') or die "status: $!\n";
    my @lines = <$fh>;
    close($fh);
    my %kib = map { /\A(VmRSS|VmHWM):\s+(\d+)/ ? ($1 => $2) : () } @lines;
    return \%kib;
}

# Different kinds of results take different ways.
my @calls = (
    sub { return [$class->status('s', $scfg, {})]; },
    sub { return [$class->path($scfg, 'vm-1-a', 's')]; },
    sub { return [$class->list_images('s', $scfg, undef, undef, {})]; },
    sub { return [$class->on_add_hook('s', $scfg)]; },
    sub { return [$class->free_image('s', $scfg, 'vm-1-a', 0, 'raw')]; },
    sub { return [$class->get_volume_attribute($scfg, 's', 'vm-1-a', 'notes')]; },
);

my ($count) = $ARGV[0] =~ /\A(\d+)\z/;
open(STDERR, '>', '/dev/null') or die "/dev/null: $!\n";
local $SIG{__WARN__} = sub { };
my ($answered, $died, $odd, $before) = (0, 0, 0);
my %odd;
for my $number (1 .. $count) {
    eval { $calls[$number % @calls]->(); $answered++; 1 } and next;
    my $err = $@;
    $died++;
    # one line, as everything that PVE shows; else a bug of ours with "at … line …"
    next if !ref($err) && $err =~ /\n\z/ && $err !~ / at \S+ line \d+/;
    next if ref($err) && ref($err) eq 'PVE::Exception';
    $odd{ substr(ref($err) || $err, 0, 300) }++;
    $odd++;
} continue {
    $before = memory() if $number == int($count / 10) || !$before;
}
my $after = memory();
print encode_json({
    answered => $answered,
    died => $died,
    odd => $odd + 0,
    examples => [(sort keys %odd)[0 .. 4]],
    grown => $after->{VmRSS} - $before->{VmRSS},
    peak => $after->{VmHWM} - $before->{VmRSS},
});
STDOUT->flush();
POSIX::_exit(0);
