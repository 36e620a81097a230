package PVE::Storage::Custom::PyBridge;

# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

# Storage plugins written in Python. PVE loads this one file; it registers a storage type for each
# manifest that `pve-pybridge manifest` generated from a Python class (D1). Loading happens in every
# daemon and command line tool, some as www-data, some under -T: it reads the manifests and does
# nothing else. No socket, msgpack only where many processes share it, and nothing that a bad manifest
# could make die.

use v5.36;

use PVE::Storage::Plugin;
use PVE::Storage::PyBridge::Manifest;
use PVE::Storage::PyBridge::Type;

our @ISA = ('PVE::Storage::Plugin'); # base.pm takes 0.05 ms

# Not the release: only a change in here makes PVE's daemons load it anew, whatever Python does.
our $VERSION = 1;

# When this process read shim and manifests; what it forked has them from then, too.
our $LOADED = time;

# PVE's daemons that make calls or fork those who do, by their programs: some of them load PVE::Daemon
# after us. Not pveproxy, which leaves calls to pvedaemon.
my $FORKS = qr{/pve(?:daemon|scheduler|statd|-ha-lrm)\z};

# The newest storage API whose calls this shim forwards.
sub MAX_APIVER { return 15 }
sub MIN_APIVER { return 10 }

=head3 api

    my $version = $class->api();

The storage API version this plugin claims: the host's own, as long as we know it, so that no host
from APIVER 10 to 15 prints its warning about older plugins (T-31). APIVER 13 is the first one that
passes hints.

=cut

sub api {
    my $host = defined(&PVE::Storage::APIVER) ? PVE::Storage::APIVER() : 13;
    return $host < MAX_APIVER() ? $host : MAX_APIVER();
}

=head3 register

    PVE::Storage::Custom::PyBridge->register();

Registers one class per manifest. A manifest that PVE would choke on costs its own type and one
warning, never the node (D3).

=cut

sub register {
    my ($class) = @_;

    my @manifests = PVE::Storage::PyBridge::Manifest::read_all();
    for my $manifest (@manifests) {
        my $type = $manifest->{type};
        eval {
            my $owner = $class->private()->{plugins}->{$type};
            die "the type exists already ($owner)\n" if defined($owner);
            if (api() < 11) {
                require PVE::Storage::PyBridge::OldHost;
                PVE::Storage::PyBridge::OldHost::hide_secrets($manifest);
            }
            my $package = PVE::Storage::PyBridge::Type::generate($manifest);
            $package->register();
            push @PVE::Storage::Plugin::SHARED_STORAGE, $type if $manifest->{shared};
        };
        warn "pve-pybridge: storage type '$type' ($manifest->{file}) not registered: $@" if $@;
    }
    load_for_forks() if @manifests && $0 =~ $FORKS;
    return;
}

# What can't be loaded, such as a missing msgpack, is the first call's to tell.
sub load_for_forks {
    return if eval { require PVE::Storage::PyBridge::Daemon; 1 };
    PVE::Storage::PyBridge::Type::forget_half_loaded();
    return;
}

1;
