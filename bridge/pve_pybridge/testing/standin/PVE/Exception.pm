# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

package PVE::Exception;

# An error with a code and, for parameters, one message per field (contract V21). As a string it
# is what a command-line user sees.

use strict;
use warnings;

use overload '""' => sub { $_[0]->stringify() }, 'bool' => sub { 1 }, fallback => 1;

use base 'Exporter';
our @EXPORT_OK = qw(raise raise_param_exc raise_perm_exc);

sub new {
    my ($class, $msg, %fields) = @_;
    return bless { %fields, msg => $msg }, $class;
}

sub raise { die __PACKAGE__->new(@_) }

sub raise_param_exc {
    my ($errors, $usage) = @_;
    my %fields = (code => 400, errors => $errors);
    $fields{usage} = $usage if defined($usage);
    die __PACKAGE__->new("Parameter verification failed.\n", %fields);
}

sub raise_perm_exc {
    my ($what) = @_;
    my $msg = 'Permission check failed' . (defined($what) ? " ($what)" : '');
    die __PACKAGE__->new("$msg\n", code => 403);
}

sub is_param_exc {
    my ($self) = @_;
    return ($self->{code} // 0) == 400;
}

sub stringify {
    my ($self) = @_;
    my $text = $self->{code} ? "$self->{code} $self->{msg}" : $self->{msg};
    $text .= "\n" if $text !~ m/\n\z/;
    my $errors = $self->{errors} // {};
    for my $field (sort keys %$errors) {
        chomp(my $line = $errors->{$field});
        $text .= "$field: $line\n";
    }
    return $text;
}

sub PROPAGATE {
    my ($self) = @_;
    return $self;
}

1;
