package Floor;

# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

# The least a call with these frames can cost: no dispatch, no checks, no clock. See floor.py.

use v5.36;

use Data::MessagePack;
use Socket;

my $packer = Data::MessagePack->new();

sub new ($class, $path) {
    socket(my $socket, AF_UNIX, SOCK_STREAM, 0) or die "socket: $!\n";
    connect($socket, pack_sockaddr_un($path)) or die "$path: $!\n";
    return bless { socket => $socket, id => 0 }, $class;
}

sub call ($self, @call) {
    my $payload = $packer->pack(['call', ++$self->{id}, @call, {}]);
    syswrite($self->{socket}, pack('N', length($payload)) . $payload);
    my ($buffer, $want) = ('', 65536);
    while (length($buffer) < 4 || length($buffer) < 4 + ($want = unpack('N', $buffer))) {
        sysread($self->{socket}, $buffer, $want, length($buffer)) or die "floor: hung up\n";
    }
    return $packer->unpack(substr($buffer, 4))->[2];
}

1;
