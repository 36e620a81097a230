package PVE::Storage::PyBridge::Connection;

# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

# How a connection to a plugin server begins, who may be at the other end and who we are. PyBridge::Client
# makes the calls on it.

use v5.36;

use Socket ();

use PVE::Storage::PyBridge::Codec;

# The server shows life every 5 s during a call; silence for this long means it is dead (D10).
our $SILENCE_SECONDS = 30;

# Of Linux, where EWOULDBLOCK is the same as EAGAIN. Errno.pm, constant.pm and a list of names to import
# would take 2.5 ms where nobody has loaded them yet.
my ($EINTR, $EAGAIN, $SO_PEERCRED) = (4, 11, 17);

=head3 to

    my $connection = to($type, $storeid);

A new connection as a hash: C<socket>, C<pid> (whose it is), C<id> (of its last call), C<hello> (what
must be sent before the first one). Dies with one line that names the storage.

=cut

sub to ($type, $storeid) {
    my ($dir) = ($ENV{PVE_PYBRIDGE_RUN} // '') =~ m|\A(/[^\0\n]+)\z|;
    my $path = ($dir // '/run/pve-pybridge') . "/$type.sock";
    my $what = "storage '$storeid': plugin server for type '$type'";

    my @stat = lstat($path);
    if (!@stat) {
        my $reason = "$path: $!";
        require PVE::Storage::PyBridge::Failure;
        $reason = PVE::Storage::PyBridge::Failure::why_absent($type, $reason);
        die "$what is not running ($reason)\n";
    }
    die "$what: $path is no socket\n" if !-S _;
    die "$what: $path belongs to user $stat[4], not to root\n" if $stat[4] && $stat[4] != $>;

    socket(my $socket, Socket::AF_UNIX, Socket::SOCK_STREAM, 0) or die "$what: no socket: $!\n";
    # Waits while the listening socket has no room; a signal that PVE handles must not end that.
    setsockopt($socket, Socket::SOL_SOCKET, Socket::SO_SNDTIMEO, pack('l!l!', $SILENCE_SECONDS, 0));
    until (connect($socket, Socket::pack_sockaddr_un($path))) {
        next if $! == $EINTR;
        die "$what takes no more callers ($path: $!)\n" if $! == $EAGAIN;
        die "$what is not running ($path: $!)\n";
    }
    my (undef, $uid) = unpack('lll', getsockopt($socket, Socket::SOL_SOCKET, $SO_PEERCRED));
    die "$what: it runs as user $uid, not as root\n" if $uid && $uid != $>;
    setsockopt($socket, Socket::SOL_SOCKET, Socket::SO_RCVTIMEO, pack('l!l!', 0, 100_000));

    return { socket => $socket, pid => $$, id => 0, hello => hello($type) };
}

# Who we are; sent together with the first call.
sub hello ($type) {
    no warnings 'once'; # absent before APIVER 13
    my $known = $PVE::Storage::Plugin::hints_properties // {};
    my ($apiver, $apiage) =
        map { my $sub = PVE::Storage->can($_); $sub ? $sub->() : 0 } qw(APIVER APIAGE);
    return PVE::Storage::PyBridge::Codec::encode([
        'hello',
        {
            wire => PVE::Storage::PyBridge::Codec::WIRE_VERSION,
            type => $type,
            apiver => $apiver + 0,
            apiage => $apiage + 0,
            hints => [sort keys %$known],
            pid => $$ + 0,
            shim => ($PVE::Storage::Custom::PyBridge::VERSION // 0) + 0,
            parts => 1,
            loaded => ($PVE::Storage::Custom::PyBridge::LOADED // 0) + 0,
            command => "$0",
        },
    ]);
}

# The answer to our hello.
sub receive_welcome ($connection) {
    delete $connection->{hello};
    my $message;
    if (sysread($connection->{socket}, my $data, 65536)) {
        ($message, my $size) = PVE::Storage::PyBridge::Codec::decode(\$data);
        $connection->{rest} = substr($data, $size // 0) if !$message || $size < length($data);
    }
    if (!$message) {
        require PVE::Storage::PyBridge::Answer;
        $message = PVE::Storage::PyBridge::Answer::receive($connection, {}, undef);
    }
    my ($kind, undef, $error) = @$message;
    return if $kind eq 'welcome';
    require PVE::Storage::PyBridge::Failure;
    die { message => PVE::Storage::PyBridge::Failure::refusal($kind, $error) };
}

sub silence { return "the plugin server gave no sign of life for $SILENCE_SECONDS s"; }

1;
