# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Block storages: see ``plugin.py`` for the base class and ``backend.py`` for what to write."""

from .backend import Attachment, BlockVolume, VolumeExists, name_taken
from .plugin import BlockPlugin

__all__ = ["Attachment", "BlockPlugin", "BlockVolume", "VolumeExists", "name_taken"]
