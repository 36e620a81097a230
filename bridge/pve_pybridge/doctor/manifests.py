# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Manifests: whole, safe, and what the plugin's class would say today."""

from __future__ import annotations

import json
import os
from pathlib import Path

from .. import installed, trust
from ..enabling import generate
from ..errors import StorageError
from ..installed import Installed
from ..paths import manifests_dir
from .findings import Report, fault, warning
from .node import Node
from .run import beside_each_other

_IMPORT_SECONDS = 10


def check(node: Node, report: Report) -> None:
    """Each manifest, by its plugin's own interpreter; nothing that others could change is run."""
    files = node.manifest_files()
    report.summary = f"{len(files)} in {manifests_dir()}, all as their plugins say"

    def one(file: Path) -> None:
        trusted = _trust(file, report)
        try:
            _current(installed.read(file), trusted, report)
        except StorageError as err:
            mend = f"pve-pybridge enable FILE, or pve-pybridge disable {file.stem}"
            report.add([fault(file, str(err).removeprefix(f"manifest {file}: "), mend)])

    if files:
        _trust(manifests_dir(), report)
    beside_each_other(one, files)


def _trust(path: Path, report: Report) -> bool:
    try:
        flaw = trust.flaw(path)
    except OSError as err:
        report.add([fault(path, f"can't read it: {err.strerror}", "mend or remove it")])
        return False
    if flaw:
        report.add([fault(path, flaw, f"chown root:root {path}; chmod go-w {path}")])
    return flaw is None


def _current(manifest: Installed, trusted: bool, report: Report) -> None:
    python, location = manifest.interpreter, manifest.plugin
    if python and not os.access(python, os.X_OK):
        what = f"its interpreter {python} is gone or can't be run"
        report.add([fault(manifest.file, what, f"install {python} again, or enable anew")])
        return
    file = manifest.plugin_file
    if file and not file.is_file():
        mend = f"bring it back, or pve-pybridge disable {manifest.type}"
        report.add([fault(manifest.file, f"its plugin {file} is gone", mend)])
        return
    for path in (file, Path(python) if python else None):
        if path and (flaw := trust.path_flaw(path)):
            mend = "root runs it: let it belong to root and nobody else write it"
            report.add([fault(path, flaw, mend)])
            trusted = False
    if location is None:
        what = "it doesn't say where its plugin is, so no unit can serve it"
        report.add([warning(manifest.file, what, "pve-pybridge enable FILE")])
        return
    if not trusted:
        return
    try:
        wanted = json.loads(generate(location, python, _IMPORT_SECONDS))
    except StorageError as err:
        report.add([fault(manifest.file, f"its plugin can't be used: {err}", "mend the plugin")])
        return
    if different := [key for key in wanted if wanted[key] != manifest.data.get(key)]:
        what = f"out of date: its plugin has other {', '.join(different)}"
        mend = f"pve-pybridge enable {location}" + (f" --interpreter {python}" if python else "")
        report.add([warning(manifest.file, what, mend)])
