# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0

# `dh --with pve-pybridge`: manifests are made when all files are in place, before dh_installdeb
# takes what lies in /etc for conffiles.

## no critic (RequireExplicitPackage): dh has its words in main

use v5.36;

use Debian::Debhelper::Dh_Lib;

insert_before('dh_installdeb', 'dh_pve-pybridge');

1;
