# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""``StoragePlugin``: what a storage plugin is.  Override what your storage can do.

Method names are PVE's; arguments arrive by keyword, typed, sizes in bytes.  A method counts as
implemented when a class below ``StoragePlugin`` defines it; what PVE gets from the others (its own
base method, a clear refusal, a static answer) is a column of the method table.  ``async def``
works everywhere.  Raise ``StorageError`` for what an administrator should read.
"""

from __future__ import annotations

import typing
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Final, TypeVar

from .config import ConfigT, StorageConfig
from .errors import StorageError
from .model import Status, Volume, VolumeName
from .names import BLOCK_NAMES, NamePattern, Rule, parse_volname
from .storage import Storage
from .volume_methods import Answer, VolumeMethods, absent

CONTENT_TYPES: Final = (
    "images",
    "rootdir",
    "vztmpl",
    "iso",
    "backup",
    "snippets",
    "import",
    "none",
)
COPY_ONLY: Final = (Rule(True, {"feature": "copy", "state": ["current", "base"]}),)
"""A volume can be copied by reading it; nothing else is claimed (contract 2.11)."""


class StoragePlugin(VolumeMethods[ConfigT]):
    """Base of all plugins.  One instance serves every storage of its type.

    Class attributes are the static facts PVE gets from the manifest, without asking the server.
    """

    type: ClassVar[str]
    """Storage type in storage.cfg: lower case letters, digits and dashes."""
    content: ClassVar[Sequence[str]] = ("images", "rootdir")
    """Content types the storage can hold; ``none`` is always added."""
    default_content: ClassVar[Sequence[str] | None] = None
    """Content of a section without a content line; default: all of ``content``."""
    formats: ClassVar[Sequence[str]] = ("raw",)
    """Image formats, the default one first: raw qcow2 vmdk subvol."""
    shared: ClassVar[bool] = False
    """Every storage of this type is shared by all nodes (otherwise the admin says so)."""
    names: ClassVar[Sequence[NamePattern]] = BLOCK_NAMES
    """The shapes of volume names."""
    rules: ClassVar[Mapping[str, Sequence[Rule]]] = {
        "volume_has_feature": COPY_ONLY,
        "volume_qemu_snapshot_method": (Rule("storage"),),
    }
    """Answers of static methods, so that they never cross the socket."""
    concurrency: ClassVar[str] = "parallel"
    """``parallel`` | ``per-storage`` | ``serial``: how the plugin may be called."""
    deadlines: ClassVar[Mapping[str, float]] = {}
    """Method → seconds until its caller gets an answer, where the default doesn't fit."""

    @classmethod
    def static_rules(cls) -> Mapping[str, Sequence[Rule]]:
        """``rules``, or what a base class concludes from what a plugin implements."""
        return cls.rules

    @classmethod
    def missing(cls) -> Sequence[str]:
        """What a plugin must still implement; its manifest is refused until then."""
        return [name for name in ("path", "status", "list_images") if not implemented(cls, name)]

    # --- configuration hooks -----------------------------------------------------------------

    def on_add_hook(
        self,
        storage: Storage[ConfigT],
        *,
        scfg: MutableMapping[str, object],
        sensitive: Mapping[str, str],
    ) -> Answer[Mapping[str, object] | None]:
        """Before a storage is added.  Changes to *scfg* are stored in storage.cfg.

        *scfg* holds only what the admin gave, without defaults; declared secrets are stored
        already.  A returned mapping is shown once to the client.  PVE: ``on_add_hook``.
        """
        absent()

    def on_update_hook_full(
        self,
        storage: Storage[ConfigT],
        *,
        update: MutableMapping[str, object],
        delete: Sequence[str] | None,
        sensitive: Mapping[str, str | None],
    ) -> Answer[Mapping[str, object] | None]:
        """Before a storage is changed; *storage.config* is still the old one.

        Changes to *update* are stored; a secret of None is being deleted.  Also called for PVE's
        older ``on_update_hook`` (APIVER ≤ 12), then *delete* is None.  Since APIVER 13.
        """
        absent()

    def on_delete_hook(self, storage: Storage[ConfigT]) -> Answer[None]:
        """Before a storage is removed, or after adding it failed.  Volumes stay."""
        absent()

    # --- names ---------------------------------------------------------------------------------

    def parse_volname(self, volname: str) -> VolumeName:
        """The parts of a volume name, by ``names``.  StorageError when it is none of ours."""
        return parse_volname(self.names, volname)

    def path(self, storage: Storage[ConfigT], *, volname: str, snapname: str | None) -> Answer[str]:
        """Path, device or protocol URI of a volume; stable, and valid for inactive volumes."""
        absent()

    def get_formats(self, storage: Storage[ConfigT]) -> Answer[Sequence[str]]:
        """Formats of this storage, the default one first; without it: ``formats``.  APIVER 12."""
        absent()

    def select(
        self,
        storage: Storage[ConfigT],
        volumes: Iterable[Volume],
        vmid: int | None,
        vollist: Sequence[str] | None,
    ) -> list[Volume]:
        """Of all *volumes*, those that ``list_images`` was asked for: *vollist* decides alone.

        A volume's owner is taken from its name where ``vmid`` is not set; names that aren't PVE's
        are left out (C-046, C-047, C-050).
        """
        found = []
        for volume in volumes:
            try:
                owner = volume.vmid or self.parse_volname(volume.volname).vmid
            except StorageError:
                continue
            if vollist is None and vmid not in (None, owner):
                continue
            if vollist is None or storage.volid(volume.volname) in vollist:
                found.append(volume if volume.vmid else replace(volume, vmid=owner))
        return found

    # --- storage -------------------------------------------------------------------------------

    def check_connection(self, storage: Storage[ConfigT]) -> Answer[bool]:
        """Whether the backend can be reached; asked before every activate_storage."""
        absent()

    def activate_storage(self, storage: Storage[ConfigT]) -> Answer[None]:
        """Make the storage usable here: quick, idempotent, every 10 s by pvestatd (T-19)."""
        absent()

    def deactivate_storage(self, storage: Storage[ConfigT]) -> Answer[None]:
        """Undo activate_storage; PVE itself never calls it."""
        absent()

    def status(self, storage: Storage[ConfigT]) -> Answer[Status | None]:
        """Capacity in bytes; None means inactive.  Every 10 s, within 2 s."""
        absent()

    def get_identity(self, storage: Storage[ConfigT]) -> Answer[str]:
        """Unique ID of the backend, equal on all nodes.  Not activated first.  APIVER 14."""
        absent()


def implemented(plugin: type[StoragePlugin[Any]], method: str) -> bool:
    """Whether *plugin* brings its own *method*."""
    mine = getattr(plugin, method, None)
    return mine is not None and mine is not getattr(StoragePlugin, method, None)


def config_class(plugin: type[StoragePlugin[Any]]) -> type[StorageConfig]:
    """The configuration class a plugin was parametrised with: ``StoragePlugin[MyConfig]``."""
    for cls in plugin.__mro__:
        for base in getattr(cls, "__orig_bases__", ()):
            for arg in typing.get_args(base):
                # a base such as DirectoryPlugin may be left unparametrised
                found = arg.__bound__ if isinstance(arg, TypeVar) else arg
                if isinstance(found, type) and issubclass(found, StorageConfig):
                    return found
    return StorageConfig
