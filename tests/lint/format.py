#!/usr/bin/env python3
"""All C code is as clang-format 14 leaves it. Other versions differ in details, so without version 14 this is skipped."""
import shutil
import subprocess
import sys

import common


def find_clang_format():
    for name in ("clang-format-14", "clang-format"):
        path = shutil.which(name)
        if path and " version 14." in subprocess.run([path, "--version"], capture_output=True, text=True).stdout:
            return path
    return None


def main():
    root = common.arguments(__doc__).root
    tool = find_clang_format()
    if not tool:
        print("clang-format 14 is not installed")
        sys.exit(77)
    files = common.sources(root, ".c", ".h")
    problems = []
    for i in range(0, len(files), 50):
        done = subprocess.run([tool, "--dry-run", "-Werror", "--ferror-limit=1", *map(str, files[i:i + 50])], cwd=root,
                              capture_output=True, text=True)
        problems += [line.replace(" [-Wclang-format-violations]", "") for line in done.stderr.splitlines() if ": error: " in line]
        if done.returncode and not problems:
            problems.append(done.stderr)
    common.finish(problems, f"{len(files)} files; repair with: {tool} -i FILE")


main()
