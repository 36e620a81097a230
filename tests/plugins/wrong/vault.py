# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""``vault``: a correct block storage in a directory, without devices, quick to try.

A volume is a file; attaching puts a symbolic link to it under ``.dev``, which is the volume's path.
The wrong plugins override one method or verb of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pve_pybridge import (
    Attachment,
    BlockPlugin,
    BlockVolume,
    Rule,
    Secret,
    SnapshotInfo,
    Status,
    Storage,
    StorageConfig,
    StorageError,
    VolumeExists,
    option,
    secret,
)


@dataclass(frozen=True, kw_only=True)
class VaultConfig(StorageConfig):
    folder: str = option("Directory of the volumes", fixed=True)
    token: Secret | None = secret("A secret nobody asks for")


Store = Storage[VaultConfig]
Rules = Mapping[str, Sequence[Rule]]


@contextlib.contextmanager
def failing(what: str) -> Iterator[None]:
    """What the operating system refuses, as an administrator reads it."""
    try:
        yield
    except FileExistsError:
        raise VolumeExists(f"{what}: it exists") from None
    except OSError as err:
        raise StorageError(f"{what}: {err.strerror}") from None


class Vault(BlockPlugin[VaultConfig]):
    type = "vault"
    reads_zero = True
    clones_snapshots = True
    hint_options: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "guest-is-windows": {"tuned": True}
    }

    # --- storage ---

    def check_connection(self, storage: Store) -> bool:
        return os.path.isdir(storage.config.folder)

    def activate_storage(self, storage: Store) -> None:
        with failing("can't activate"):
            Path(storage.config.folder, ".dev").mkdir(exist_ok=True)

    def status(self, storage: Store) -> Status | None:
        with failing("can't tell the space"):
            return Status.of(os.statvfs(storage.config.folder))

    def get_identity(self, storage: Store) -> str:
        file = Path(storage.config.folder, ".identity")
        with contextlib.suppress(FileExistsError), file.open("x") as new:
            new.write(str(uuid.uuid4()))
        return file.read_text()

    def on_add_hook(
        self, storage: Store, scfg: MutableMapping[str, object], sensitive: Mapping[str, str]
    ) -> None:
        return None

    # --- volumes ---

    def file(self, storage: Store, name: str, snapname: str | None = None) -> Path:
        return Path(storage.config.folder, f"{name}@{snapname}" if snapname else name)

    def volumes(self, storage: Store) -> list[BlockVolume]:
        found = []
        with failing("can't list"):
            for file in Path(storage.config.folder).glob("*-*-*"):
                with contextlib.suppress(FileNotFoundError):
                    if "@" not in file.name:
                        found.append(self.volume(file))
        return found

    def volume(self, file: Path) -> BlockVolume:
        base = file.with_name(f".base-of-{file.name}")
        return BlockVolume(
            file.name, file.stat().st_size, base.read_text() if base.exists() else None
        )

    def create(self, storage: Store, name: str, size: int) -> None:
        with failing(f"can't create '{name}'"), self.file(storage, name).open("xb") as file:
            try:
                os.truncate(file.fileno(), size)
            except OSError:
                os.unlink(file.name)
                raise

    def delete(self, storage: Store, name: str) -> None:
        self.file(storage, name).unlink()
        self.file(storage, f".base-of-{name}").unlink(missing_ok=True)

    def grow(self, storage: Store, name: str, size: int, device: str | None) -> None:
        os.truncate(self.file(storage, name), size)

    def rename(self, storage: Store, name: str, new_name: str) -> None:
        with failing(f"can't rename to '{new_name}'"):
            os.link(self.file(storage, name), self.file(storage, new_name))
        self.file(storage, name).unlink()

    def clone(self, storage: Store, name: str, snapname: str | None, new_name: str) -> bool:
        self.copy(self.file(storage, name, snapname), self.file(storage, new_name))
        if snapname is None:
            self.file(storage, f".base-of-{new_name}").write_text(name)
        return snapname is None

    def copy(self, source: Path, target: Path) -> None:
        with (
            failing(f"can't make '{target.name}'"),
            target.open("xb") as file,
            source.open("rb") as old,
        ):
            shutil.copyfileobj(old, file)

    # --- attachments ---

    def device(self, storage: Store, name: str, snapname: str | None) -> str:
        return str(self.file(storage, f".dev/{name}", snapname))

    def attached(self, storage: Store, name: str, snapname: str | None) -> Attachment | None:
        device = self.device(storage, name, snapname)
        if not os.path.islink(device):
            return None
        tuned = os.readlink(device).startswith("./")
        return Attachment(device, {"tuned": True} if tuned else {})

    def attach(
        self, storage: Store, name: str, snapname: str | None, options: Mapping[str, object]
    ) -> None:
        if not self.file(storage, name, snapname).exists():
            raise StorageError(f"volume '{name}' does not exist")
        how = "./.." if options.get("tuned") else ".."
        target = f"{how}/{self.file(storage, name, snapname).name}"
        with failing("can't attach"):
            os.symlink(target, self.device(storage, name, snapname))

    def detach(self, storage: Store, name: str, snapname: str | None) -> None:
        os.unlink(self.device(storage, name, snapname))

    def qemu_blockdev_options(
        self,
        storage: Store,
        volname: str,
        machine_version: str | None,
        options: Mapping[str, Any],
    ) -> dict[str, object]:
        path = self.path(storage, volname, options.get("snapshot-name"))
        return {"driver": "file", "filename": path}

    # --- snapshots ---

    def snapshot(self, storage: Store, name: str, snapname: str) -> None:
        self.copy(self.file(storage, name), self.file(storage, name, snapname))
        order = [*self.order(storage, name), snapname]
        self.file(storage, f".order-{name}").write_text(json.dumps(order))

    def order(self, storage: Store, name: str) -> list[str]:
        file = self.file(storage, f".order-{name}")
        found: list[str] = json.loads(file.read_text()) if file.exists() else []
        return [snap for snap in found if self.file(storage, name, snap).exists()]

    def snapshot_delete(self, storage: Store, name: str, snapname: str) -> None:
        self.file(storage, name, snapname).unlink()

    def snapshot_rollback(self, storage: Store, name: str, snapname: str) -> None:
        shutil.copyfile(self.file(storage, name, snapname), self.file(storage, name))

    def snapshots(self, storage: Store, name: str) -> dict[str, SnapshotInfo]:
        found = {}
        for snapname in self.order(storage, name):
            stat = self.file(storage, name, snapname).stat()
            found[snapname] = SnapshotInfo(id=str(stat.st_ino), timestamp=int(stat.st_mtime))
        return found
