#!/usr/bin/env python3
"""Every branch of the core's message handlers is taken by a test. Part of scripts/coverage, not of the suite.

A handler is each function raft_on_* of engine/raft, and whatever of engine/raft it uses, at any depth, whoever else uses that.
REPORT is gcovr's (--json), of a build without optimization: in it each side of each condition is a branch of its own. The failing
side of an assert is left out by gcovr, as no test may take it.
"""
import json
import pathlib
import re

import common

FOLDER = "engine/raft/"
ROOT = re.compile(r"raft_on_\w+$")
WORD = re.compile(r"\b[A-Za-z_]\w*\b")


class Function:
    def __init__(self, path, name, first, body):
        self.path, self.name, self.lines = path, name, range(first, first + len(body))
        self.words = set(WORD.findall("\n".join(body)))


def functions(text, report):
    """Where each function stands: it ends with the first brace that is a line of its own."""
    lines = common.strip_comments(text).split("\n")
    for f in report["functions"]:
        first = f["lineno"]
        end = lines.index("}", first - 1) + 1
        yield Function(report["file"], f["name"], first, lines[first - 1:end])


def handlers(known):
    """The roots, and all that they name. A function of the same file goes before those of others."""
    named, found, todo = {}, set(), [f for f in known if ROOT.match(f.name)]
    for f in known:
        named.setdefault(f.name, {})[f.path] = f
    while todo:
        f = todo.pop()
        if f in found:
            continue
        found.add(f)
        for word in f.words & named.keys():
            files = named[word]
            todo += [files[f.path]] if f.path in files else files.values()
    return sorted(found, key=lambda f: (f.path, f.lines[0]))


def main():
    args = common.arguments(__doc__, ("report", {"type": pathlib.Path, "metavar": "REPORT"}))
    reports = {f["file"]: f for f in json.loads(args.report.read_text())["files"] if f["file"].startswith(FOLDER)}
    found = handlers([f for path, report in reports.items() for f in functions((args.root / path).read_text(), report)])
    problems, n = [] if found else [f"no function raft_on_* of {FOLDER} was run"], 0
    for f in found:
        for line in reports[f.path]["lines"]:
            if line["line_number"] not in f.lines:
                continue
            missing = sum(branch["count"] == 0 for branch in line["branches"])
            n += len(line["branches"])
            if missing:
                problems.append(f"{f.path}:{line['line_number']}: {missing} of {len(line['branches'])} branches of {f.name} "
                                "are taken by no test")
    common.finish(problems, f"{n} branches of {len(found)} functions that handle messages")


main()
