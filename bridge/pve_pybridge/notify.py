# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Tell systemd how the service is (sd_notify), by its documented protocol; silent without it."""

from __future__ import annotations

import contextlib
import os
import socket
import threading


def notify(state: str) -> None:
    """Send ``READY=1``, ``STOPPING=1``, ``WATCHDOG=1`` … to the address in NOTIFY_SOCKET."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(state.encode(), address)


def start_watchdog() -> threading.Event:
    """Keep the watchdog fed from a thread: it starves when the interpreter itself is stuck.

    Until the event is set: a process that only ends its calls doesn't vouch for its successor.
    """
    stopped = threading.Event()
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    if not microseconds.isdigit() or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(
        os.getpid()
    ):
        return stopped
    interval = int(microseconds) / 1e6 / 3

    def feed() -> None:
        while not stopped.is_set():
            notify("WATCHDOG=1")
            stopped.wait(interval)

    threading.Thread(target=feed, name="watchdog", daemon=True).start()
    return stopped
