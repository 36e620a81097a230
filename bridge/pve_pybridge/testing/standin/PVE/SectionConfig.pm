# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

package PVE::SectionConfig;

# Typed sections in a text file, one class per type. Nothing here knows about storages.

use strict;
use warnings;

use Digest::SHA qw(sha1_hex);

use PVE::JSONSchema;

# The state of one kind of configuration, shared by all its classes (contract 1.8).
sub private { die "overwrite me\n" }

sub type { die "overwrite me\n" }
sub properties { return {} }
sub options { return {} }
sub plugindata { return {} }

sub register {
    my ($class) = @_;
    my $pdata = $class->private();
    my $type = $class->type();
    die "duplicate plugin registration (type = $type)\n" if $pdata->{plugins}->{$type};
    $pdata->{plugindata}->{$type} = $class->plugindata();
    $pdata->{plugins}->{$type} = $class;
}

sub lookup {
    my ($class, $type) = @_;
    die "cannot lookup undefined type!\n" if !defined($type);
    return $class->private()->{plugins}->{$type} // die "unknown section type '$type'\n";
}

sub lookup_types {
    my ($class) = @_;
    return [sort keys %{ $class->private()->{plugins} }];
}

# One namespace for the properties of all types. Nobody catches what dies here (T-01).
sub init {
    my ($class) = @_;
    my $pdata = $class->private();
    my ($plugins, $known) = @{$pdata}{qw(plugins propertyList)};
    for my $type (keys %$plugins) {
        my $properties = $plugins->{$type}->properties();
        for my $name (keys %$properties) {
            die "duplicate property '$name'\n" if $known->{$name};
            # Whether a value is required is for options() to say.
            $known->{$name} = { %{ $properties->{$name} }, optional => 1 };
        }
    }
    for my $type (keys %$plugins) {
        my $options = $plugins->{$type}->options();
        for my $name (keys %$options) {
            die "undefined property '$name' in the options of type '$type'\n" if !$known->{$name};
        }
        $pdata->{options}->{$type} = $options;
    }
    $known->{type}->{enum} = [sort keys %$plugins];
}

my sub schema {
    my ($class, $extra) = @_;
    my $properties = { %{ $class->private()->{propertyList} }, %$extra };
    return { type => 'object', properties => $properties, additionalProperties => 0 };
}

sub createSchema {
    my ($class) = @_;
    return schema($class, {});
}

sub updateSchema {
    my ($class) = @_;
    my $text = { type => 'string', optional => 1 };
    return schema($class, { delete => $text, digest => $text, type => $text });
}

# One value as it is in the file. A line with a key only is a true boolean.
sub check_value {
    my ($class, $type, $key, $value, $id, $skip_schema) = @_;
    my $pdata = $class->private();
    return $value if $key eq 'type';
    my $options = $pdata->{options}->{$type} or die "unknown section type '$type'\n";
    die "unexpected property '$key'\n" if !$options->{$key};
    my $schema = $pdata->{propertyList}->{$key};
    my $kind = $schema->{type} // 'string';
    $value = 1 if $kind eq 'boolean' && (!defined($value) || $value eq '');
    die "got undefined value\n" if !defined($value);
    for my $element (ref($value) eq 'ARRAY' ? @$value : $value) {
        die "property '$key' contains a line feed\n" if $element =~ m/[\n\r]/;
    }
    if (!$skip_schema) {
        PVE::JSONSchema::check_prop($value, $schema, '', my $errors = {});
        die "$_\n" for values %$errors;
    }
    $value += 0 if $kind =~ m/^(?:boolean|integer|number)$/;
    return $value;
}

sub decode_value {
    my ($class, $type, $key, $value) = @_;
    return $value;
}

sub encode_value {
    my ($class, $type, $key, $value) = @_;
    return $value;
}

sub check_config {
    my ($class, $id, $config, $create, $skip_schema) = @_;
    my $type = $class->type();
    my $options = $class->private()->{options}->{$type} or die "unknown section type '$type'\n";
    my $settings = { type => $type };
    for my $key (sort keys %$config) {
        next if $key eq 'type' || !defined($config->{$key});
        die "can't change value of fixed parameter '$key'\n"
            if !$create && $options->{$key} && $options->{$key}->{fixed};
        my $value = $class->check_value($type, $key, $config->{$key}, $id, $skip_schema);
        $value = $class->decode_value($type, $key, $value);
        $settings->{$key} = $value if defined($value);
    }
    if ($create) {
        for my $key (sort keys %$options) {
            next if $options->{$key}->{optional} || defined($settings->{$key});
            die "missing value for required option '$key'\n";
        }
    }
    return $settings;
}

sub parse_section_header {
    my ($class, $line) = @_;
    return $line =~ m/^(\S+):\s*(\S+)\s*$/ ? (lc($1), $2, undef, {}) : ();
}

