# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""``pydir``: PVE's directory storage, in Python; everything is inherited."""

from pve_pybridge import DirectoryConfig, DirectoryPlugin


class PyDir(DirectoryPlugin[DirectoryConfig]):
    """Files in a directory, in the layout of PVE's own ``dir``."""

    type = "pydir"
