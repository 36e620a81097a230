package Contenders;

# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

# What is measured, by whom: C<contenders($what, $run)> gives a sub for each contender of a piece of
# work. A sub gets the number of its call.

use v5.36;

my $HINTS = { 'guest-is-windows' => 1, 'plugin-may-deactivate-volume' => 1 };
my $BRIDGE = 'PVE::Storage::Custom::PyBridge::bench';
my $NATIVE = 'PVE::Storage::Custom::BenchNative';
my $SPAWN = 'PVE::Storage::Custom::BenchSpawn';

my $cfg;

# The configuration, or only one type's part of it.
sub storages ($type = undef) {
    $cfg //= PVE::Storage::config();
    return $cfg if !defined($type);
    my %ids = map { $_ => $cfg->{ids}->{$_} }
        grep { $cfg->{ids}->{$_}->{type} eq $type } keys $cfg->{ids}->%*;
    return { %$cfg, ids => \%ids };
}

# Not loaded before it's needed: the first call of a process is measured, too.
sub floor ($run) {
    require Floor;
    return Floor->new("$run/floor.sock");
}

sub scfg ($storeid) { return storages()->{ids}->{$storeid}; }

# One small call.
sub small ($run) {
    my $cache = {};
    my ($bridge, $native) = (scfg('bridge1'), scfg('native1'));
    my $in_process = sub ($class, $storeid, $scfg) {
        return sub ($i) {
            $class->activate_volume($storeid, $scfg, 'vm-100-disk-0', undef, $cache, $HINTS);
        };
    };
    my $request = { volname => 'vm-100-disk-0', hints => $HINTS };
    return (
        bridge => sub { $in_process->($BRIDGE, 'bridge1', $bridge) },
        native => sub { $in_process->($NATIVE, 'native1', $native) },
        spawn => sub { $in_process->($SPAWN, 'spawn1', $native) },
        floor => sub {
            my $floor = floor($run);
            return sub ($i) { $floor->call('activate_volume', 'bridge1', $bridge, $request); };
        },
        bare => sub {
            require Floor;
            my $socket = Floor->new("$run/echo.sock")->{socket};
            my $bytes = 'x' x 160;
            return sub ($i) {
                syswrite($socket, $bytes);
                sysread($socket, my $answer, 65536);
            };
        },
        inline => sub {
            require Inline::Python;
            Inline::Python::py_eval(
                "def activate_volume(storeid, scfg, volname, snapname, hints):\n return None"
            );
            return sub ($i) {
                Inline::Python::py_call_function(
                    '__main__', 'activate_volume', 'bridge1', $bridge,
                    'vm-100-disk-0', undef, $HINTS
                );
            };
        },
    );
}

# All volumes of a storage; the number of them travels as the guest's.
sub listing ($run, $count) {
    my $bridge = scfg('bridge1');
    my $check = sub ($rows) {
        die "listing: wrong answer\n" if $rows->[-1]->{ctime} != 1_700_000_000 + $count - 1;
        return $rows;
    };
    return (
        bridge => sub {
            return sub ($i) {
                $check->($BRIDGE->list_images('bridge1', $bridge, $count, undef, {}));
            };
        },
        floor => sub {
            my $floor = floor($run);
            return sub ($i) {
                $check->($floor->call('list_images', 'bridge1', $bridge, { vmid => $count }));
            };
        },
        rows => sub {
            return sub ($i) {
                $check->([map { row($_) } 0 .. $count - 1]);
            }
        },
    );
}

# A row of its own strings, as decoded.
sub row ($n) {
    my $vmid = 100 + int($n / 2);
    return {
        volid => "bridge1:vm-$vmid-disk-" . ($n % 2), format => 'raw',
        size => (32 + $n % 7) << 30, vmid => $vmid, ctime => 1_700_000_000 + $n
    };
}

# What PVE asks a storage when it starts a VM with two disks, machine version 10 or later.
sub vm_start ($storeid) {
    my $config = storages();
    my @volids = map { "$storeid:vm-100-disk-$_" } 0, 1;
    return sub ($i) {
        PVE::Storage::activate_volumes($config, \@volids, undef, $HINTS);
        for my $volid (@volids) {
            PVE::Storage::parse_volname($config, $volid) for 1 .. 4;
            my $path = PVE::Storage::path($config, $volid);
            next if !defined(&PVE::Storage::qemu_blockdev_options);
            PVE::Storage::volume_qemu_snapshot_method($config, $volid);
            PVE::Storage::qemu_blockdev_options($config, $volid, '10.0+pve1', { hints => {} });
        }
    };
}

# The storages of one type, as pvestatd looks at them every ten seconds.
sub status ($type) {
    my $config = storages($type);
    return sub ($i) {
        my $info = PVE::Storage::storage_info($config);
        die "status: not all are active\n" if grep { !$_->{active} } values %$info;
    };
}

# Names and rules that are answered without the server, against PVE's own directory storage.
sub static ($name, @arguments) {
    my $bridge = 'PVE::Storage::Custom::PyBridge::pydir';
    my @first = $bridge->$name(@arguments); # puts the method in its stub's place
    my ($ours, $theirs) = map { $_->can($name) } $bridge, 'PVE::Storage::DirPlugin';
    return (
        bridge => sub {
            return sub ($i) { my @answer = $ours->($bridge, @arguments); }
        },
        native => sub {
            return sub ($i) { my @answer = $theirs->('PVE::Storage::DirPlugin', @arguments); };
        },
        parser => sub {
            return sub ($i) {
                my @answer = PVE::Storage::DirPlugin->parse_volname('100/vm-100-disk-0.qcow2');
            };
        },
    );
}

# Names never seen before, as many as the long form asks for; a shim that remembers finds none again.
sub new_names () {
    my @names = map { "$_/vm-$_-disk-0.qcow2" } 1 .. 320_000;
    my $parser = sub ($class) {
        return sub {
            return sub ($i) { my @answer = $class->parse_volname($names[$i % @names]); };
        };
    };
    return (
        bridge => $parser->('PVE::Storage::Custom::PyBridge::pydir'),
        parser => $parser->('PVE::Storage::DirPlugin'),
    );
}

my $VOLUME = '100/vm-100-disk-0.qcow2';
my $DIR = { type => 'dir', path => '/nowhere', content => { images => 1 } };
my %STATIC = (
    parse_volname => [$VOLUME],
    volume_has_feature => [$DIR, 'snapshot', 'bridge1', $VOLUME, undef, 0],
    get_formats => [$DIR, 'bridge1'],
    volume_export_formats => [$DIR, 'bridge1', $VOLUME, undef, undef, 0],
    volume_qemu_snapshot_method => ['bridge1', $DIR, $VOLUME],
    volume_snapshot_needs_fsfreeze => [],
    storage_can_replicate => [$DIR, 'bridge1', 'qcow2'],
);

# Name of the contender => sub that makes its sub.
sub contenders ($what, $run) {
    return small($run) if $what eq 'small';
    return listing($run, $1) if $what =~ /\Alisting-(\d+)\z/;
    return new_names() if $what eq 'new-names';
    return static($1, $STATIC{$1}->@*) if $what =~ /\Astatic-(\w+)\z/;
    my ($make, $by_storage) = $what eq 'vm-start' ? (\&vm_start, 1) : (\&status, 0);
    return map {
        my $who = $_;
        my $argument = $by_storage ? "${who}1" : $who eq 'bridge' ? 'bench' : "bench$who";
        ($who => sub { $make->($argument) });
    } qw(bridge native spawn);
}

1;
