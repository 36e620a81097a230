# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""The directory storage: a plugin that is complete, and a base for others.

Nothing is imported here: plugins that need ``files`` or ``qemu_img`` only would pay 20 ms for all.
"""
