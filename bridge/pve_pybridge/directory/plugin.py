# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""``DirectoryPlugin``: PVE's directory storage, ready to be inherited.

The class is made of layers, each a module that builds on the one before and knows none after it:

    layout → activation → listing → backups → snapshots → images → transfer → plugin

A plugin that keeps its data in a directory overrides what it does differently, calling ``super()``
for the rest: ``activate_storage`` to mount something first, ``status`` for a quota, and so on.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..storage import Storage
from .config import DirectoryConfigT
from .transfer import Transfer


class DirectoryPlugin(Transfer[DirectoryConfigT]):
    """A storage in PVE's directory layout: images, containers, ISO files, templates, backups."""

    def get_import_metadata(
        self, storage: Storage[DirectoryConfigT], volname: str
    ) -> Mapping[str, object]:
        """What a guest made from an OVF file or OVA archive would be."""
        from . import guest_import  # noqa: PLC0415  5 ms for its XML parser

        volume = self.parse_volname(volname)
        return guest_import.metadata(storage, volname, volume, self.path(storage, volname))
