package PVE::Storage::PyBridge::Manifest;

# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

# Reads the manifests: the static facts of each Python plugin. Whatever is wrong with one of them
# is said in one line on STDERR, and only that one is left out (C-008).

use v5.36;

use JSON ();

# The manifest format this shim reads, and all before it; `manifest` in the file.
sub VERSION { return 2 }

# What a manifest must hold, and as what.
my @PARTS = qw(properties options rules methods content formats names sensitive);
my $KINDS = 'HASH HASH HASH HASH ARRAY ARRAY ARRAY ARRAY';

=head3 directory

The directory with the manifests, C<*.json>; movable by PVE_PYBRIDGE_MANIFESTS.

=cut

sub directory {
    return untainted_path($ENV{PVE_PYBRIDGE_MANIFESTS}) // '/etc/pve-pybridge/plugins.d';
}

=head3 untainted_path

An absolute path from the environment, or undef.

=cut

sub untainted_path ($path) {
    return ($path // '') =~ m|\A(/[^\0\n]+)\z| ? $1 : undef;
}

=head3 read_all

    my @manifests = read_all();

All usable manifests, sorted by file name, each with its C<file> added.

=cut

sub read_all {
    my $dir = directory();
    opendir(my $dh, $dir) or return; # nothing enabled
    my @files = map { m|\A([^.][^\n]*\.json)\z| ? "$dir/$1" : () } sort readdir($dh);
    closedir($dh);

    my @found;
    for my $file (@files) {
        my $manifest = eval { read_one($file) };
        push @found, $manifest if $manifest;
        warn "pve-pybridge: manifest $file skipped: $@" if $@;
    }
    return @found;
}

=head3 read_one

One manifest as a hash; dies with the reason when it can't be used.

=cut

sub read_one ($file) {
    open(my $fh, '<', $file) or die "can't read it: $!\n";
    # only root may say what PVE's root processes load (D3); Fcntl's names would take 0.5 ms
    my ($mode, $uid, $size) = (stat($fh))[2, 4, 7];
    my ($manifest, $error);
    if (($uid == 0 || $uid == $>) && !($mode & oct('022'))) {
        sysread($fh, my $bytes, $size);
        close($fh);
        my ($text) = ($bytes // '') =~ /\A(.*)\z/s; # root wrote it
        $manifest = eval { JSON::decode_json($text) };
        $error = $@;
        if (usable($manifest, $file)) {
            $manifest->{file} = $file;
            return $manifest if $manifest->{manifest} == VERSION();
            require PVE::Storage::PyBridge::Older;
            return PVE::Storage::PyBridge::Older::converted($manifest);
        }
    }
    require PVE::Storage::PyBridge::Flaw;
    die PVE::Storage::PyBridge::Flaw::of($file, $uid, $mode, $error, $manifest);
}

# Whether all is there that PVE's start relies on; Flaw.pm says what isn't.
sub usable ($manifest, $file) {
    my ($type) = $file =~ m|/([a-z][a-z0-9-]*[a-z0-9])\.json\z| or return 0;
    return
           ref($manifest) eq 'HASH'
        && ($manifest->{type} // '') eq $type
        && ($manifest->{manifest} // '') =~ /\A[0-9]\z/
        && $manifest->{manifest} <= VERSION()
        && join(' ', map { ref } $manifest->@{@PARTS}) eq $KINDS
        && !grep({ @$_ != 2 } $manifest->@{qw(content formats)})
        && !grep { ref ne 'HASH' } map { values %$_ } $manifest->@{qw(properties options)};
}

1;
