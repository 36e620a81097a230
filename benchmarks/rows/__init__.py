# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""What is measured: a module for each kind of work, with a function ``measure``."""
