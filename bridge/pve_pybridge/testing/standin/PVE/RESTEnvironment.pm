# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

package PVE::RESTEnvironment;

use strict;
use warnings;

use base 'Exporter';
our @EXPORT_OK = qw(log_warn);

# In a task this line also makes the task end as "TASK WARNINGS" (contract 7.5); here only the line.
sub log_warn {
    my ($message) = @_;
    chomp $message;
    print STDERR "WARN: $message\n";
}

1;
