#!/bin/bash
# Children that may not map page 0: they get the mode without it.
# hooked: unshare su ps id|dash
# SPDX-License-Identifier: BSD-3-Clause
. "$PROGRAMS_SOURCE/cases/lib.sh"
cd "$TMPDIR" || exit 1
step namespaces unshare --user --map-root-user --pid --fork --mount-proc sh -c 'id -u; ps -o pid=,comm=; true'
step su su -s /bin/sh nobody -c 'id -un'
