#!/bin/sh
# run_in_tmp.sh PROGRAM ARGS...: runs it with a fresh directory as last argument, which is removed afterwards.
dir=$(mktemp -d "${TMPDIR:-/tmp}/nodehost-test.XXXXXX") || exit 1
trap 'rm -rf "$dir"' EXIT
trap 'exit 130' INT TERM
"$@" "$dir"
