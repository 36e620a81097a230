package PVE::Storage::PyBridge::Client;

# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

# One connection per process and storage type, one call at a time on it. A connection is taken out
# of the pool during a call: whatever interrupts the call (alarm, signal, die) thereby closes it, and
# no later call can read a stale answer (D11). The caller's alarm and signals are left alone (V26).

use v5.36;

use Errno qw(EAGAIN EINTR EWOULDBLOCK);
use Fcntl qw(:mode);
use Socket qw(
    AF_UNIX SOCK_STREAM SOL_SOCKET SO_RCVTIMEO SO_SNDTIMEO MSG_DONTWAIT MSG_NOSIGNAL MSG_PEEK pack_sockaddr_un);
use Time::HiRes qw(ITIMER_REAL);

use PVE::Storage::PyBridge::Codec;
use PVE::Storage::PyBridge::Manifest;

# The server shows life every 5 s during a call; silence for this long means it is dead (D10).
our $SILENCE_SECONDS = 30;
use constant SO_PEERCRED => 17;

my %pool; # type => connection

# What a message holds after its kind: '' a plain value, HASH a map, undef anything.
my %SHAPE = (
    welcome => ['HASH'],
    part => ['', 'ARRAY'],
    result => ['', undef, 'HASH'],
    error => ['', 'HASH'],
    log => ['', '', ''],
    alive => [''],
);

=head3 call

    my ($value, $extra) = call($type, $request);

Sends one call and waits for its answer; dies with the error it got. C<$request>: C<method storeid
scfg args meta>, and C<retry> (safe to repeat), C<deadline> (seconds), C<fd>, C<on_log>.

=cut

sub call ($type, $request) {
    my $limit = $request->{deadline}; # for all of it, a second attempt included
    my $ends = defined($limit) ? Time::HiRes::time() + $limit : undef;
    my ($connection, $fresh) = connection($type, $request->{storeid});
    my $answer = eval { exchange($connection, $request, $ends) };
    if (my $err = $@) {
        # A reused connection may belong to a server that has gone since.
        die failure($err, $request) if !repeatable($err, $request) || ($fresh && !$err->{unsent});
        ($connection) = connection($type, $request->{storeid});
        $answer = eval { exchange($connection, $request, $ends) };
        die failure($@, $request) if $@;
    }
    $pool{$type} = $connection;
    return @$answer if ref($answer) eq 'ARRAY';
    return raise($answer, $request);
}

sub repeatable ($err, $request) {
    return 0 if ref($err) ne 'HASH' || $err->{late};
    return $err->{unsent} || ($err->{lost} && $request->{retry});
}

# A broken connection as one line; whatever else ended the call (alarm, signal) as it came.
sub failure ($err, $request) {
    return $err if ref($err) ne 'HASH';
    my $fate = $err->{lost} && !$request->{retry} ? ', outcome unknown' : '';
    return "storage '$request->{storeid}': $request->{method}: $err->{message}$fate\n";
}

# The pooled connection if it is ours and alive, else a new one.
sub connection ($type, $storeid) {
    my $known = delete $pool{$type};
    return ($known, 0) if $known && $known->{pid} == $$ && idle($known->{socket});
    return (connect_to($type, $storeid), 1);
}

# Nothing to read and not closed: a readable idle connection has lost its server.
sub idle ($socket) {
    my $got = recv($socket, my $byte, 1, MSG_PEEK | MSG_DONTWAIT);
    return !defined($got) && ($! == EAGAIN || $! == EWOULDBLOCK);
}

sub connect_to ($type, $storeid) {
    my $dir = PVE::Storage::PyBridge::Manifest::untainted_path($ENV{PVE_PYBRIDGE_RUN})
        // '/run/pve-pybridge';
    my $path = "$dir/$type.sock";
    my $what = "storage '$storeid': plugin server for type '$type'";

    my @stat = lstat($path)
        or die "$what is not running (" . why_absent($type, "$path: $!") . ")\n";
    die "$what: $path is no socket\n" if !S_ISSOCK($stat[2]);
    die "$what: $path belongs to user $stat[4], not to root\n" if !trusted($stat[4]);

    socket(my $socket, AF_UNIX, SOCK_STREAM, 0) or die "$what: no socket: $!\n";
    # Waits while the listening socket has no room; a signal that PVE handles must not end that.
    setsockopt($socket, SOL_SOCKET, SO_SNDTIMEO, pack('l!l!', $SILENCE_SECONDS, 0));
    until (connect($socket, pack_sockaddr_un($path))) {
        next if $! == EINTR;
        die "$what takes no more callers ($path: $!)\n" if $! == EAGAIN;
        die "$what is not running ($path: $!)\n";
    }
    my (undef, $uid) = unpack('lll', getsockopt($socket, SOL_SOCKET, SO_PEERCRED));
    die "$what: it runs as user $uid, not as root\n" if !trusted($uid);
    setsockopt($socket, SOL_SOCKET, SO_RCVTIMEO, pack('l!l!', 0, 100_000));

    return {
        socket => $socket, pid => $$, type => $type, buffer => '', id => 0,
        hello => hello($type)
    };
}

# Why there is no socket: the usual reason is a removed package, which leaves its manifest.
sub why_absent ($type, $reason) {
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
            loaded => ($PVE::Storage::Custom::PyBridge::LOADED // 0) + 0,
            command => "$0",
        },
    ]);
}

