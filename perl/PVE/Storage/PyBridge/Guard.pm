package PVE::Storage::PyBridge::Guard;

# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

# Keeps our types from disturbing PVE's start. PVE::Storage::Plugin->init() isn't guarded: one
# duplicate property or unknown option there ends every PVE process (T-01). So what would collide is
# left out, with a warning, at the moment init() asks, when all plugins are known.

use v5.36;

# The sensitive properties that hosts before APIVER 11 know; any other would be written to
# storage.cfg in clear text there (contract section 6).
my %LEGACY_SENSITIVE = map { $_ => 1 } qw(password encryption-key master-pubkey keyring);

sub private { return PVE::Storage::Plugin->private(); }

=head3 check_type

Dies when the type is registered already.

=cut

sub check_type ($type) {
    my $owner = private()->{plugins}->{$type};
    die "the type exists already ($owner)\n" if defined($owner);
    return;
}

=head3 properties

    my $properties = properties($manifest, $package);

The manifest's properties without those that somebody else defines: PVE, another plugin, or one of
our own classes whose name sorts first (C-005, C-006).

=cut

sub properties ($manifest, $package) {
    my $plugins = private()->{plugins} // {};
    my $known = private()->{propertyList} // {};

    my $result = {};
    for my $name (sort keys $manifest->{properties}->%*) {
        next if hidden($manifest, $name);
        my $owner = owner($name, $package, $plugins) // (exists($known->{$name}) ? 'PVE' : undef);
        if (defined($owner)) {
            warn "pve-pybridge: type '$manifest->{type}' uses the property '$name' of $owner\n";
            next;
        }
        $result->{$name} = { $manifest->{properties}->{$name}->%* };
    }
    return $result;
}

# The class that defines a property before us, if any.
sub owner ($name, $package, $plugins) {
    for my $type (sort keys %$plugins) {
        my $other = $plugins->{$type};
        next if $other eq $package;
        if (my $manifest = $other->can('pybridge_manifest')) {
            next if $other gt $package;
            return $other if exists($manifest->()->{properties}->{$name});
            next;
        }
        my $theirs = eval { $other->properties() } // {};
        return $other if exists($theirs->{$name});
    }
    return undef;
}

=head3 options

The manifest's options without those whose property doesn't exist on this host (C-007).

=cut

sub options ($manifest) {
    my $known = private()->{propertyList} // {};

    my $result = {};
    for my $name (sort keys $manifest->{options}->%*) {
        next if hidden($manifest, $name) || !exists($known->{$name});
        $result->{$name} = { $manifest->{options}->{$name}->%* };
    }
    return $result;
}

# A secret that this host wouldn't treat as one is not offered at all (C-098).
sub hidden ($manifest, $name) {
    return 0 if PVE::Storage::Custom::PyBridge->api() >= 11 || $LEGACY_SENSITIVE{$name};
    return (grep { $_ eq $name } $manifest->{sensitive}->@*) ? 1 : 0;
}

1;
