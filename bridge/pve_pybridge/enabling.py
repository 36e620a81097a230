# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Make a plugin a storage type of this node, and take it away again.

For plugins without a package; packages ship the manifest and the unit links themselves.  Nothing
here touches storage.cfg.  PVE does, though: it drops the sections of types it doesn't know at its
next write, on all nodes, which is why ``disable`` refuses or saves them first.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from . import atomic, interpreter, manifest, pve, record, trust, units
from .errors import StorageError
from .installed import Installed, file_of, files, read
from .paths import backup_dir
from .storagecfg import Section, parse, sections

_IMPORT_SECONDS: Final = 60


@dataclass(frozen=True)
class Enabled:
    """What ``enable`` did."""

    changed: bool
    """Whether PVE has to learn something."""
    told: list[str]


def enable(plugin: str, python: str | None = None) -> Enabled:
    """Check the plugin, install its manifest and listen for it."""
    location = str(Path(plugin).absolute()) if plugin.endswith(".py") else plugin
    for path in filter(None, (location, python)):  # before any of it runs, as root
        if os.path.exists(path) and (flaw := trust.path_flaw(Path(path))):
            raise StorageError(f"{path} is not trusted: {flaw}")
    text = generate(location, python)
    facts = json.loads(text)
    file = file_of(facts["type"])
    found = Installed(file, facts["type"], facts)
    _refuse_another_plugin(found)
    told = _refuse_collision(found, text)
    changed = not file.exists() or file.read_text("utf-8", "replace") != text
    if changed:
        try:
            file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            atomic.write(file, text, 0o644)
        except OSError as err:
            raise StorageError(f"can't write {file}: {err.strerror}") from None
    record.update()
    told.append(f"storage type '{found.type}' is enabled: {file}")
    if units.systemd_runs():
        try:
            units.enable(found.type)
        except StorageError as err:
            raise StorageError(f"{file} is written, but nobody listens: {err}") from None
        try:
            units.renew(found.type)
        except StorageError as err:
            raise StorageError(
                f"{file} is written, but the running server goes on with the old code: {err}"
            ) from None
        told.append(f"{units.socket_unit(found.type)} listens for it")
    else:
        told.append(f"no systemd here: serve it by 'pve-pybridge serve --type {found.type}'")
    told += _saved(found.type)
    return Enabled(changed, told)


def generate(location: str, python: str | None, timeout: float = _IMPORT_SECONDS) -> str:
    """The manifest of a plugin as its own interpreter makes it; StorageError says why not."""
    args = ["manifest", location, "--location", location]
    args += ["--interpreter", python] if python else []
    try:
        done = interpreter.run(python, *args, timeout=timeout)
    except subprocess.TimeoutExpired:
        raise StorageError(f"{location}: its import takes more than {timeout:g} s") from None
    except OSError as err:
        raise StorageError(f"can't run the interpreter {python}: {err.strerror}") from None
    if done.returncode != 0:
        raise StorageError(interpreter.complaint(done))
    return done.stdout


def _refuse_another_plugin(found: Installed) -> None:
    try:
        before = read(found.file)
        there = before.plugin
    except StorageError:
        return  # there is none, or one that can't be used
    if there not in (None, found.plugin):
        raise StorageError(
            f"storage type '{found.type}' is enabled already, for {there}: "
            f"'pve-pybridge disable {found.type}' first, or choose another type"
        )
    manifest.refuse_new_requirements(before.data, found.data)


def _refuse_collision(found: Installed, text: str) -> list[str]:
    """Let the shim judge the new manifest among the others, before PVE's daemons see it."""
    with tempfile.TemporaryDirectory(prefix="pve-pybridge-") as scratch:
        for file in files():
            if file != found.file:
                with contextlib.suppress(OSError):  # doctor tells of unreadable ones
                    shutil.copy2(file, scratch)
        Path(scratch, found.file.name).write_text(text)
        try:
            seen = pve.load(Path(scratch))
        except pve.NoPve as err:
            return [f"not tried in PVE: {err}"]
    if said := seen.of(found.type):
        lines = "; ".join(line.replace(f"{scratch}/", "") for line in said)
        raise StorageError(f"PVE can't take the type as it is: {lines}")
    if found.type not in seen.facts["ours"]:
        raise StorageError(f"PVE didn't register type '{found.type}': is the shim installed?")
    return []


def disable(type_: str, *, force: bool) -> list[str]:
    """Remove the manifest and stop listening; returns what there is to say."""
    file = file_of(type_)
    if not os.path.lexists(file):
        raise StorageError(f"storage type '{type_}' is not enabled here: there is no {file}")
    used = [section for section in sections() if section.type == type_]
    package = _package_of(file)
    if package and not force:
        raise StorageError(
            f"storage type '{type_}' belongs to the package {package}: purge that, or use --force"
        )
    if used and not force:
        names = ", ".join(section.storeid for section in used)
        raise StorageError(
            f"storage type '{type_}' is used by {names}: PVE would drop them from storage.cfg, on "
            "all nodes, when it writes that file next. Remove them first, or use --force, which "
            f"saves their sections in {backup_dir()}"
        )
    told = []
    if used:
        told.append(f"sections of {len(used)} storages saved: {save(used)}")
        told.append("PVE drops them from storage.cfg, on all nodes, when it writes that file next")
    try:
        file.unlink()
    except OSError as err:
        raise StorageError(f"can't remove {file}: {err.strerror}") from None
    record.update()
    told.append(f"storage type '{type_}' is disabled")
    if units.systemd_runs():
        units.disable(type_)
    told.append(f"PVE's daemons know it until they are reloaded:\n  {units.RELOAD}")
    return told


def save(used: list[Section]) -> Path:
    """Keep sections of storage.cfg, ready to be put back, beside those saved earlier."""
    file = backup_dir() / "storage.cfg"
    new = {section.storeid for section in used}
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        earlier = parse(file.read_text("utf-8", "surrogateescape")) if file.exists() else []
        kept = [section for section in earlier if section.storeid not in new]
        atomic.write(file, "\n".join(section.text for section in (*kept, *used)), 0o600)
    except OSError as err:
        raise StorageError(f"can't save sections in {file}: {err.strerror}") from None
    return file


def _saved(type_: str) -> list[str]:
    """Whether storages of the type were saved and are missing now."""
    file = backup_dir() / "storage.cfg"
    try:
        saved = parse(file.read_text("utf-8", "surrogateescape"))
    except OSError:
        return []
    there = {section.storeid for section in sections()}
    names = [s.storeid for s in saved if s.type == type_ and s.storeid not in there]
    return [f"sections saved when the type went, in {file}: {', '.join(names)}"] if names else []


def _package_of(file: Path) -> str | None:
    """The Debian package that ships a file."""
    try:
        done = subprocess.run(
            ["dpkg-query", "--search", str(file)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.split(":")[0] if done.returncode == 0 else None