# Returns [value, extra] or the error hash of the answer; dies with a hash when the connection fails:
# unsent (the server can't have seen the call), lost (it may have), late (no use to try again),
# message.
sub exchange ($connection, $request, $ends) {
    my $id = ++$connection->{id};
    my %meta = $request->{meta}->%*;
    my $alarm = Time::HiRes::getitimer(ITIMER_REAL);
    $meta{remaining} = $alarm if $alarm;
    my $frame = PVE::Storage::PyBridge::Codec::encode(
        ['call', $id, $request->@{qw(method storeid scfg args)}, \%meta]
    );

    $connection->{ends} = $ends;
    my $hello = delete $connection->{hello};
    eval { send_all($connection->{socket}, ($hello // '') . $frame) };
    if (my $err = $@) {
        my $unsent = ref($err) && $err->{unsent} && defined($hello);
        eval { receive_welcome($connection, $request) } if $unsent; # maybe it said why it hung up
        die $unsent && ref($@) && !$@->{lost} ? $@ : $err;
    }
    send_fd($connection->{socket}, $request->{fd}) if $meta{fd};
    receive_welcome($connection, $request) if defined($hello);

    my $rows; # those that came before the result
    $connection->{bytes} = 0;
    while (1) {
        my ($kind, $number, @rest) = receive($connection, $request)->@*;
        if ($kind eq 'log' && $number == $id) {
            log_line($request, @rest[0, 1]); # newer servers may say more
        } elsif ($kind eq 'part' && $number == $id) {
            within_limit($connection->{bytes});
            push @$rows, $rest[0]->@*;
        } elsif ($kind eq 'result' && $number == $id) {
            return $rows ? whole($rows, @rest) : [@rest];
        } elsif ($kind eq 'error' && ($number == $id || $number == 0)) {
            return $rest[0];
        } elsif ($kind ne 'alive') {
            die { lost => 1, message => "unexpected '$kind' from the plugin server" };
        }
    }
}

# A list in parts may be as long as one that comes at once.
sub within_limit ($bytes) {
    my $limit = PVE::Storage::PyBridge::Codec::MAX_FRAME;
    die { lost => 1, message => "answer of $bytes bytes exceeds the limit of $limit" }
        if $bytes > $limit;
    return;
}

sub whole ($rows, $last, $extra) {
    die { lost => 1, message => "malformed 'result' from the plugin server" }
        if ref($last) ne 'ARRAY';
    push @$rows, @$last;
    return [$rows, $extra];
}

sub receive_welcome ($connection, $request) {
    my ($kind, $about, $error) = receive($connection, $request)->@*;
    return if $kind eq 'welcome';
    my $message = $kind eq 'error' ? words($error) : "unexpected '$kind'";
    die { message => "the plugin server refused us: $message" };
}

sub send_all ($socket, $data) {
    my $offset = 0;
    while ($offset < length($data)) {
        my $sent = send($socket, $offset ? substr($data, $offset) : $data, MSG_NOSIGNAL);
        if (!defined($sent)) {
            next if $! == EINTR;
            die { late => 1, message => silence() } if $! == EAGAIN;
            # an incomplete frame is never acted upon
            die { unsent => 1, message => "lost the plugin server: $!" };
        }
        $offset += $sent;
    }
    return;
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
sub receive ($connection, $request) {
    my $heard = Time::HiRes::time();
    my $buffer = \$connection->{buffer};
    while (1) {
        my ($message, $size) = PVE::Storage::PyBridge::Codec::decode($buffer);
        if ($message) {
            substr($$buffer, 0, $size, '');
            $connection->{bytes} += $size;
            return well_formed($message);
        }
        # Each time, not only when it is quiet: a call that logs is late like any other.
        my $now = Time::HiRes::time();
        die { lost => 1, late => 1, message => "got timeout after $request->{deadline} s" }
            if defined($connection->{ends}) && $now > $connection->{ends};
        die { lost => 1, late => 1, message => silence() } if $now - $heard > $SILENCE_SECONDS;

        my $want = length($$buffer) > 65536 ? 4 * 1024 * 1024 : 65536;
        my $got = sysread($connection->{socket}, $$buffer, $want, length($$buffer));
        if ($got) {
            $heard = Time::HiRes::time();
            next;
        }
        die { lost => 1, message => 'the plugin server ended during the call' } if defined($got);
        die { lost => 1, message => "lost the plugin server: $!" }
            if $! != EINTR && $! != EAGAIN && $! != EWOULDBLOCK;
    }
}

sub well_formed ($message) {
    my ($kind, @fields) = @$message;
    my $shape = defined($kind) && !ref($kind) ? $SHAPE{$kind} : undef;
    die { lost => 1, message => 'unknown kind of message from the plugin server' } if !$shape;
    for my $i (0 .. $#$shape) {
        next if !defined($shape->[$i]);
        die { lost => 1, message => "malformed '$kind' from the plugin server" }
            if !defined($fields[$i]) || ref($fields[$i]) ne $shape->[$i];
    }
    return $message;
}

# Never STDOUT: it can be the data channel (C-028).
sub log_line ($request, $level, $line) {
    return $request->{on_log}->($level, $line) if $request->{on_log};
    return PVE::RESTEnvironment::log_warn($line)
        if $level eq 'warn' && defined(&PVE::RESTEnvironment::log_warn);
    utf8::encode($line) if utf8::is_utf8($line);
    print STDERR "$line\n";
    return;
}

# Dies as the error asks: parameter errors as PVE's own exception (C-021), others as one line.
sub raise ($error, $request) {
    my $message = words($error);
    push $request->{blockers}->@*, $error->{blockers}->@*
        if $request->{blockers} && ref($error->{blockers}) eq 'ARRAY';
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
