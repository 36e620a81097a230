package PVE::Storage::PyBridge::Failure;

# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

# What becomes of a call whose connection failed, and what is said of a server that isn't there. Loaded
# with the first failure.

use v5.36;

use PVE::Storage::PyBridge::Answer;
use PVE::Storage::PyBridge::Client;
use PVE::Storage::PyBridge::Connection;

=head3 mended

    my ($connection, $answer) = mended($err, $fresh, $plan, $message, $more, $ends);

The answer of a second attempt, if the call may be repeated: a reused connection, one that isn't C<$fresh>,
may belong to a server that has gone since. Dies with one line else, or as the attempt did of an alarm or a
signal. C<$err>: as L<PVE::Storage::PyBridge::Client> dies of broken connections; the rest is what it calls
with.

=cut

sub mended ($err, $fresh, $plan, $message, $more, $ends) {
    if (!$err->{late} && ($err->{unsent} || ($err->{lost} && $plan->{retry} && !$fresh))) {
        my ($connection, $answer);
        return ($connection, $answer) if eval {
            $connection = PVE::Storage::PyBridge::Connection::to($plan->{type}, $message->[3]);
            $answer = PVE::Storage::PyBridge::Client::exchange(
                $connection, $plan, $message, $more, $ends
            );
        };
        $err = $@;
        die $err if ref($err) ne 'HASH';
    }
    my $fate = $err->{lost} && !$plan->{retry} ? ', outcome unknown' : '';
    die "storage '$message->[3]': $plan->{method}: $err->{message}$fate\n";
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

# What a server says that doesn't want to talk to us.
sub refusal ($kind, $error) {
    my $words =
        $kind eq 'error' ? PVE::Storage::PyBridge::Answer::words($error) : "unexpected '$kind'";
    return "the plugin server refused us: $words";
}

1;
