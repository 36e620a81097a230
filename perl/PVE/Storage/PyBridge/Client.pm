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

# The server shows life every 5 s during a call; silence for this long means it is dead (D10).
our $SILENCE_SECONDS = 30;

# Of Linux, where EWOULDBLOCK is the same as EAGAIN; see PyBridge::Connection
my ($EINTR, $EAGAIN, $ITIMER_REAL) = (4, 11, 0);

my %pool; # type => connection

# The usual answers of what changes something or checks it, by their number; to take them apart costs
# ten times as much.
my $NOTHING = ['result', 0, undef, {}];
my @NOTHING = map { "\0\0\0\x0b\x94\xa6result" . chr($_) . "\xc0\x80" } 0 .. 110;
my @YES = map { "\0\0\0\x0b\x94\xa6result" . chr($_) . "\x01\x80" } 0 .. 110;

=head3 call

    my ($value, $extra) = call($plan, $message, $more);

Sends one call and waits for its answer; dies with the error it got. C<$plan>: C<type method>, and
C<retry> (safe to repeat), C<deadline> (seconds), C<names> (of its arguments). C<$message>: the C<call>
frame in its short form, in which the number is filled in. C<$more>, if there is more to say: C<fd>,
C<on_log>, C<blockers>, and C<then>: methods to be called after this one with the same storage and
nothing else, each if the one before didn't fail or say no. Then nothing is returned: the answers are in
C<< $more->{answers} >>, messages in this order, the first call's among them; only that one where the
server is older or the connection new.

=cut

sub call ($plan, $message, $more = undef) {
    my $errno = $! + 0; # the caller's (V26): to connect or to wait changes it
    my ($type, $limit) = $plan->@{qw(type deadline)};
    # for all of it, a second attempt included
    my $ends = defined($limit) ? Time::HiRes::time() + $limit : undef;
    my $connection = delete $pool{$type};
    my $fresh = !$connection || $connection->{pid} != $$;
    my $answer = eval {
        $connection = connection($plan, $message) if $fresh;
        exchange($connection, $plan, $message, $more, $ends);
    };
    # A reused connection may belong to a server that has gone since.
    if (!$answer && repeatable($@, $plan, $fresh)) {
        $answer = eval {
            $connection = connection($plan, $message);
            exchange($connection, $plan, $message, $more, $ends);
        };
    }
    $pool{$type} = $connection if $answer;
    return if !$fresh && $answer && $answer == $NOTHING;
    $! = $errno; ## no critic (RequireLocalizedPunctuationVars): local takes 3,500 instructions
    die failure($@, $plan, $message) if !$answer;
    return if $more && $more->{then};
    return $answer->@[2, 3] if $answer->[0] eq 'result';
    require PVE::Storage::PyBridge::Answer;
    return PVE::Storage::PyBridge::Answer::raise($answer->[2], $more);
}

sub connection ($plan, $message) {
    my ($type, $storeid) = ($plan->{type}, $message->[3]);
    return PVE::Storage::PyBridge::Connection::open_for($type, $storeid, $SILENCE_SECONDS);
}

sub repeatable ($err, $plan, $fresh) {
    return 0 if ref($err) ne 'HASH' || $err->{late};
    return $err->{unsent} || ($err->{lost} && $plan->{retry} && !$fresh);
}

# A broken connection as one line; whatever else ended the call (alarm, signal) as it came.
sub failure ($err, $plan, $message) {
    if (ref($err) ne 'HASH') { # maybe while a file was being loaded, see Type.pm
        PVE::Storage::PyBridge::Type::forget_half_loaded();
        return $err;
    }
    my $fate = $err->{lost} && !$plan->{retry} ? ', outcome unknown' : '';
    return "storage '$message->[3]': $plan->{method}: $err->{message}$fate\n";
}

