# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""The least a call with these frames can cost: a thread per connection, no dispatch, no checks.

Usage: floor.py SOCKET.  ``list_images`` answers the rows of ``vmid`` volumes, anything else undef.
"""

import socket
import sys
import threading

import msgpack

from benchmarks.volumes import rows


def serve(sock: socket.socket) -> None:
    while header := sock.recv(4):
        _, number, method, _, _, args, _ = msgpack.unpackb(
            sock.recv(int.from_bytes(header, "big"), socket.MSG_WAITALL)
        )
        value = rows(int(args[b"vmid"])) if method == b"list_images" else None
        answer = msgpack.packb(["result", number, value, {}])
        sock.sendall(len(answer).to_bytes(4, "big") + answer)


with socket.socket(socket.AF_UNIX) as listener:
    listener.bind(sys.argv[1])
    listener.listen(512)
    while True:
        threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
