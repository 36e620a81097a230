# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""The outcome of a run for people and machines: terminal, HTML, JSON, JUnit XML."""
