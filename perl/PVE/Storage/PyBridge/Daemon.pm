package PVE::Storage::PyBridge::Daemon;

# SPDX-FileCopyrightText: 2026 pve-pybridge contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

# All that a call may need, loaded at once by the daemons of PVE that make calls. They load once, and what
# they fork, a task for each thing that is asked of them, has it from then: its first call takes a quarter
# of the time, and a task that runs for hours never loads a newer release's file beside those it has.

use v5.36;

use PVE::Storage::PyBridge::Answer;
use PVE::Storage::PyBridge::Failure;
use PVE::Storage::PyBridge::Forward;
use PVE::Storage::PyBridge::Local;
use PVE::Storage::PyBridge::Names;
use PVE::Storage::PyBridge::Plain;
use PVE::Storage::PyBridge::Proof;
use PVE::Storage::PyBridge::Rows;
use PVE::Storage::PyBridge::Sending;
use PVE::Storage::PyBridge::Sequence;
use PVE::Storage::PyBridge::Static;
use PVE::Storage::PyBridge::Together;
use PVE::Storage::PyBridge::Values;

1;
