package PVE::Storage::PyBridge::Sending;

# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

# What doesn't leave as the usual small call does: one of which more is said than its arguments, the rest
# of a long frame, one that nobody takes any more, and file descriptors. Loaded with the first of these.

use v5.36;

use Socket ();

use PVE::Storage::PyBridge::Connection;

my ($EINTR, $EAGAIN) = (4, 11); # of Linux, see PyBridge::Connection

# The message with what is said of a call beside its arguments.
sub with_more ($message, $more, $alarm) {
    my %meta = (operation => $message->[6]);
    $meta{remaining} = $alarm if $alarm;
    $meta{fd} = 1 if exists($more->{fd});
    return [$message->@[0 .. 5], \%meta];
}

# What the first send couldn't take. An incomplete frame is never acted upon.
sub rest ($connection, $frame, $sent, $errno) {
    $! = $errno; ## no critic (RequireLocalizedPunctuationVars): of the send before us
    my $offset = $sent // 0;
    while (1) {
        if (!defined($sent)) {
            die { late => 1, message => PVE::Storage::PyBridge::Connection::silence() }
                if $! == $EAGAIN;
            my $err = { unsent => 1, message => "lost the plugin server: $!" };
            die why($connection) // $err if $! != $EINTR;
        }
        return if $offset == length($frame);
        $sent = send($connection->{socket}, substr($frame, $offset), Socket::MSG_NOSIGNAL);
        $offset += $sent // 0;
    }
}

# A server that hung up on our hello may have said why.
sub why ($connection) {
    return undef if !$connection->{hello};
    eval { PVE::Storage::PyBridge::Connection::receive_welcome($connection) };
    return ref($@) && !$@->{lost} ? $@ : undef;
}

# A descriptor follows its call, when the server asks for it by a sign of life or else ends the call.
sub hand_over ($connection, $plan, $handle, $ends) {
    my $fd = ref($handle) || ref(\$handle) eq 'GLOB' ? fileno($handle) : $handle;
    die { message => 'the file handle is not open' } if !defined($fd);
    require PVE::Storage::PyBridge::Answer;
    my $asked = PVE::Storage::PyBridge::Answer::receive($connection, $plan, $ends);
    return $asked if $asked->[0] eq 'error';
    die { lost => 1, message => "unexpected '$asked->[0]' from the plugin server" }
        if $asked->[0] ne 'alive';
    require IO::FDPass;
    local $SIG{PIPE} = 'IGNORE';
    IO::FDPass::send(fileno($connection->{socket}), $fd)
        or die { lost => 1, message => "can't pass the file descriptor: $!" };
    return;
}

1;
