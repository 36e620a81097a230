# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""A vendor's plugin: PVE's directory storage under another name, with a tighter service."""

from pve_pybridge import DirectoryConfig, DirectoryPlugin


class PyAcme(DirectoryPlugin[DirectoryConfig]):
    """Files in a directory."""

    type = "acme"
