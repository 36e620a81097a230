# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""``make node-test``: the built packages on a real Debian with a real systemd.

``tree`` caches a debootstrapped system, ``machine`` boots a copy of it in systemd-nspawn,
``packages`` has the built packages and higher versions of them, ``inside`` is what runs in there,
and each ``step_*`` module shows one thing, with its figure.
"""
