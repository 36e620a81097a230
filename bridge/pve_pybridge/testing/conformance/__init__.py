# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""The conformance suite: does a plugin keep what PVE's storage contract asks of it?

Each statement of the contract's checklist is one function that uses the plugin as PVE does: through
the real shim under ``perl -T``, the socket and a server process of the plugin.  Command
(``pve-pybridge check``) and pytest plugin are two ways to run the same engine:

    statements → outcome → node → subject → checks → catalogue → engine → report
"""
