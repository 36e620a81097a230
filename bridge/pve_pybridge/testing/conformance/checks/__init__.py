# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""The statements as functions, a module per group of the checklist or half of one.

Each module ends with its table: number → function.  A function returns when the plugin keeps the
statement and leaves by ``Failed``, ``Blocked`` or ``NotApplicable`` otherwise.
"""
