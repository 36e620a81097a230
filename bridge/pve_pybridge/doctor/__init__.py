# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Does everything on this node fit?  ``pve-pybridge doctor`` looks, changes nothing, and tells.

``registry.py`` is the table of checks, a module each; ``run.py`` bounds their time; ``node.py`` is
what several of them look at.
"""
