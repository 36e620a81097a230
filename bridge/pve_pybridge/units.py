# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""The systemd units of a storage type: their state, starting and stopping them.

For ``list``, ``enable``, ``disable`` and ``doctor``.  systemd owns the sockets; without it (a
container, a checkout) ``pve-pybridge serve`` runs in the foreground and nothing here is called.
"""

from __future__ import annotations

import subprocess
import time
from typing import Final

from .errors import StorageError
from .paths import systemd_dir

PVE_DAEMONS: Final = (
    *("pvedaemon", "pvestatd", "pveproxy", "spiceproxy", "pvescheduler"),
    *("pve-ha-lrm", "pve-ha-crm"),
)
"""What PVE's own package trigger reloads, HA last: each loads all storage plugins at its start."""

RELOAD: Final = f"systemctl reload-or-try-restart {' '.join(PVE_DAEMONS)}"
"""What makes PVE's daemons load plugins anew: the same as ``pve-api-updates`` does in dpkg.

``dpkg-trigger`` outside a package operation only leaves a note for the next one.
"""
_SECONDS: Final = 60
TAKEOVER_SECONDS: Final = 10.0
"""How long a successor may take to start."""


def systemd_runs() -> bool:
    """Whether systemd manages this machine."""
    return systemd_dir().is_dir()


def socket_unit(type_: str) -> str:
    """The unit that listens for a type."""
    return f"pve-pybridge@{type_}.socket"


def service_unit(type_: str) -> str:
    """The unit that serves it."""
    return f"pve-pybridge@{type_}.service"


def show(unit: str, *properties: str, timeout: float = 5) -> dict[str, str]:
    """Properties of a unit; StorageError when systemd doesn't answer."""
    told = _systemctl(["show", f"--property={','.join(properties)}", unit], timeout)
    return dict(line.split("=", 1) for line in told.splitlines() if "=" in line)


def state(type_: str) -> str:
    """Both units of a type in a word or two: ``listening``, ``running``, ``not enabled`` …"""
    if not systemd_runs():
        return "no systemd"
    found = show(socket_unit(type_), "LoadState", "ActiveState", "UnitFileState")
    if found.get("LoadState") != "loaded":
        return "no unit"
    if found.get("ActiveState") != "active":
        enabled = found.get("UnitFileState", "").startswith("enabled")
        return f"socket {found.get('ActiveState') or 'unknown'}" if enabled else "not enabled"
    service = show(service_unit(type_), "ActiveState").get("ActiveState")
    return "running" if service == "active" else f"listening, service {service}"


def enable(type_: str) -> None:
    """Listen from now on and after each boot."""
    _systemctl(["daemon-reload"], _SECONDS)
    _systemctl(["enable", "--now", socket_unit(type_)], _SECONDS)


def renew(type_: str) -> None:
    """Have a successor with the new code take over from a running server, whose calls finish.

    StorageError if none does: then the old one goes on.  The package's scripts do the same, see
    ``renew`` in debian/libexec/register.
    """
    service = service_unit(type_)
    before = show(service, "ActiveState", "MainPID")
    try:
        if before.get("ActiveState") == "active":
            _systemctl(["reload", service], _SECONDS)
    except StorageError:  # it has just ended, or its unit is older than this
        before = {}
    if before.get("ActiveState") != "active":
        _systemctl(["try-restart", service], 2 * _SECONDS)
        return
    ends = time.monotonic() + TAKEOVER_SECONDS
    while show(service, "MainPID").get("MainPID") == before.get("MainPID"):
        if time.monotonic() > ends:
            raise StorageError(f"no successor took over, see journalctl -u {service}")
        time.sleep(0.2)


def disable(type_: str) -> None:
    """Listen no more; the server finishes its calls."""
    _systemctl(["disable", "--now", socket_unit(type_)], _SECONDS)
    _systemctl(["stop", service_unit(type_)], 2 * _SECONDS)


def reload_pve() -> None:
    """Make PVE's daemons load plugins anew; sessions and tasks go on."""
    _systemctl(RELOAD.split()[1:], 3 * _SECONDS)


def _systemctl(args: list[str], timeout: float) -> str:
    try:
        done = subprocess.run(
            ["systemctl", "--no-pager", *args],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise StorageError(f"systemctl {' '.join(args)}: no answer in {timeout:g} s") from None
    except OSError as err:
        raise StorageError(f"can't run systemctl: {err.strerror}") from None
    if done.returncode != 0:
        said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise StorageError(f"systemctl {' '.join(args)}: {said}")
    return done.stdout
