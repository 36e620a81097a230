# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""``python3 -m pve_pybridge`` is the command ``pve-pybridge``."""

import sys

from .cli import main

sys.exit(main())
