package PVE::Storage::Custom::BenchSpawn;

# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

# The plugin of plugin.py with a command for each call that needs the backend, the way peers do it.

use v5.36;

use JSON;

use base qw(PVE::Storage::Custom::BenchNative);

our $COMMAND; # Python and spawn.py

sub type { return 'benchspawn'; }

sub ask ($method, $storeid, $scfg, $arguments) {
    my @call = ('--storage', $storeid, '--config', encode_json($scfg), $method);
    open(my $out, '-|', @$COMMAND, @call, encode_json($arguments)) or die "spawn: $!\n";
    my $answer = decode_json(do { local $/ = undef; <$out> });
    close($out) or die "$method failed\n";
    return $answer->{result};
}

sub check_connection ($class, $storeid, $scfg) {
    return ask('check_connection', $storeid, $scfg, {});
}

sub activate_storage ($class, $storeid, $scfg, $cache) {
    return ask('activate_storage', $storeid, $scfg, {});
}

sub status ($class, $storeid, $scfg, $cache) { return ask('status', $storeid, $scfg, {})->@*; }

sub path ($class, $scfg, $volname, $storeid, $snapname = undef) {
    my ($vtype, undef, $vmid) = $class->parse_volname($volname);
    my $path = ask('path', $storeid, $scfg, { volname => $volname });
    return wantarray ? ($path, $vmid, $vtype) : $path;
}

sub activate_volume ($class, $storeid, $scfg, $volname, $snapname, $cache, $hints = undef) {
    return ask('activate_volume', $storeid, $scfg, { volname => $volname, hints => $hints });
}

sub qemu_blockdev_options ($class, $scfg, $storeid, $volname, $machine_version, $options) {
    return ask('qemu_blockdev_options', $storeid, $scfg, { volname => $volname });
}

1;
