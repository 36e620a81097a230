# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""``BlockPlugin``: raw volumes on anything that can be attached to a node.

An author writes the verbs of ``backend.py``; the layers here turn PVE's calls into them:

    backend → attachment (hints) → volumes → snapshots → transfer → plugin
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from ..config import ConfigT
from ..names import Rule
from .backend import can
from .transfer import Transfer

_REQUIRED = (
    *("volumes", "create", "delete", "grow", "status"),
    *("device", "attached", "attach", "detach"),
)


class BlockPlugin(Transfer[ConfigT]):
    """Base of block storages: eight verbs to write, everything else has a default or a refusal."""

    content: ClassVar[Sequence[str]] = ("images", "rootdir")
    rules: ClassVar[Mapping[str, Sequence[Rule]]] = {}
    """What a plugin states itself; it goes before what ``static_rules`` concludes."""

    @classmethod
    def static_rules(cls) -> Mapping[str, Sequence[Rule]]:
        """What the storage can do, as the verbs that are there say it (C-069)."""
        features = [Rule(True, {"feature": "copy", "state": ["current", "base"]})]
        if can(cls, "snapshot"):
            features.append(Rule(True, {"feature": "snapshot", "state": ["current", "snap"]}))
            features.append(Rule(True, {"feature": "copy", "state": "snap"}))
        if can(cls, "rename"):
            features.append(Rule(True, {"feature": "template", "state": "current"}))
            features.append(Rule(True, {"feature": "rename", "state": "current"}))
        if can(cls, "clone"):
            states = ["base", "snap"] if cls.clones_snapshots else ["base"]
            raw = {"feature": "clone", "state": states}
            features.append(Rule(True, {**raw, "target_format": False}))
            features.append(Rule(True, {**raw, "target_format": "raw"}))
        if cls.reads_zero:
            features.append(Rule(True, {"feature": "sparseinit", "state": ["current", "base"]}))
        streams = [Rule([], {"with_snapshots": True}), Rule([], {"base_snapshot": True})]
        if not can(cls, "snapshot"):
            streams.append(Rule([], {"snapshot": True}))
        streams.append(Rule(["raw+size"]))
        return {
            "volume_has_feature": features,
            "volume_qemu_snapshot_method": [Rule("storage")],
            "volume_export_formats": streams,
            "volume_import_formats": streams,
            **cls.rules,
        }

    @classmethod
    def missing(cls) -> list[str]:
        """Required verbs that aren't written yet."""
        return [verb for verb in _REQUIRED if not can(cls, verb)]
