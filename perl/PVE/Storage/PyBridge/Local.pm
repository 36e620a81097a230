package PVE::Storage::PyBridge::Local;

# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

# Methods that are answered here, without the server: names, rules and refusals.

use v5.36;

use PVE::Storage::PyBridge::Method;

=head3 plan

    my $method = plan($manifest, $name);
    my @answer = $class->$method(@arguments);

The sub of a method that isn't forwarded.

=cut

sub plan ($manifest, $name) {
    if ($name eq 'parse_volname') {
        require PVE::Storage::PyBridge::Names;
        my $parse = PVE::Storage::PyBridge::Names::parser($manifest);
        return sub { return $parse->($_[1]); };
    }
    my $row = $manifest->{methods}->{static}->{$name};
    return sub { die "storage type '$manifest->{type}' does not support $name\n" }
        if !$row;
    require PVE::Storage::PyBridge::Static;
    $row = PVE::Storage::PyBridge::Method::row($name, $row);
    return PVE::Storage::PyBridge::Static::plan($manifest, $name, $row);
}

1;
