package PVE::Storage::PyBridge::Client;

# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

# One connection per process and storage type, one call at a time on it. A connection is taken out
# of the pool during a call: whatever interrupts the call (alarm, signal, die) thereby closes it, and
# no later call can read a stale answer (D11). The caller's alarm and signals are left alone (V26).

use v5.36;

use Socket ();
use Time::HiRes (); # a list of names to import would triple what loading it costs

use PVE::Storage::PyBridge::Codec;
use PVE::Storage::PyBridge::Connection;

my $ITIMER_REAL = 0; # of Linux

my %pool; # type => connection

# The usual answer of what changes something, by the call's number; to take it apart costs ten times as
# much.
my $NOTHING = ['result', 0, undef, {}];
my @nothing;

=head3 call

    my ($value, $extra) = call($plan, $message, $more);

Sends one call and waits for its answer; dies with the error it got. C<$plan>: C<type method>, and
C<retry> (safe to repeat), C<deadline> (seconds). C<$message>: the C<call> frame, in which the number is
filled in. C<$more>, if there is more to say: C<fd>, C<on_log>, C<blockers>. Calls in a row are made by a plan
of L<PVE::Storage::PyBridge::Sequence>.

=cut

sub call ($plan, $message, $more = undef) {
    my $errno = $! + 0; # the caller's (V26): to connect or to wait changes it
    my ($type, $limit) = $plan->@{qw(type deadline)};
    # for all of it, a second attempt included
    my $ends = defined($limit) ? Time::HiRes::time() + $limit : undef;
    my $connection = delete $pool{$type};
    my $fresh = !$connection || $connection->{pid} != $$;
    my $answer = eval {
        $connection = PVE::Storage::PyBridge::Connection::to($type, $message->[3]) if $fresh;
        exchange($connection, $plan, $message, $more, $ends);
    };
    if (!$answer && ref($@) eq 'HASH') { # a broken connection, not an alarm or a signal
        my @failed = ($@, $fresh, $plan, $message, $more, $ends);
        ($connection, $answer) = eval {
            require PVE::Storage::PyBridge::Failure;
            PVE::Storage::PyBridge::Failure::mended(@failed);
        };
        $fresh = 1;
    }
    $pool{$type} = $connection if $answer;
    return if !$fresh && $answer && $answer == $NOTHING;
    $! = $errno; ## no critic (RequireLocalizedPunctuationVars): local takes 3,500 instructions
    if (!$answer) {
        my $err = $@;
        PVE::Storage::PyBridge::Type::forget_half_loaded(); # a signal may have come at any point
        die $err;
    }
    return $answer->@[2, 3] if $answer->[0] eq 'result';
    require PVE::Storage::PyBridge::Answer;
    return PVE::Storage::PyBridge::Answer::raise($answer->[2], $more);
}

# Returns the message that ends the call, result or error; dies with a hash when the connection
# fails: unsent (the server can't have seen the call), lost (it may have), late (no use to try again),
# message. A server that has gone tells so by refusing what we send.
sub exchange ($connection, $plan, $message, $more, $ends) {
    my $socket = $connection->{socket};
    my $id = $message->[1] = $connection->{id} % 100 + 1;
    # of the answers; a row's usual answer is that of the last call
    my $last = $connection->{id} = $id + ($plan->{calls} // 1) - 1;
    my $alarm = Time::HiRes::getitimer($ITIMER_REAL);
    if ($alarm || $more) {
        require PVE::Storage::PyBridge::Sending;
        $message = PVE::Storage::PyBridge::Sending::with_more($message, $more // {}, $alarm);
    }
    my $frame = PVE::Storage::PyBridge::Codec::encode($message);
    my $hello = $connection->{hello};
    $frame = $hello . $frame if $hello;

    my $sent = send($socket, $frame, Socket::MSG_NOSIGNAL);
    if (!$sent || $sent < length($frame)) {
        my $errno = $! + 0;
        require PVE::Storage::PyBridge::Sending;
        PVE::Storage::PyBridge::Sending::rest($connection, $frame, $sent, $errno);
    }
    PVE::Storage::PyBridge::Connection::receive_welcome($connection) if $hello;
    if ($more && exists($more->{fd})) {
        require PVE::Storage::PyBridge::Sending;
        my $end =
            PVE::Storage::PyBridge::Sending::hand_over($connection, $plan, $more->{fd}, $ends);
        return $end if $end; # before it came to that
    }

    my $data = delete $connection->{rest};
    if (defined($data) || sysread($socket, $data, 65536)) {
        return $NOTHING
            if $data eq ($nothing[$last] //= "\0\0\0\x0b\x94\xa6result" . chr($last) . "\xc0\x80");
        my ($message, $size) = PVE::Storage::PyBridge::Codec::decode(\$data);
        return $message
            if $message
            && $size == length($data)
            && $message->[0] eq 'result'
            && $message->[1] == $last;
        $connection->{rest} = $data;
    }
    require PVE::Storage::PyBridge::Answer;
    $connection->{bytes} = 0;
    return $plan->{read}->($connection, $plan, $id, $last, $ends) if $plan->{read};
    return PVE::Storage::PyBridge::Answer::end_of(
        $connection, $plan, $id, $last, $more // {}, $ends
    );
}

1;
