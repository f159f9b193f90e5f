#!/usr/bin/env python3
"""Functions of at most 70 lines, files of at most 1000; prints where the sizes stand.

Reads code as clang-format leaves it: a function's brace stands at the start of a line, or ends the line of its signature.
"""
import re

import common

FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 1000
FILE_LINES_AIM = 600

OPENS = re.compile(r"^\{\s*$|^(?!struct\b|union\b|enum\b|typedef\b|extern \"|#)[A-Za-z_].*\)\s*\{\s*$")
ENDS_STATEMENT = re.compile(r"[;}]\s*$|^\s*$|^#")


def functions(text):
    """Yields (first line, lines, signature); the signature counts, the comment above it does not."""
    lines = common.strip_comments(text).split("\n")
    start = None
    for i, line in enumerate(lines):
        if start is None and OPENS.match(line):
            start = i
            while start > 0 and not ENDS_STATEMENT.search(lines[start - 1]):
                start -= 1
        elif start is not None and line.startswith("}"):
            yield start + 1, i - start + 1, lines[start].strip()
            start = None


def spread(values):
    values = sorted(values)
    if not values:
        return "none"
    return f"median {values[len(values) // 2]}, p90 {values[len(values) * 9 // 10]}, longest {values[-1]}"


def main():
    root = common.arguments(__doc__).root
    problems, function_sizes, file_sizes = [], [], []
    for path in common.sources(root, ".c", ".h"):
        text = (root / path).read_text()
        size = text.count("\n")
        file_sizes.append(size)
        if size > FILE_LINES_MAX:
            problems.append(f"{path}: {size} lines; a file has at most {FILE_LINES_MAX}")
        elif size > FILE_LINES_AIM:
            print(f"note: {path} has {size} lines, aim for {FILE_LINES_AIM}")
        for line, n, signature in functions(text):
            function_sizes.append(n)
            if n > FUNCTION_LINES_MAX:
                problems.append(f"{path}:{line}: {n} lines; a function has at most {FUNCTION_LINES_MAX}: {signature}")
    print(f"functions: {len(function_sizes)}, {spread(function_sizes)}")
    common.finish(problems, f"files: {len(file_sizes)}, {spread(file_sizes)}")


main()
