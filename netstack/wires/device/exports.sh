#!/bin/sh
# Writes the version script of the core: its door, where its thread-local variables are, and the names of a list.
# SPDX-License-Identifier: BSD-3-Clause
# usage: exports.sh <list> <output>
set -eu
{
  printf '{\n  global:\n    zps_hook_open;\n    zps_thread_variable;\n'
  sed 's/.*/    &;/' "$1"
  printf '  local: *;\n};\n'
} >"$2"
