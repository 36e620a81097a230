# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""Static answers of directory storages: what a volume can do, as tables.

The manifest carries them, so that PVE's shim answers without a server.  They say what PVE's own
directory storage says.
"""

from __future__ import annotations

from typing import Final

from ..names import Rule

_IMAGES: Final = ["raw", "qcow2", "vmdk"]
_FILES: Final = ["images", "iso", "snippets", "vztmpl", "import"]
_CLONE: Final = {"feature": "clone", "state": "base", "format": _IMAGES}

_FEATURES: Final = (
    Rule(True, {"feature": "snapshot", "state": ["current", "snap"], "format": "qcow2"}),
    # a linked clone is always qcow2, so the caller must be able to work with that
    Rule(True, {**_CLONE, "target_format": False}),
    Rule(True, {**_CLONE, "target_format": "qcow2"}),
    Rule(True, {"feature": "template", "state": "current", "format": [*_IMAGES, "subvol"]}),
    Rule(True, {"feature": "copy", "state": ["base", "current"], "format": _IMAGES}),
    Rule(True, {"feature": "copy", "state": "snap", "format": "qcow2"}),
    Rule(True, {"feature": "sparseinit", "state": ["base", "current"], "format": _IMAGES}),
    Rule(True, {"feature": "rename", "state": "current", "format": _IMAGES}),
)

_STREAMS: Final = (
    Rule([], {"base_snapshot": True}),
    Rule(["qcow2+size"], {"with_snapshots": True, "format": "qcow2"}),
    Rule(["vmdk+size"], {"with_snapshots": True, "format": "vmdk"}),
    Rule([], {"with_snapshots": True}),
    Rule(["tar+size"], {"format": "subvol"}),
    Rule(["raw+size"], {"vtype": _FILES}),
    Rule([]),
)

RULES: Final = {
    "volume_has_feature": _FEATURES,
    "volume_export_formats": (Rule([], {"snapshot": True}), *_STREAMS),
    "volume_import_formats": _STREAMS,
    "volume_qemu_snapshot_method": (
        Rule("mixed", {"format": "qcow2", "option:snapshot-as-volume-chain": True}),
        Rule("qemu", {"format": "qcow2"}),
        Rule("storage"),
    ),
}
"""Method → rules; no rule of ``volume_has_feature`` holding means no."""