# Returns the message that ends the call, result or error; dies with a hash when the connection
# fails: unsent (the server can't have seen the call), lost (it may have), late (no use to try again),
# message. A server that has gone tells so by refusing what we send.
sub exchange ($connection, $plan, $message, $more, $ends) {
    my $socket = $connection->{socket};
    my $id = $message->[1] = $connection->{id} = $connection->{id} % 100 + 1;
    my $then = $more && $connection->{then} ? $more->{then} : undef;
    my $alarm = Time::HiRes::getitimer($ITIMER_REAL);
    my $frame = PVE::Storage::PyBridge::Codec::encode(
        $alarm || $more || !$connection->{short}
        ? with_more(
            $message, $more // {}, $then, $alarm, !$connection->{short} && $plan->{names}
            )
        : $message,
    );
    my $hello = $connection->{hello};
    $frame = $hello . $frame if $hello;

    my $sent = send($socket, $frame, Socket::MSG_NOSIGNAL);
    send_rest($connection, $frame, $sent, $hello) if !$sent || $sent < length($frame);
    if ($hello) {
        delete $connection->{hello};
        receive_welcome($connection);
    }
    my $end = $more && exists($more->{fd}) ? hand_over($connection, $plan, $more->{fd}, $ends) : 0;
    return $end if $end;

    if (!defined($connection->{rest}) && sysread($socket, my $data, 65536)) {
        if (!$more || !$more->{then}) {
            return $NOTHING if $data eq $NOTHING[$id];
            my ($message, $size) = PVE::Storage::PyBridge::Codec::decode(\$data);
            return $message
                if $message
                && $size == length($data)
                && $message->[0] eq 'result'
                && $message->[1] == $id;
        }
        $connection->{rest} = $data;
    }
    return answer($connection, $plan, $id, $more // {}, $then, $ends);
}

# The message with what is said of a call beside its arguments; in the form that any server reads, if
# there are names to be given to them.
sub with_more ($message, $more, $then, $alarm, $names) {
    my @message = @$message;
    my %meta;
    $meta{operation} = $names ? "$$-$message[6]" : $message[6] if $message[6];
    $meta{remaining} = $alarm if $alarm;
    $meta{then} = $then if $then;
    $meta{fd} = 1 if exists($more->{fd});
    if ($names) {
        my %named;
        @named{@$names} = $message[5]->@*;
        delete @named{ grep { !defined($named{$_}) } @$names };
        @message[4, 5] = (PVE::Storage::PyBridge::Codec::unpacked($message[4]), \%named);
    }
    $message[6] = \%meta;
    return \@message;
}

# The answer of the call; if others may go with it, all of them are left in $more.
sub answer ($connection, $plan, $id, $more, $then, $ends) {
    $connection->{bytes} = 0;
    my $answer = one_answer($connection, $plan, $id, $more, $ends);
    return $answer if !$more->{then};
    my @answers = $answer;
    for (@{ $then // [] }) {
        my ($kind, undef, $value) = $answers[-1]->@*;
        last if $kind ne 'result' || (defined($value) && !$value); # the server's rule, too
        push @answers, one_answer($connection, $plan, ++$id, $more, $ends);
    }
    $connection->{id} = $id;
    $more->{answers} = \@answers;
    return $answer;
}

# Nothing or yes, if that has come.
sub short_answer ($connection, $id) {
    my $rest = $connection->{rest} // return undef;
    my $front = substr($rest, 0, length($NOTHING[$id]));
    my $yes = $front eq $YES[$id];
    return undef if !$yes && $front ne $NOTHING[$id];
    if (length($rest) > length($front)) {
        substr($connection->{rest}, 0, length($front), '');
    } else {
        delete $connection->{rest};
    }
    return ['result', $id, $yes ? 1 : undef, {}];
}

sub one_answer ($connection, $plan, $id, $more, $ends) {
    my $first = short_answer($connection, $id) // receive($connection, $plan, $ends);
    return $first if $first->[0] eq 'result' && $first->[1] == $id;
    require PVE::Storage::PyBridge::Answer;
    my $receive = sub { return receive($connection, $plan, $ends) };
    return PVE::Storage::PyBridge::Answer::end_of($id, $first, $more, $connection, $receive);
}

sub receive_welcome ($connection) {
    my ($kind, $about, $error) = receive($connection, {}, undef)->@*;
    if ($kind eq 'welcome') {
        $connection->@{qw(then short asks)} = $about->@{qw(then short asks)}; # what it can do
        return;
    }
    require PVE::Storage::PyBridge::Answer;
    my $message =
        $kind eq 'error' ? PVE::Storage::PyBridge::Answer::words($error) : "unexpected '$kind'";
    die { message => "the plugin server refused us: $message" };
}

# What the first send couldn't take. An incomplete frame is never acted upon.
sub send_rest ($connection, $frame, $sent, $hello) {
    my $offset = $sent // 0;
    while (1) {
        if (!defined($sent)) {
            die { late => 1, message => silence() } if $! == $EAGAIN;
            my $err = { unsent => 1, message => "lost the plugin server: $!" };
            if ($! != $EINTR) {
                # maybe it said why it hung up
                my $told = $hello ? eval { receive_welcome($connection); undef } // $@ : undef;
                die ref($told) && !$told->{lost} ? $told : $err;
            }
        }
        return if $offset == length($frame);
        $sent = send($connection->{socket}, substr($frame, $offset), Socket::MSG_NOSIGNAL);
        $offset += $sent // 0;
    }
}

sub silence { return "the plugin server gave no sign of life for $SILENCE_SECONDS s"; }

# A descriptor follows its call. A server that reads ahead asks for it by a sign of life, or ends the call.
sub hand_over ($connection, $plan, $fd, $ends) {
    die { message => 'the file handle is not open' } if !defined($fd);
    if ($connection->{asks}) {
        my $asked = receive($connection, $plan, $ends);
        return $asked if $asked->[0] eq 'error';
        die { lost => 1, message => "unexpected '$asked->[0]' from the plugin server" }
            if $asked->[0] ne 'alive';
    }
    require IO::FDPass;
    local $SIG{PIPE} = 'IGNORE';
    IO::FDPass::send(fileno($connection->{socket}), $fd)
        or die { lost => 1, message => "can't pass the file descriptor: $!" };
    return;
}

# The next message. The socket's own timeout of 0.1 s lets us look at the clock (D10).
sub receive ($connection, $plan, $ends) {
    my $data = delete($connection->{rest}) // '';
    my $heard;
    while (1) {
        if (length($data)) {
            my ($message, $size) = PVE::Storage::PyBridge::Codec::decode(\$data);
            if ($message) {
                $connection->{rest} = substr($data, $size) if $size < length($data);
                $connection->{bytes} += $size;
                return $message;
            }
        }
        # Each time, not only when it is quiet: a call that logs is late like any other.
        my $now = Time::HiRes::time();
        $heard //= $now;
        die { lost => 1, late => 1, message => "got timeout after $plan->{deadline} s" }
            if defined($ends) && $now > $ends;
        die { lost => 1, late => 1, message => silence() } if $now - $heard > $SILENCE_SECONDS;

        my $want = length($data) > 65536 ? 4 * 1024 * 1024 : 65536;
        my $got = sysread($connection->{socket}, $data, $want, length($data));
        if ($got) {
            undef $heard;
        } elsif (defined($got)) {
            die { lost => 1, message => 'the plugin server ended during the call' };
        } elsif ($! != $EINTR && $! != $EAGAIN) {
            die { lost => 1, message => "lost the plugin server: $!" };
        }
    }
}

1;
