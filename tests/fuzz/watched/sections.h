// Included first by every file of a watched stack: its variables lie together, so that they can be put back to what they were.
// SPDX-License-Identifier: BSD-3-Clause
#pragma clang section bss = "zps_zeros" data = "zps_values"
