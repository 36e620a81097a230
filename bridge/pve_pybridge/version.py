# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""The release, said once."""

__version__ = "0.1.0"

SHIM_VERSION = 1
"""The shim this release goes with; it changes with the Perl side only."""
