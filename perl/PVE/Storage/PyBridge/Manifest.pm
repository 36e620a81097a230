package PVE::Storage::PyBridge::Manifest;

# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

# Reads the manifests: the static facts of each Python plugin. Whatever is wrong with one of them
# is said in one line on STDERR, and only that one is left out (C-008).

use v5.36;

use JSON ();

# The manifest format this shim reads; `manifest` in the file.
use constant VERSION => 1;

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
    return undef if !defined($path);
    my ($clean) = $path =~ m|\A(/[^\0\n]+)\z|;
    return $clean;
}

=head3 read_all

    my @manifests = read_all();

All usable manifests, sorted by file name, each with its C<file> added.

=cut

sub read_all {
    my $dir = directory();
    opendir(my $dh, $dir) or return; # nothing enabled
    my @names = sort grep { /\A[^.].*\.json\z/ } readdir($dh);
    closedir($dh);

    my @found;
    for my $name (@names) {
        my $file = untainted_path("$dir/$name") // next;
        my $manifest = eval { read_one($file) };
        if (my $err = $@) {
            $err = join(' ', split(' ', $err));
            warn "pve-pybridge: manifest $file skipped: $err\n";
            next;
        }
        push @found, $manifest;
    }
    return @found;
}

=head3 read_one

One manifest as a hash; dies with the reason when it can't be used.

=cut

sub read_one ($file) {
    open(my $fh, '<', $file) or die "can't read it: $!\n";
    check_owner($fh);
    my $text = do { local $/ = undef; <$fh> };
    close($fh);

    ($text) = ($text // '') =~ /\A(.*)\z/s; # root wrote it, see check_owner
    my $manifest = eval { JSON::decode_json($text) };
    die "no valid JSON" . ($@ =~ /at character offset (\d+)/ ? " at byte $1" : '') . "\n" if $@;
    check($manifest, $file);
    $manifest->{file} = $file;
    return $manifest;
}

# Only root may say what PVE's root processes load (D3).
sub check_owner ($fh) {
    my ($mode, $uid) = (stat($fh))[2, 4];
    die "it must belong to root, not to user $uid\n" if $uid != 0 && $uid != $>;
    die "others than its owner may write it\n" if $mode & oct('022'); # Fcntl's names take 0.5 ms
    return;
}

sub check ($manifest, $file) {
    die "it holds no object\n" if ref($manifest) ne 'HASH';
    my $version = $manifest->{manifest} // '';
    die "it has no manifest version\n" if $version !~ /\A\d+\z/;
    die "it is of version $version, this shim reads up to " . VERSION . ": update pve-pybridge\n"
        if $version > VERSION;

    my $type = $manifest->{type} // '';
    die "type '$type' is no legal storage type\n" if $type !~ /\A[a-z][a-z0-9-]*[a-z0-9]\z/;
    die "it describes type '$type', so it must be called $type.json\n"
        if $file !~ m|/\Q$type\E\.json\z|;

    for my $key (qw(properties options rules methods)) {
        die "'$key' is missing or no object\n" if ref($manifest->{$key}) ne 'HASH';
    }
    for my $key (qw(content formats names sensitive)) {
        die "'$key' is missing or no list\n" if ref($manifest->{$key}) ne 'ARRAY';
    }
    for my $key (qw(content formats)) {
        die "'$key' must hold two entries\n" if scalar($manifest->{$key}->@*) != 2;
    }
    return;
}

1;