sub format_section_header {
    my ($class, $type, $id) = @_;
    return "$type: $id\n";
}

my sub parse_line {
    my ($class, $type, $id, $config, $line) = @_;
    my ($key, $value) = $line =~ m/^\s+(\S+)(?:\s+(.*?))?\s*$/ or die "ignoring '$line'\n";
    my $plugin = $class->lookup($type);
    my $schema = $class->private()->{propertyList}->{$key};
    if ($schema && ($schema->{type} // '') eq 'array') {
        my $list = $plugin->check_value($type, $key, [$value], $id);
        push @{ $config->{$key} }, @$list;
        return;
    }
    die "duplicate attribute\n" if defined($config->{$key});
    $config->{$key} = $plugin->check_value($type, $key, $value, $id);
}

# Bad lines cost the line, a bad header or an unknown type the section, and a section whose
# check_config dies stays, as undef (contract 0.3, 0.4).
sub parse_config {
    my ($class, $filename, $raw) = @_;
    $raw //= '';
    my ($ids, $order, $count, $number) = ({}, {}, 0, 0);
    my ($type, $id, $config);
    my $finish = sub {
        return if !defined($config);
        $ids->{$id} = eval { $class->lookup($type)->check_config($id, $config, 1, 1) };
        warn "$filename (section '$id') - unable to parse section: $@" if $@;
        $order->{$id} = ++$count;
        $config = undef;
    };
    for my $line (split(/\n/, $raw)) {
        $number++;
        next if $line =~ m/^\s*(?:#.*)?$/;
        my $place = "file $filename line $number";
        if ($line =~ m/^\s/) {
            next if !defined($config);
            eval { parse_line($class, $type, $id, $config, $line) };
            warn "$place (section '$id') - unable to parse value: $@" if $@;
            next;
        }
        $finish->();
        ($type, $id, my $error, my $new) = $class->parse_section_header($line);
        if (!defined($type)) {
            warn "$place - ignore invalid line: $line\n";
        } elsif ($error) {
            chomp $error;
            warn "$place (skip section '$id'): $error\n";
        } elsif (!$class->private()->{plugins}->{$type}) {
            warn "$place (skip section '$id'): unsupported type '$type'\n";
        } elsif (exists($ids->{$id})) {
            warn "$place (skip section '$id'): duplicate section\n";
        } else {
            $config = $new;
        }
    }
    $finish->();
    return { ids => $ids, order => $order, digest => sha1_hex($raw) };
}

my sub value_lines {
    my ($schema, $key, $value) = @_;
    my $kind = $schema->{type} // 'string';
    my @values = ref($value) eq 'ARRAY' ? @$value : ($value);
    die "property '$key' contains a line feed\n" if grep { m/[\n\r]/ } $key, @values;
    return "\t$key " . ($value ? 1 : 0) . "\n" if $kind eq 'boolean';
    return join('', map { "\t$key $_\n" } grep { "$_" ne '' } @values);
}

# Only what was parsed is written (contract 1.7). encode_value is asked of the base class.
sub write_config {
    my ($class, $filename, $cfg) = @_;
    my $pdata = $class->private();
    my ($ids, $order) = @{$cfg}{qw(ids order)};
    my $place = sub { $order->{ $_[0] } // 1 << 30 };
    my $text = '';
    for my $id (sort { $place->($a) <=> $place->($b) || $a cmp $b } keys %$ids) {
        my $section = $ids->{$id}
            or die "unable to write section '$id' of '$filename': it has no type\n";
        my $type = $section->{type};
        my $options = $pdata->{options}->{$type} or die "unknown section type '$type'\n";
        my $rank = sub { $_[0] eq 'disable' ? 0 : $options->{ $_[0] }->{optional} ? 2 : 1 };
        $text .= "\n" if $text ne '';
        $text .= $class->format_section_header($type, $id);
        for my $key (sort keys %$options) {
            next if $options->{$key}->{optional} || defined($section->{$key});
            die "section '$id' - missing value for required option '$key'\n";
        }
        my @keys = grep { $_ ne 'type' && defined($section->{$_}) } keys %$section;
        for my $key (sort { $rank->($a) <=> $rank->($b) || $a cmp $b } @keys) {
            die "section '$id' - unexpected property '$key'\n" if !$options->{$key};
            if ($key eq 'disable') {
                $text .= "\tdisable\n" if $section->{$key};
                next;
            }
            my $value = $class->encode_value($type, $key, $section->{$key});
            $text .= value_lines($pdata->{propertyList}->{$key}, $key, $value);
        }
    }
    return $text;
}

sub assert_if_modified {
    my ($cfg, $digest) = @_;
    die "detected modified configuration - file changed by other user? Try again.\n"
        if defined($digest) && $digest ne $cfg->{digest};
}

1;
