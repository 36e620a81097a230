# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Experiments under load and murder: ``python -m stress [--short] [name …]`` from ``tests/``.

The harness is single-threaded. It holds the listening socket open as systemd does, forks servers
that are imported already; callers are forked by a Perl process that has PVE's modules loaded.
"""
