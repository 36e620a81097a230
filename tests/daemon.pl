#!/usr/bin/perl
# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

# A PVE daemon in small: loads all storage plugins, takes its name, forks workers, and on HUP replaces
# itself by exec, as PVE::Daemon does; old workers stay. USR1 asks for the status of all storages.
# Arguments: name, number of workers. Says "ready" with the numbers of its workers after each start.

package main;

use v5.36;

use PVE::Storage;
use PVE::Tools;
use Time::HiRes;

# Untainted: we are what was run.
my @cmdline = map { /\A(.*)\z/s } split(/\0/, PVE::Tools::file_get_contents('/proc/self/cmdline'));

my ($name, $number) = @ARGV;
$0 = $name; ## no critic (RequireLocalizedPunctuationVars)
local $ENV{PATH} = '/usr/bin:/bin';

sub ask { return PVE::Storage::storage_info(PVE::Storage::config()); }

# Before any fork: a signal finds its handler.
my ($reload, $asked);
local $SIG{HUP} = sub { $reload = 1; };
local $SIG{USR1} = sub { $asked = 1; };

sub wait_and_ask () {
    Time::HiRes::sleep(0.05);
    ask() if $asked;
    $asked = 0;
    return;
}

my @workers;
for (1 .. $number) {
    my $pid = fork() // die "fork: $!\n";
    if (!$pid) {
        $0 = "$name worker"; ## no critic (RequireLocalizedPunctuationVars)
        wait_and_ask() while 1;
    }
    push @workers, $pid;
}

{
    local $| = 1;
    print "ready @workers\n";
}
while (1) {
    wait_and_ask();
    exec(@cmdline) if $reload;
}
