#!/usr/bin/env python3
"""Every header compiles alone: public ones as strict C11 and as C++17, private ones as the dialect that we build with."""
import concurrent.futures
import os
import pathlib
import subprocess
import sys

import common

WARNINGS = ["-Wall", "-Wextra", "-Werror"]
FLAGS = {
    "c11": ["-std=c11", "-x", "c", "-pedantic", *WARNINGS],
    "c++17": ["-std=c++17", "-x", "c++", "-pedantic", *WARNINGS],
    "private": ["-std=gnu11", "-x", "c", "-D_GNU_SOURCE", *WARNINGS, "-Wno-unused-function"],
}


def compile_alone(compiler, flags, root, header):
    source = f'#include "{header}"\n#include "{header}"\nextern int nh_header_alone;\nint nh_header_alone;\n'
    done = subprocess.run([*compiler, *flags, f"-I{root}", "-fsyntax-only", "-"], input=source,
                          capture_output=True, text=True, cwd=root)
    return None if done.returncode == 0 else f"{header} does not compile alone:\n{done.stderr.rstrip()}"


def main():
    args = common.arguments(__doc__, ("--mode", {"choices": sorted(FLAGS), "required": True}),
                            ("--include", {"action": "append", "default": [], "type": pathlib.Path}),
                            ("compiler", {"nargs": "+"}))
    headers = common.public_headers(args.root)
    if args.mode == "private":
        headers = [h for h in common.sources(args.root, ".h") if h not in headers]
    flags = FLAGS[args.mode] + [f"-I{path}" for path in args.include]
    try:
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            results = list(pool.map(lambda h: compile_alone(args.compiler, flags, args.root, h), headers))
    except FileNotFoundError as e:
        print(f"{e.filename} is not installed")
        sys.exit(77)
    problems = [r for r in results if r]
    if not headers:
        problems.append("no headers found")
    common.finish(problems, f"{len(headers)} headers as {args.mode}")


main()
