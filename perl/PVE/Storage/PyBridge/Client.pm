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

my ($EINTR, $EAGAIN) = (4, 11); # of Linux, where EWOULDBLOCK is the same; see PyBridge::Connection

my %pool; # type => connection

=head3 call

    my ($value, $extra) = call($plan, $message, $more);

Sends one call and waits for its answer; dies with the error it got. C<$plan>: C<type method>, and
C<retry> (safe to repeat), C<deadline> (seconds). C<$message>: the C<call> frame, in which the number
is filled in. C<$more>: C<fd>, C<on_log>, C<blockers>, and C<then>: methods to be called after this
one with the same storage and nothing else, each if the one before didn't fail or say no. Their
answers are in C<< $more->{answers} >>, messages in this order, the first call's among them; only that
one where the server is older or the connection new.

=cut

sub call ($plan, $message, $more) {
    my $limit = $plan->{deadline}; # for all of it, a second attempt included
    my $ends = defined($limit) ? Time::HiRes::time() + $limit : undef;
    my $type = $plan->{type};
    my $connection = delete $pool{$type};
    my $fresh = !$connection || $connection->{pid} != $$ || !idle($connection->{socket});
    $connection = connection($plan, $message) if $fresh;
    my $answer = eval { exchange($connection, $plan, $message, $more, $ends) };
    if (!$answer) {
        my $err = $@;
        # A reused connection may belong to a server that has gone since.
        die failure($err, $plan, $message)
            if !repeatable($err, $plan) || ($fresh && !$err->{unsent});
        $connection = connection($plan, $message);
        $answer = eval { exchange($connection, $plan, $message, $more, $ends) }
            // die failure($@, $plan, $message);
    }
    $pool{$type} = $connection;
    return $answer->@[2, 3] if $answer->[0] eq 'result';
    return raise($answer->[2], $more);
}

# What a message that ends a call says; dies as an error asks.
sub value_of ($answer) {
    return $answer->[0] eq 'result' ? $answer->[2] : raise($answer->[2], {});
}

sub connection ($plan, $message) {
    my ($type, $storeid) = ($plan->{type}, $message->[3]);
    return PVE::Storage::PyBridge::Connection::open_for($type, $storeid, $SILENCE_SECONDS);
}

sub repeatable ($err, $plan) {
    return 0 if ref($err) ne 'HASH' || $err->{late};
    return $err->{unsent} || ($err->{lost} && $plan->{retry});
}

# A broken connection as one line; whatever else ended the call (alarm, signal) as it came.
sub failure ($err, $plan, $message) {
    return $err if ref($err) ne 'HASH';
    my $fate = $err->{lost} && !$plan->{retry} ? ', outcome unknown' : '';
    return "storage '$message->[3]': $plan->{method}: $err->{message}$fate\n";
}

# Nothing to read and not closed: a readable idle connection has lost its server.
sub idle ($socket) {
    my $got = recv($socket, my $byte, 1, Socket::MSG_PEEK | Socket::MSG_DONTWAIT);
    return !defined($got) && $! == $EAGAIN;
}

