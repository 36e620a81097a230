# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""The run directory and the sockets in it: there, root's alone, with room."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ..paths import run_dir, socket_path
from .findings import Report, fault, warning
from .node import Node


def check(node: Node, report: Report) -> None:
    """Callers trust whoever listens here, so nobody else may."""
    directory = run_dir()
    types = [file.stem for file in node.manifest_files()]
    used = {type_: bool(node.storages(type_)) for type_ in types}
    try:
        _directory(directory, report)
    except FileNotFoundError:
        if any(used.values()):
            mend = "systemd-tmpfiles --create, then start the types' sockets"
            report.add([fault(directory, "the run directory is missing", mend)])
        report.summary = "no run directory, and no storage that needs one"
        return
    report.summary = f"{directory}, types: {len(types)}"
    for type_ in types:
        _socket(socket_path(type_), type_, used[type_], report)


def _directory(directory: Path, report: Report) -> None:
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode):
        report.add([fault(directory, "it is no directory", f"rm {directory}; reboot")])
        return
    _private(directory, found, 0o700, report)
    space = os.statvfs(directory)
    if not space.f_bavail or (space.f_files and not space.f_favail):
        what = "its file system is full: no socket can be made there"
        report.add([fault(directory, what, f"df -h {directory}; df -i {directory}")])


def _socket(path: Path, type_: str, used: bool, report: Report) -> None:
    mend = f"systemctl enable --now pve-pybridge@{type_}.socket"
    try:
        found = path.lstat()
    except FileNotFoundError:
        if used:
            report.add([fault(path, "no socket, but storages need it", mend)])
        else:
            report.add([warning(path, "no socket: a new storage would not work", mend)])
        return
    if not stat.S_ISSOCK(found.st_mode):
        report.add([fault(path, "it is no socket", f"rm {path}; {mend}")])
        return
    _private(path, found, 0o600, report)


def _private(path: Path, found: os.stat_result, mode: int, report: Report) -> None:
    if found.st_uid not in (0, os.geteuid()):
        what = f"it belongs to user {found.st_uid}, so the shim refuses it"
        report.add([fault(path, what, f"chown root:root {path}")])
    if found.st_mode & 0o077:
        what = f"its mode is {found.st_mode & 0o7777:04o}: others than root get in"
        report.add([fault(path, what, f"chmod {mode:04o} {path}")])
