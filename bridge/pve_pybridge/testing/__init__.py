# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""The testing kit: a private PVE for plugins, the stand-in for PVE, and inline Perl."""

from .sandbox import Sandbox, perl_missing

__all__ = ["Sandbox", "perl_missing"]
