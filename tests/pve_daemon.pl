#!/usr/bin/perl
# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

# PVE's own PVE::Daemon, which every one of its services is made of, around our storage calls: forks,
# goes into the background, and on HUP replaces itself. USR1 makes a worker ask for the status of all
# storages. Arguments: name, PID file, log.

package main;

use v5.36;

use PVE::Daemon;
use PVE::Storage;
use PVE::Tools;
use Time::HiRes;

use base qw(PVE::Daemon);

# Untainted: we are what was run.
my @cmdline = map { /\A(.*)\z/s } split(/\0/, PVE::Tools::file_get_contents('/proc/self/cmdline'));
my ($name, $pidfile) = map { /\A(.*)\z/s } @ARGV;

sub run ($self) {
    my $asked;
    local $SIG{USR1} = sub { $asked = 1; };
    while (1) {
        Time::HiRes::sleep(0.05);
        PVE::Storage::storage_info(PVE::Storage::config()) if $asked;
        $asked = 0;
    }
    return;
}

local $ENV{PATH} = '/usr/bin:/bin';
local $SIG{USR1} = 'IGNORE'; # until a worker waits for it
my $daemon = main->new(
    $name, \@cmdline,
    pidfile => $pidfile,
    max_workers => 2,
    leave_children_open_on_reload => 1,
);
$daemon->start();
