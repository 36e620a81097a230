# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

package PVEPyBridgeTest::CustomDir;

# The genuine loader looks for custom plugins in one hard-wired directory only (contract 1.1). Load
# this before PVE::Storage and its listing of that directory also yields the plugins of all
# PVE/Storage/Custom directories in @INC, where the loader's "require" finds them.

use strict;
use warnings;

use PVE::Tools;

my $HARD_WIRED = '/usr/share/perl5/PVE/Storage/Custom';

my sub wrap {
    my ($original) = @_;
    return sub {
        my ($dir, $regex, $code) = @_;
        return $original->(@_) if $dir !~ m{^\Q$HARD_WIRED\E/*$};
        my %seen;
        for my $place ($dir, map { "$_/PVE/Storage/Custom" } grep { !ref } @INC) {
            next if !-d $place;
            $original->($place, $regex, sub { $code->(@_) if !$seen{ $_[0] }++ });
        }
    };
}

# Wherever the release defines it, and before anyone imports it.
for my $package (qw(PVE::Tools PVE::File)) {
    my $original = $package->can('dir_glob_foreach') or next;
    my $wrapped = wrap($original);
    no strict 'refs'; ## no critic (ProhibitNoStrict): a sub is replaced by its name
    no warnings 'redefine'; ## no critic (ProhibitNoWarnings)
    *{"${package}::dir_glob_foreach"} = $wrapped;
}

1;
