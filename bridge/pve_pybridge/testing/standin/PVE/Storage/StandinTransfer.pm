# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

# PVE::Storage's functions that move a volume as a stream. No lock and no activation here
# (contract 7.6): importing activates for itself.

package PVE::Storage; ## no critic (RequireFilenameMatchesPackage)

use strict;
use warnings;

sub volume_export {
    my ($cfg, $fh, $volid, $format, $snapshot, $base_snapshot, $with_snapshots) = @_;
    my ($plugin, $scfg, $storeid, $volname) = lookup_volume($cfg, $volid);
    $plugin->volume_export(
        $scfg, $storeid, $fh, $volname, $format, $snapshot, $base_snapshot, $with_snapshots,
    );
    return;
}

# The plugin answers with the full volume ID, or undef for the requested one (T-07).
sub volume_import {
    my ($cfg, $fh, $volid, $format, $snapshot, $base_snapshot, $with_snapshots, $allow_rename) = @_;
    my ($plugin, $scfg, $storeid, $volname) = lookup_volume($cfg, $volid);
    my $new = $plugin->volume_import(
        $scfg, $storeid, $fh, $volname, $format, $snapshot, $base_snapshot, $with_snapshots,
        $allow_rename,
    );
    return $new // $volid;
}

# Lists: an undef in one would be a format (contract 2.9).
sub volume_export_formats {
    my ($cfg, $volid, @snapshots) = @_;
    my ($plugin, $scfg, $storeid, $volname) = lookup_volume($cfg, $volid);
    return $plugin->volume_export_formats($scfg, $storeid, $volname, @snapshots[0 .. 2]);
}

sub volume_import_formats {
    my ($cfg, $volid, @snapshots) = @_;
    my ($plugin, $scfg, $storeid, $volname) = lookup_volume($cfg, $volid);
    return $plugin->volume_import_formats($scfg, $storeid, $volname, @snapshots[0 .. 2]);
}

# In the exporter's order of preference.
sub volume_transfer_formats {
    my ($cfg, $src_volid, $dst_volid, @snapshots) = @_;
    my @exported = volume_export_formats($cfg, $src_volid, @snapshots);
    my @imported = volume_import_formats($cfg, $dst_volid, @snapshots);
    return grep {
        my $format = $_;
        grep { $_ eq $format } @imported
    } @exported;
}

1;
