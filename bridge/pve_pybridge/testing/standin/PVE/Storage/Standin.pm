# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

package PVE::Storage::Standin;

# Which release the stand-in pretends to be. A separate module because the base class needs the
# answer and can be loaded before, or without, PVE::Storage.

use strict;
use warnings;

# Contract 1.1. The age says how many versions back a plugin may be.
my %age = (10 => 1, 11 => 2, 12 => 3, 13 => 4, 14 => 5, 15 => 6);

my ($apiver) = ($ENV{PVE_STANDIN_APIVER} // 13) =~ m/^(\d+)$/;
die "PVE_STANDIN_APIVER must be one of " . join(' ', sort keys %age) . "\n"
    if !defined($apiver) || !$age{$apiver};
$apiver += 0;

sub apiver { return $apiver }
sub apiage { return $age{$apiver} }

# Install subs into the caller's package from one version on, or up to one. A method that a release
# lacks must not answer to can(): that is how plugins find out (contract 1.1).
my sub install {
    my ($package, %subs) = @_;
    no strict 'refs'; ## no critic (ProhibitNoStrict): subs by their names
    *{"${package}::$_"} = $subs{$_} for keys %subs;
}

sub since {
    my ($version, %subs) = @_;
    install(scalar(caller), %subs) if $apiver >= $version;
}

sub before {
    my ($version, %subs) = @_;
    install(scalar(caller), %subs) if $apiver < $version;
}

1;
