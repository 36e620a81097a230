package PVE::Storage::PyBridge::Connection;

# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

# How a connection to a plugin server begins: who may be at the other end, who we are, and why there
# is none. PyBridge::Client makes the calls on it.

use v5.36;

use Socket ();

use PVE::Storage::PyBridge::Codec;

# Of Linux. Errno.pm, constant.pm and a list of names to import would take 2.5 ms where nobody has
# loaded them yet.
my ($EINTR, $EAGAIN, $SO_PEERCRED) = (4, 11, 17);

=head3 open_for

    my $connection = open_for($type, $storeid, $seconds);

A new connection as a hash: C<socket>, C<pid> (whose it is), C<id> (of its last call), C<hello> (what
must be sent before the first one). Dies with one line that names the storage.

=cut

sub open_for ($type, $storeid, $seconds) {
    my ($dir) = ($ENV{PVE_PYBRIDGE_RUN} // '') =~ m|\A(/[^\0\n]+)\z|;
    my $path = ($dir // '/run/pve-pybridge') . "/$type.sock";
    my $what = "storage '$storeid': plugin server for type '$type'";

    my @stat = lstat($path)
        or die "$what is not running (" . why_absent($type, "$path: $!") . ")\n";
    die "$what: $path is no socket\n" if !-S _;
    die "$what: $path belongs to user $stat[4], not to root\n" if !trusted($stat[4]);

    socket(my $socket, Socket::AF_UNIX, Socket::SOCK_STREAM, 0) or die "$what: no socket: $!\n";
    # Waits while the listening socket has no room; a signal that PVE handles must not end that.
    setsockopt($socket, Socket::SOL_SOCKET, Socket::SO_SNDTIMEO, pack('l!l!', $seconds, 0));
    until (connect($socket, Socket::pack_sockaddr_un($path))) {
        next if $! == $EINTR;
        die "$what takes no more callers ($path: $!)\n" if $! == $EAGAIN;
        die "$what is not running ($path: $!)\n";
    }
    my (undef, $uid) = unpack('lll', getsockopt($socket, Socket::SOL_SOCKET, $SO_PEERCRED));
    die "$what: it runs as user $uid, not as root\n" if !trusted($uid);
    setsockopt($socket, Socket::SOL_SOCKET, Socket::SO_RCVTIMEO, pack('l!l!', 0, 100_000));

    return { socket => $socket, pid => $$, id => 0, hello => hello($type) };
}

# Why there is no socket: the usual reason is a removed package, which leaves its manifest.
sub why_absent ($type, $reason) {
    require PVE::Storage::PyBridge::Manifest;
    my $dir = PVE::Storage::PyBridge::Manifest::directory();
    my $manifest = eval { PVE::Storage::PyBridge::Manifest::read_one("$dir/$type.json") } // {};
    my $plugin = $manifest->{plugin} // '';
    return $reason if $plugin !~ m|\A/| || -e $plugin;
    return "$plugin is gone: install its package again";
}

sub trusted ($uid) { return $uid == 0 || $uid == $>; }

# Who we are; sent together with the first call.
sub hello ($type) {
    no warnings 'once'; # absent before APIVER 13
    my $known = $PVE::Storage::Plugin::hints_properties // {};
    my $host = sub ($name) { my $sub = PVE::Storage->can($name); return $sub ? $sub->() : 0; };
    return PVE::Storage::PyBridge::Codec::encode([
        'hello',
        {
            wire => PVE::Storage::PyBridge::Codec::WIRE_VERSION,
            type => $type,
            apiver => $host->('APIVER') + 0,
            apiage => $host->('APIAGE') + 0,
            hints => [sort keys %$known],
            pid => $$ + 0,
            shim => ($PVE::Storage::Custom::PyBridge::VERSION // 0) + 0,
            parts => 1,
            waits => 1,
            loaded => ($PVE::Storage::Custom::PyBridge::LOADED // 0) + 0,
            command => "$0",
        },
    ]);
}

1;
