#!/usr/bin/perl
# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

# Run by pve.py: load what every PVE process loads, and say as one line of JSON what came of it.
# The last line of STDOUT, since modules may print; what loading has to complain of is on STDERR.

package main;

use v5.36;

use JSON ();

use PVE::Storage;

my $plugins = PVE::Storage::Plugin->private()->{plugins};
my $shim = 'PVE::Storage::Custom::PyBridge';
my $file = $INC{'PVE/Storage/Custom/PyBridge.pm'};

sub version_of ($module) {
    my $path = $module =~ s|::|/|gr . '.pm';
    return undef if !eval { require $path; 1 };
    return '' . ($module->VERSION() // 'unknown');
}

sub secrets_of ($class) {
    my $data = eval { $class->plugindata() } // {};
    return [sort keys %{ $data->{'sensitive-properties'} // {} }];
}

# Apart from what loading says: that is told by every process, this by those that read the file.
my @config_said;
my $ids = do {
    local $SIG{__WARN__} = sub { push @config_said, split(/\n/, "$_[0]"); };
    PVE::Storage::config()->{ids};
};

my $answer = {
    apiver => PVE::Storage::APIVER() + 0,
    shim => $file,
    version => $file ? ($shim->VERSION() // 0) + 0 : undef,
    maximum => $file ? $shim->MAX_APIVER() : undef,
    minimum => $file ? $shim->MIN_APIVER() : undef,
    wire => version_of('PVE::Storage::PyBridge::Codec')
    ? PVE::Storage::PyBridge::Codec::WIRE_VERSION()
    : undef,
    manifest => $file ? PVE::Storage::PyBridge::Manifest::VERSION() : undef,
    types => { map { $_ => "$plugins->{$_}" } keys %$plugins },
    ours => [grep { $plugins->{$_}->can('pybridge_manifest') } sort keys %$plugins],
    ids => $ids,
    config_said => \@config_said,
    sensitive => { map { $_ => secrets_of($plugins->{$_}) } keys %$plugins },
    modules => { map { $_ => version_of($_) } qw(Data::MessagePack IO::FDPass) },
};
print "\n", JSON->new->canonical->ascii->encode($answer), "\n";
