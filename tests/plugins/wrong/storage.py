# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Mistakes about the storage as a whole: status, configuration, secrets, identity."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pve_pybridge import BlockPlugin, Status, StorageConfig, StorageError, option
from pve_pybridge.paths import etc_pve

from . import caught_by
from .vault import Store, Vault, VaultConfig

GONE = {"folder": "/nonexistent"}
TOKEN = {"token": "s3cret-t0ken"}


class Figures(Vault):
    """Something to derive from: one place to change the figures."""

    def status(self, storage: Store) -> Status | None:
        found = super().status(storage)
        return found and self.changed(found)

    def changed(self, status: Status) -> Any:
        return status


@caught_by("C-038")
class StatusInKib(Figures):
    """Reports space in KiB."""

    def changed(self, status: Status) -> Status:
        return Status(status.total >> 10, status.avail >> 10, status.used >> 10)


@caught_by("C-038")
class MoreFreeThanThere(Figures):
    """Reports more space as available than there is: thin provisioning, counted twice."""

    def changed(self, status: Status) -> Status:
        return replace(status, avail=2 * status.total)


@caught_by("C-038")
class MoreUsedThanThere(Figures):
    """Reports what guests were promised as used: more than there is."""

    def changed(self, status: Status) -> Status:
        return replace(status, used=3 * status.total)


@caught_by("C-018")
class StatusIsATuple(Figures):
    """Returns a tuple, in the order of df."""

    def changed(self, status: Status) -> Any:
        return status.total, status.used, status.avail


@caught_by("C-037")
class StatusHangs(Figures):
    """Computes the figures by a walk over all data: half a minute."""

    def changed(self, status: Status) -> Status:
        time.sleep(30)
        return status


@caught_by("C-035")
class RescansEachTime(Vault):
    """Rescans the bus with every activation of the storage, which comes every ten seconds."""

    def activate_storage(self, storage: Store) -> None:
        super().activate_storage(storage)
        time.sleep(1.2)


@caught_by("C-035")
class ActivatesOnce(Vault):
    """Fails when the storage is active already."""

    def activate_storage(self, storage: Store) -> None:
        mark = Path(storage.config.folder, ".active")
        if mark.exists() and storage.storeid == "check" and not mark.read_text():
            raise StorageError("already logged in")
        mark.write_text("" if mark.exists() else "first")


@caught_by("C-036", unreachable=GONE)
class ConnectionCheckDies(Vault):
    """Dies when the backend can't be reached, where False is asked for."""

    def check_connection(self, storage: Store) -> bool:
        list(Path(storage.config.folder).iterdir())
        return True


@caught_by("C-036", unreachable=GONE)
class AlwaysConnected(Vault):
    """Says that the backend is there without asking it."""

    def check_connection(self, storage: Store) -> bool:
        return True


@caught_by("C-039")
class RemembersActivation(Vault):
    """Wants its process to have activated the storage before a volume can be deactivated."""

    def activate_storage(self, storage: Store) -> None:
        super().activate_storage(storage)
        self.session = "a login"

    def deactivate_volume(self, storage: Store, volname: str, snapname: str | None = None) -> None:
        storage.log(self.session)
        super().deactivate_volume(storage, volname, snapname)


@caught_by("C-041")
class IdentityOfTheProcess(Vault):
    """Makes up an identity in each process."""

    identity = None

    def get_identity(self, storage: Store) -> str:
        self.identity = self.identity or str(uuid.uuid4())
        return self.identity


@caught_by("C-041")
class IdentityOfTheConfiguration(Vault):
    """Takes the storage ID as the backend's identity."""

    def get_identity(self, storage: Store) -> str:
        return f"vault-{storage.storeid}"


@caught_by("C-014")
class FirstConfigurationForAll(Vault):
    """Keeps the configuration of the first call for all storages."""

    config: VaultConfig | None = None

    def file(self, storage: Store, name: str, snapname: str | None = None) -> Path:
        self.config = self.config or storage.config
        return super().file(replace_config(storage, self.config), name, snapname)

    def volumes(self, storage: Store) -> Any:
        self.config = self.config or storage.config
        return super().volumes(replace_config(storage, self.config))


