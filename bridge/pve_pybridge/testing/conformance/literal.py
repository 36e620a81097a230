# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Values in Perl's words, so that a reported call can be read, and tried, as it was made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

LONGEST: Final = 600


def perl(value: object) -> str:
    """A Perl literal."""
    match value:
        case None:
            return "undef"
        case bool():
            return "1" if value else "''"
        case int() | float():
            return str(value)
        case bytes():
            return f"pack('H*', '{value.hex()}')"
        case Mapping():
            inner = ", ".join(f"{_key(key)} => {perl(item)}" for key, item in value.items())
            return f"{{ {inner} }}" if inner else "{}"
        case list() | tuple():
            return "[" + ", ".join(map(perl, value)) + "]"
    text = str(value)
    if not text.isprintable():
        return '"' + text.encode("unicode_escape").decode().replace('"', '\\"') + '"'
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _key(key: object) -> str:
    text = str(key)
    return text if text.isidentifier() else perl(text)


def short(text: str) -> str:
    """*text* for a report: long lists lose their middle."""
    if len(text) <= LONGEST:
        return text
    half = LONGEST // 2
    return f"{text[:half]} … {len(text) - 2 * half} characters … {text[-half:]}"
