package PVE::Storage::PyBridge::Flaw;

# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

# Why a manifest can't be used. Loaded when one is met: every PVE process pays for what Manifest.pm says
# itself.

use v5.36;

=head3 of

    my $reason = of($file, $uid, $mode, $error_of_json, $manifest);

One line with its newline, whatever was read.

=cut

sub of (@facts) { return join(' ', split(' ', reason(@facts))) . "\n" }

sub reason ($file, $uid, $mode, $error, $manifest) {
    return "it must belong to root, not to user $uid" if $uid != 0 && $uid != $>;
    return 'others than its owner may write it' if $mode & oct('022');
    return 'no valid JSON' . ($error =~ /at character offset (\d+)/ ? " at byte $1" : '') if $error;
    return 'it holds no object' if ref($manifest) ne 'HASH';

    my $version = $manifest->{manifest} // '';
    return 'it has no manifest version' if $version !~ /\A\d+\z/;
    my $known = PVE::Storage::PyBridge::Manifest::VERSION();
    return "it is of version $version, this shim reads up to $known: update pve-pybridge"
        if $version > $known;

    my $type = $manifest->{type} // '';
    return "type '$type' is no legal storage type" if $type !~ /\A[a-z][a-z0-9-]*[a-z0-9]\z/;
    return "it describes type '$type', so it must be called $type.json"
        if $file !~ m|/\Q$type\E\.json\z|;

    for my $key (qw(properties options rules methods)) {
        return "'$key' is missing or no object" if ref($manifest->{$key}) ne 'HASH';
    }
    for my $key (qw(content formats names sensitive)) {
        return "'$key' is missing or no list" if ref($manifest->{$key}) ne 'ARRAY';
    }
    for my $key (qw(content formats)) {
        return "'$key' must hold two entries" if $manifest->{$key}->@* != 2;
    }
    for my $key (qw(properties options)) {
        my ($wrong) =
            grep { ref($manifest->{$key}->{$_}) ne 'HASH' } sort keys $manifest->{$key}->%*;
        return "'$wrong' of '$key' is no object" if defined($wrong);
    }
    return 'it is of no known form';
}

1;
