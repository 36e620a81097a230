# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Ceph for plugins: ``cluster.py`` says how it is reached, ``rbd.py`` has the images of a pool."""

from .cluster import CephFailed, Cluster
from .rbd import Images

__all__ = ["CephFailed", "Cluster", "Images"]
