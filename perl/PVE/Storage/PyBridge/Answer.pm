package PVE::Storage::PyBridge::Answer;

# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

# What a server sends besides a plain answer: log lines, signs of life, lists in parts, errors. Loaded
# when the first of these comes.

use v5.36;

use PVE::Storage::PyBridge::Codec;
use PVE::Storage::PyBridge::Connection;

=head3 end_of

    my $answer = end_of($connection, $plan, $id, $last, $more, $ends, $message);

The message that ends a call of one of these numbers, by way of C<$message> and of those that come after it.
C<$more>: C<on_log>. Dies with a hash, as L<PVE::Storage::PyBridge::Client> expects.

=cut

sub end_of ($connection, $plan, $id, $last, $more, $ends, $answer) {
    my $rows; # those that came before the result
    while (1) {
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
        $answer = PVE::Storage::PyBridge::Connection::receive($connection, $plan, $ends);
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
