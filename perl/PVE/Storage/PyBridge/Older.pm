package PVE::Storage::PyBridge::Older;

# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

# Manifests of older versions, as this one's: a package that was built with an older bridge keeps its
# type, and so does the file of an administrator who never writes it anew. Loaded when one is met.

use v5.36;

=head3 converted

    $manifest = converted($manifest);

Version 1 had one object for all methods, and in their rows C<call> said of which kind they are. The
rows stay as they are, see Method.pm. Dies with the reason when it can't.

=cut

sub converted ($manifest) {
    my %methods = map { $_ => {} } qw(forward static refuse);
    for my $name (sort keys $manifest->{methods}->%*) {
        my $row = $manifest->{methods}->{$name};
        my $kind = ref($row) eq 'HASH' ? $row->{call} // '' : '';
        $methods{$kind}->{$name} = $row;
    }
    $manifest->{methods} = \%methods;
    return $manifest;
}

1;
