# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: Apache-2.0
"""A storage plugin as a command that PVE's side starts for every call, the way peers do it."""

import argparse
import json


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--storage", required=True)
    parser.add_argument("--config", type=json.loads, required=True)
    parser.add_argument("method")
    parser.add_argument("arguments", type=json.loads)
    args = parser.parse_args()
    answers = {
        "check_connection": 1,
        "status": [1 << 40, 1 << 39, 1 << 39, 1],
        "path": f"/dev/bench/{args.arguments.get('volname')}",
        "qemu_blockdev_options": {
            "driver": "host_device",
            "filename": f"/dev/bench/{args.arguments.get('volname')}",
        },
    }
    print(json.dumps({"result": answers.get(args.method)}))


main()