# Returns the message that ends the call, result or error; dies with a hash when the connection
# fails: unsent (the server can't have seen the call), lost (it may have), late (no use to try again),
# message.
sub exchange ($connection, $plan, $message, $more, $ends) {
    my ($socket, $id) = ($connection->{socket}, ++$connection->{id});
    $message->[1] = $id;
    my $alarm = Time::HiRes::getitimer(Time::HiRes::ITIMER_REAL());
    $message->[6]->{remaining} = $alarm if $alarm;
    my $then = $connection->{then} ? $more->{then} : undef;
    $message->[6]->{then} = $then if $then;
    my $frame = PVE::Storage::PyBridge::Codec::encode($message);
    my $hello = delete $connection->{hello};
    $frame = $hello . $frame if $hello;

    my $sent = send($socket, $frame, Socket::MSG_NOSIGNAL);
    send_rest($connection, $frame, $sent, $hello) if !$sent || $sent < length($frame);
    send_fd($socket, $more->{fd}) if exists($more->{fd});
    receive_welcome($connection) if $hello;

    $connection->{bytes} = 0;
    my $answer = receive($connection, $plan, $ends);
    $answer = end_of($id, $answer, $connection, $plan, $more, $ends)
        if $answer->[0] ne 'result' || $answer->[1] != $id;
    return $answer if !$more->{then};
    $more->{answers} = [$answer];
    for (@{ $then // [] }) {
        my ($kind, undef, $value) = $more->{answers}->[-1]->@*;
        last if $kind ne 'result' || (defined($value) && !$value); # the server's rule, too
        my $next = receive($connection, $plan, $ends);
        push $more->{answers}->@*, end_of(++$id, $next, $connection, $plan, $more, $ends);
    }
    $connection->{id} = $id;
    return $answer;
}

# The message that ends the call of this number, by way of those that come before it.
sub end_of ($id, $answer, $connection, $plan, $more, $ends) {
    my $rows; # those that came before the result
    while (1) {
        my ($kind, $number) = @$answer;
        return $rows ? whole($rows, $answer) : $answer if $kind eq 'result' && $number == $id;
        if ($kind eq 'log' && $number >= $id) { # or of a call after it: answers wait for them
            log_line($more, $answer->@[2, 3]); # newer servers may say more
        } elsif ($kind eq 'part' && $number == $id) {
            within_limit($connection->{bytes});
            push @$rows, $answer->[2]->@*;
        } elsif ($kind eq 'error' && ($number == $id || $number == 0)) {
            return $answer;
        } elsif ($kind ne 'alive') {
            die { lost => 1, message => "unexpected '$kind' from the plugin server" };
        }
        $answer = receive($connection, $plan, $ends);
    }
}

# A list in parts may be as long as one that comes at once.
sub within_limit ($bytes) {
    my $limit = $PVE::Storage::PyBridge::Codec::MAX_FRAME;
    die { lost => 1, message => "answer of $bytes bytes exceeds the limit of $limit" }
        if $bytes > $limit;
    return;
}

sub whole ($rows, $answer) {
    my ($kind, $number, $last, $extra) = @$answer;
    die { lost => 1, message => "malformed 'result' from the plugin server" }
        if ref($last) ne 'ARRAY';
    push @$rows, @$last;
    return [$kind, $number, $rows, $extra];
}

sub receive_welcome ($connection) {
    my ($kind, $about, $error) = receive($connection, {}, undef)->@*;
    if ($kind eq 'welcome') {
        $connection->{then} = $about->{then}; # whether it takes several calls at once
        return;
    }
    my $message = $kind eq 'error' ? words($error) : "unexpected '$kind'";
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

sub send_fd ($socket, $fd) {
    die { message => 'the file handle is not open' } if !defined($fd);
    require IO::FDPass;
    local $SIG{PIPE} = 'IGNORE';
    IO::FDPass::send(fileno($socket), $fd)
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

# Never STDOUT: it can be the data channel (C-028).
sub log_line ($more, $level, $line) {
    return $more->{on_log}->($level, $line) if $more->{on_log};
    return PVE::RESTEnvironment::log_warn($line)
        if $level eq 'warn' && defined(&PVE::RESTEnvironment::log_warn);
    utf8::encode($line) if utf8::is_utf8($line);
    print STDERR "$line\n";
    return;
}

# Dies as the error asks: parameter errors as PVE's own exception (C-021), others as one line.
sub raise ($error, $more) {
    my $message = words($error);
    push $more->{blockers}->@*, $error->{blockers}->@*
        if $more->{blockers} && ref($error->{blockers}) eq 'ARRAY';
    if (ref($error->{errors}) eq 'HASH' && eval { require PVE::Exception; 1 }) {
        PVE::Exception::raise_param_exc($error->{errors});
    }
    die "$message\n";
}

sub words ($error) {
    my $message = $error->{message};
    return defined($message) && !ref($message) ? $message : 'unknown error';
}

1;
