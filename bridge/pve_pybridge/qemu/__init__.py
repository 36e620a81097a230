# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""QEMU's storage daemon for plugins: exports over NBD that outlive the plugin server.

``daemon`` is what a plugin uses; ``qcow2`` and ``snapshot_view`` stand beside it, ``qmp`` and
``detached`` (a process outside the plugin's cgroup) below.
"""
