#!/usr/bin/env python3
"""The core is a function: engine/raft's library may need only symbols of this list (nm -u)."""
import re
import subprocess

import common

ALLOWED = re.compile("|".join([
    r"(__)?mem(cpy|move|set|cmp)(_chk)?",
    r"abort|__assert_fail|qsort",
    # memory of raftio: allocation that ends the process, blocks and runs, deep copies, error records
    r"x(malloc|calloc|realloc|memdup)|array_(reserve(_tight)?|grow)|free",
    r"nh_(block|run|record|membership|message|snapshot|error|status)_\w+",
    r"(block|run_list|map)_\w+",
    # what compilers add
    r"_GLOBAL_OFFSET_TABLE_|__stack_chk_fail|__gcov_\w+|__llvm_\w+",
    r"__(asan|ubsan|tsan|lsan|msan|sanitizer|sancov)_\w+",
]))


def symbols(library, *options):
    out = subprocess.run(["nm", "-P", *options, library], check=True, capture_output=True, text=True).stdout
    return {line.split()[0] for line in out.splitlines() if len(line.split()) >= 2}


def main():
    args = common.arguments(__doc__, ("library", {}))
    defined = symbols(args.library, "--defined-only")
    needed = symbols(args.library, "-u") - defined
    problems = [f"engine/raft needs {name}: is that still pure?" for name in sorted(needed) if not ALLOWED.fullmatch(name)]
    if not defined:
        problems.append(f"{args.library} defines nothing")
    common.finish(problems, f"{len(defined)} symbols defined, {len(needed)} needed")


main()
