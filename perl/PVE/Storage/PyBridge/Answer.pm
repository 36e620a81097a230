package PVE::Storage::PyBridge::Answer;

# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

# What comes from a server that isn't the usual answer, whole and at once: long ones and late ones, log
# lines, signs of life, lists in parts, errors. Loaded when the first of these comes, or doesn't.

use v5.36;

use Time::HiRes ();

use PVE::Storage::PyBridge::Codec;
use PVE::Storage::PyBridge::Connection;

my ($EINTR, $EAGAIN) = (4, 11); # of Linux, see PyBridge::Connection

=head3 end_of

    my $answer = end_of($connection, $plan, $id, $last, $more, $ends);

The message that ends a call of one of these numbers; those before it are seen to. C<$more>: C<on_log>.
Dies with a hash, as L<PVE::Storage::PyBridge::Client> expects.

=cut

sub end_of ($connection, $plan, $id, $last, $more, $ends) {
    my $rows; # those that came before the result
    while (1) {
        my $answer = receive($connection, $plan, $ends);
        my ($kind, $number) = @$answer;
        my $ours = $number >= $id && $number <= $last;
        return $rows ? whole($rows, $answer) : $answer if $kind eq 'result' && $ours;
        if ($kind eq 'log') { # of a call after it, too: answers wait for them
            log_line($more, $answer->@[2, 3]); # newer servers may say more
        } elsif ($kind eq 'part' && $ours) {
            within_limit($connection->{bytes});
            push @$rows, $answer->[2]->@*;
        } elsif ($kind eq 'error' && ($ours || $number == 0)) {
            return $answer;
        } elsif ($kind ne 'alive') {
            die { lost => 1, message => "unexpected '$kind' from the plugin server" };
        }
    }
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
        die { lost => 1, late => 1, message => PVE::Storage::PyBridge::Connection::silence() }
            if $now - $heard > $PVE::Storage::PyBridge::Connection::SILENCE_SECONDS;

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

# Never STDOUT: it can be the data channel (C-028).
sub log_line ($more, $level, $line) {
    return $more->{on_log}->($level, $line) if $more->{on_log};
    return PVE::RESTEnvironment::log_warn($line)
        if $level eq 'warn' && defined(&PVE::RESTEnvironment::log_warn);
    utf8::encode($line) if utf8::is_utf8($line);
    print STDERR "$line\n";
    return;
}

=head3 raise

    raise($error, $more);

Dies as the error asks: parameter errors as PVE's own exception (C-021), others as one line.

=cut

sub raise ($error, $more) {
    my $message = words($error);
    push $more->{blockers}->@*, $error->{blockers}->@*
        if $more && $more->{blockers} && ref($error->{blockers}) eq 'ARRAY';
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
