# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

package PVE::INotify;

use strict;
use warnings;

use POSIX ();

use base 'Exporter';
our @EXPORT_OK = qw(nodename);

my $nodename;

sub nodename {
    ($nodename) = (POSIX::uname())[1] =~ m/^([A-Za-z0-9-]+)/ if !defined($nodename);
    return $nodename // 'localhost';
}

1;
