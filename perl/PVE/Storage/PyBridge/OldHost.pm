package PVE::Storage::PyBridge::OldHost;

# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

# What hosts before APIVER 11 need; others don't load it.

use v5.36;

# The sensitive properties that those hosts know (contract section 6).
my %KNOWN = map { $_ => 1 } qw(password encryption-key master-pubkey keyring);

=head3 hide_secrets

    hide_secrets($manifest);

Takes other secrets away: they would be written to storage.cfg in clear text there (C-098).

=cut

sub hide_secrets ($manifest) {
    my @hidden = grep { !$KNOWN{$_} } $manifest->{sensitive}->@*;
    delete $manifest->{$_}->@{@hidden} for qw(properties options);
    return;
}

1;