def replace_config(storage: Store, config: VaultConfig) -> Store:
    return Store(storage.storeid, storage.type, config, storage.scfg, storage.call)


@caught_by("C-098", config=TOKEN)
class LogsTheSecret(Vault):
    """Logs its request, headers and all."""

    def activate_storage(self, storage: Store) -> None:
        super().activate_storage(storage)
        token = storage.secret("token")
        storage.log("GET /volumes, Authorization: Bearer " + (token or ""))


@caught_by("C-098", config=TOKEN)
class SecretInTheCommandLine(Vault):
    """Passes its secret to a command as an argument, where every user of the node sees it."""

    def activate_storage(self, storage: Store) -> None:
        super().activate_storage(storage)
        storage.run(["true", "--token=" + (storage.secret("token") or "")])


@caught_by("C-098", config=TOKEN)
class SecretIntoTheConfiguration(Vault):
    """Copies the secret into storage.cfg, which every user of the cluster may read."""

    def on_add_hook(
        self, storage: Store, scfg: MutableMapping[str, object], sensitive: Mapping[str, str]
    ) -> None:
        if "vault-token" in sensitive:
            scfg["vault-token"] = sensitive["vault-token"]


@caught_by("C-099", config=TOKEN)
class WantsTheSecretEachTime(Vault):
    """Wants the secret with every change of the storage."""

    def on_update_hook_full(
        self,
        storage: Store,
        update: MutableMapping[str, object],
        delete: Any,
        sensitive: Mapping[str, str | None],
    ) -> None:
        storage.log("token of", len(sensitive["vault-token"] or ""))  # type: ignore[arg-type]


@caught_by("C-096")
class WantsContentWhenAdded(Vault):
    """Reads the content of a storage that is being added, where there is none yet."""

    def on_add_hook(
        self, storage: Store, scfg: MutableMapping[str, object], sensitive: Mapping[str, str]
    ) -> None:
        if "images" not in scfg["content"]:  # type: ignore[operator]
            raise StorageError("this storage is for images")


@caught_by("C-097", unreachable=GONE)
class FailedAddLeavesAFile(Vault):
    """Stores a certificate when a storage is added, and keeps it when that fails."""

    def on_add_hook(
        self, storage: Store, scfg: MutableMapping[str, object], sensitive: Mapping[str, str]
    ) -> None:
        file = etc_pve() / "priv" / "storage" / f"{storage.storeid}.certificate"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("a certificate")


@caught_by("C-025")
class AttachmentsInMemory(Vault):
    """Remembers in its process what is attached, instead of asking the system."""

    def attached(self, storage: Store, name: str, snapname: str | None) -> Any:
        known: dict[object, Any] = self.__dict__.setdefault("known", {})
        found = super().attached(storage, name, snapname)
        key = (storage.storeid, name, snapname)
        return found if key in known else None

    def attach(self, storage: Store, name: str, snapname: str | None, options: Any) -> None:
        with contextlib.suppress(StorageError):
            super().attach(storage, name, snapname, options)
        self.__dict__.setdefault("known", {})[(storage.storeid, name, snapname)] = True


@dataclass(frozen=True, kw_only=True)
class NewConfig(VaultConfig):
    pool: str = option("Required from this release on")


class Before(Vault):
    """The release before: everything optional, backups allowed."""

    content = ("images", "rootdir", "backup")


@caught_by("C-010", previous=Before, config={"pool": "a"})
class RequiresAnOptionMore(Vault):
    """Requires an option that sections of the previous release don't have."""

    __orig_bases__ = (BlockPlugin[NewConfig],)


@caught_by("C-011", previous=Before)
class DropsAContentType(Vault):
    """No longer allows a content type that sections of the previous release have."""


@dataclass(frozen=True, kw_only=True)
class OldConfig(StorageConfig):
    folder: str = option("Directory of the volumes", fixed=True)
    zone: str | None = option("An option of the past", default=None)


class BeforeTheCleanUp(Vault):
    """The release before, with an option more."""

    __orig_bases__ = (BlockPlugin[OldConfig],)


@caught_by("C-011", previous=BeforeTheCleanUp)
class DropsAnOption(Vault):
    """No longer knows an option that sections of the previous release have."""
