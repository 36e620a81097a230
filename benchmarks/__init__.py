# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""What the bridge costs, side by side with the least it could: ``make bench``."""
