package PVE::Storage::PyBridge::Guard;

# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

# Keeps our types from disturbing PVE's start. PVE::Storage::Plugin->init() isn't guarded: one
# duplicate property or unknown option there ends every PVE process (T-01). So what would collide is
# left out, with a warning, at the moment init() asks, when all plugins are known.

use v5.36;

=head3 properties

    my $properties = properties($manifest, $package);

The manifest's properties without those that somebody else defines: PVE, another plugin, or one of
our own classes whose name sorts first (C-005, C-006).

=cut

sub properties ($manifest, $package) {
    my %result = $manifest->{properties}->%*;
    my ($plugins, $known) = PVE::Storage::Plugin->private()->@{qw(plugins propertyList)};
    for my $other (%result ? ((sort values %$plugins), 'PVE') : ()) {
        my $ours = $other->can('pybridge_manifest');
        next if $ours && $other ge $package;
        my $theirs =
              $ours ? $ours->()->{properties}
            : $other eq 'PVE' ? $known
            : eval { $other->properties() };
        next if ref($theirs) ne 'HASH';
        for my $name (grep { exists($theirs->{$_}) } sort keys %result) {
            delete $result{$name};
            warn "pve-pybridge: type '$manifest->{type}' uses the property '$name' of $other\n";
        }
    }
    return \%result;
}

=head3 options

The manifest's options without those whose property doesn't exist on this host (C-007).

=cut

sub options ($manifest) {
    my $known = PVE::Storage::Plugin->private()->{propertyList};
    my $all = $manifest->{options};
    return { map { exists($known->{$_}) ? ($_ => { $all->{$_}->%* }) : () } keys %$all };
}

1;
