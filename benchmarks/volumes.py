# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""The volumes that listings are measured with: the same facts for the plugin and the floor."""

from __future__ import annotations

import functools

from pve_pybridge import Volume

GIB = 1 << 30


@functools.cache
def volumes(count: int) -> list[Volume]:
    """Disks, two to a guest, as a plugin has them."""
    return [
        Volume(
            volname=f"vm-{100 + n // 2}-disk-{n % 2}",
            format="raw",
            size=(32 + n % 7) * GIB,
            vmid=100 + n // 2,
            ctime=1_700_000_000 + n,
        )
        for n in range(count)
    ]


@functools.cache
def rows(count: int) -> list[dict[str, object]]:
    """The same as PVE gets them from ``list_images``."""
    return [
        {
            "volid": f"bridge1:{one.volname}",
            "format": one.format,
            "size": one.size,
            "vmid": one.vmid,
            "ctime": one.ctime,
        }
        for one in volumes(count)
    ]
