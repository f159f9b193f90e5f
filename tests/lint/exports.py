#!/usr/bin/env python3
"""libnodehost.so exports what its public headers declare, no more and no less; a machine exports its one entry point."""
import re
import subprocess

import common

COMPILER = re.compile(r"__(asan|odr_asan|ubsan|tsan|gcov|llvm|sanitizer)\w*[\w.]*|_init|_fini|_edata|_end|__bss_start")
DECLARED = re.compile(r"^NH_API\s[^;{]*?\b(nh_\w+)\s*\(", re.M)


def exported(library):
    out = subprocess.run(["nm", "-D", "-P", "--defined-only", library], check=True, capture_output=True, text=True).stdout
    names = {line.split()[0].split("@")[0] for line in out.splitlines()}
    return {name for name in names if not COMPILER.fullmatch(name)}


def check_library(root, library):
    declared = set()
    for header in common.public_headers(root):
        declared |= set(DECLARED.findall(common.strip_comments((root / header).read_text())))
    names = exported(library)
    problems = [f"{name} is exported and does not begin with nh_" for name in sorted(names) if not name.startswith("nh_")]
    problems += [f"{name} is exported and in no public header" for name in sorted(names - declared) if name.startswith("nh_")]
    problems += [f"{name} is declared in a public header and not exported" for name in sorted(declared - names)]
    return problems, len(names)


def main():
    args = common.arguments(__doc__, ("--machine", {"action": "append", "default": []}), ("library", {}))
    problems, n = check_library(args.root, args.library)
    for machine in args.machine:
        names = exported(machine)
        if names != {"nh_machine_plugin"}:
            problems.append(f"{machine} exports {', '.join(sorted(names)) or 'nothing'} instead of nh_machine_plugin")
    common.finish(problems, f"{n} symbols of libnodehost, {len(args.machine)} machines")


main()
