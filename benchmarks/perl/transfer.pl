#!/usr/bin/perl
# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

# Exports one volume and imports it under another name, the way PVE does: the seconds it took.

use v5.36;

use POSIX ();
use Time::HiRes qw(CLOCK_MONOTONIC clock_gettime);

use PVE::Storage;

my $class = 'PVE::Storage::Custom::PyBridge::pydir';
my ($folder, $volume, $copy) = map { /\A(.+)\z/ } @ARGV;
my $scfg = { type => 'pydir', path => $folder, content => { images => 1 } };

my $start = clock_gettime(CLOCK_MONOTONIC);
pipe(my $reader, my $writer) or die "pipe: $!\n";
my $child = fork() // die "fork: $!\n";
if (!$child) {
    close($reader);
    $class->volume_export($scfg, 'local', $writer, $volume, 'raw+size', undef, undef, 0);
    POSIX::_exit(0);
}
close($writer);
$class->volume_import($scfg, 'local', $reader, $copy, 'raw+size', undef, undef, 0, 0);
waitpid($child, 0);
print clock_gettime(CLOCK_MONOTONIC) - $start, "\n";
