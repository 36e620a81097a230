# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

# One storage method as PVE calls it, for `pve-pybridge call --perl`: on the class that PVE has for
# the storage's type, with the arguments in PVE's order, in the context the row asks for.

package main;
use v5.36;
our @ARGS;
## no critic (RequireEndWithOne) # a snippet: it returns the answer

my ($storeid, $method, $row, $given, $file, $activate) = @ARGS;

my $cfg = PVE::Storage::config();
my $scfg = PVE::Storage::storage_config($cfg, $storeid);
my $class = PVE::Storage::Plugin->lookup($scfg->{type});
my $blockers = [];
$0 = 'pve-pybridge call --perl'; ## no critic (RequireLocalizedPunctuationVars)
PVE::Storage::activate_storage($cfg, $storeid) if $activate;

my sub handle {
    my $mode = $method =~ /import/ ? '<' : '>';
    my ($path) = $file =~ m|\A(/.*)\z|s;
    open(my $fh, $mode, $path) or die "can't open $path: $!\n";
    return $fh;
}

my %local = (
    storeid => sub { $storeid },
    scfg => sub { $scfg },
    cache => sub { {} },
    fd => \&handle,
    logfunc => sub {
        sub { print STDERR "$_[1]\n" }
    },
    blockers => sub { $blockers },
);

my @args;
for my $arg ($row->{args}->@*) {
    my ($name, $type, $since) = @$arg;
    next if $since > PVE::Storage::APIVER();
    my $value = $given->{$name};
    if ($type eq 'slurpy') {
        push @args, %{ $value // {} };
    } elsif ($name eq 'scfg' || ($local{$type} && $type ne 'scfg')) {
        push @args, ($local{$type} // $local{scfg})->();
    } elsif ($type eq 'kib') {
        push @args, defined($value) ? $value / 1024 : undef;
    } else {
        push @args, $value;
    }
}

my @answer;
my $done = eval {
    @answer =
        $row->{context} eq 'scalar' ? scalar($class->$method(@args)) : $class->$method(@args);
    # what is left for later PVE would run in a task of its own
    $answer[0] = $answer[0]->() if ref($answer[0]) eq 'CODE';
    1;
};
if (!$done) {
    my $err = $@;
    print STDERR 'blockers: ' . join(', ', @$blockers) . "\n" if @$blockers;
    die $err;
}
return $row->{context} eq 'scalar' ? $answer[0] : [@answer];
