# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""The directory storage: a plugin that is complete, and a base for others."""

from .config import DirectoryConfig
from .plugin import DirectoryPlugin

__all__ = ["DirectoryConfig", "DirectoryPlugin"]
