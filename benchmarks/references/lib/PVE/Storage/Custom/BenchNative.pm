package PVE::Storage::Custom::BenchNative;

# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

# The plugin of plugin.py, written in Perl: what its calls cost without a bridge.

use v5.36;

use base qw(PVE::Storage::Plugin);

sub api { return PVE::Storage::APIVER(); }
sub type { return 'benchnative'; }
sub properties { return {}; }

sub options {
    return { map { $_ => { optional => 1 } } qw(content nodes shared disable) };
}

sub plugindata {
    my %content = (images => 1, rootdir => 1);
    my $formats = [{ raw => 1 }, 'raw'];
    return { content => [{ none => 1, %content }, {%content}], format => $formats };
}

sub check_connection ($class, $storeid, $scfg) { return 1; }
sub activate_storage ($class, $storeid, $scfg, $cache) { return; }
sub status ($class, $storeid, $scfg, $cache) { return (2**40, 2**39, 2**39, 1); }

sub parse_volname ($class, $volname) {
    my ($kind, $vmid) = $volname =~ m/\A(vm|base)-([0-9]+)-[^\/\s]+\z/
        or die "unable to parse bench volume name '$volname'\n";
    return ('images', $volname, $vmid, undef, undef, $kind eq 'base', 'raw');
}

sub path ($class, $scfg, $volname, $storeid, $snapname = undef) {
    my ($vtype, undef, $vmid) = $class->parse_volname($volname);
    my $path = "/dev/bench/$volname";
    return wantarray ? ($path, $vmid, $vtype) : $path;
}

sub activate_volume ($class, $storeid, $scfg, $volname, $snapname, $cache, $hints = undef) {
    return;
}

sub qemu_blockdev_options ($class, $scfg, $storeid, $volname, $machine_version, $options) {
    return { driver => 'host_device', filename => "/dev/bench/$volname" };
}

sub volume_qemu_snapshot_method ($class, $storeid, $scfg, $volname) { return 'storage'; }

1;
