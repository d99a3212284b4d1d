#!/bin/bash
# Go with cgo: a nil pointer is a panic that the program recovers from.
# hooked: go-dynamic
# SPDX-License-Identifier: BSD-3-Clause
. "$PROGRAMS_SOURCE/cases/lib.sh"
cd "$TMPDIR" || exit 1
export GOCACHE=$PROGRAMS_BUILD/go-cache GO111MODULE=off
native env CGO_ENABLED=1 go build -ldflags=-linkmode=external -o go-dynamic "$PROGRAMS_SOURCE/sources/threads.go"
step nil ./go-dynamic nil
