#!/usr/bin/env python3
"""Adds up meson's test logs: summary.py BUILD_DIR ... prints a table per suite, what failed, and last `N passed, N failed`.

A test of one program counts as one; a program that reports its cases (TAP) counts each of them, and one more if it died,
hung or leaked after its cases had passed. No test at all is a failure.
"""
import json
import pathlib
import sys
import xml.etree.ElementTree

GOOD = {"OK", "EXPECTEDFAIL"}


def cases_of(build):
    """{program: (passed, failed, skipped)} of the programs that report cases."""
    cases = {}
    for suite in xml.etree.ElementTree.parse(build / "meson-logs" / "testlog.junit.xml").getroot().findall("testsuite"):
        project, _, program = suite.get("name").partition(".")  # "nodehost.nodehost:unit / test_x"
        if program:
            all_cases = suite.findall("testcase")
            failed = sum(c.find("failure") is not None or c.find("error") is not None for c in all_cases)
            skipped = sum(c.find("skipped") is not None for c in all_cases)
            cases[program.rpartition(" / ")[2]] = (len(all_cases) - failed - skipped, failed, skipped)
    return cases


def programs_of(build):
    """(suite, program, result, seconds) of each test program that ran."""
    for line in (build / "meson-logs" / "testlog.json").read_text().splitlines():
        run = json.loads(line)
        suite, _, name = run["name"].rpartition(" / ")
        yield suite.rpartition(":")[2] or "-", name, run["result"], run["duration"]


def count(build, totals, problems):
    cases = cases_of(build)
    for suite, name, result, seconds in programs_of(build):
        passed, failed, skipped = cases.get(name, (0, 0, 0))
        if result == "SKIP":
            skipped += name not in cases
        elif result in GOOD:
            passed += name not in cases
        elif failed == 0:
            failed = 1
        if failed:
            problems.append(f"{build}: {suite} / {name}: {result}, {failed} failed")
        row = totals.setdefault((str(build), suite), [0, 0, 0, 0.0])
        for i, n in enumerate((passed, failed, skipped, seconds)):
            row[i] += n


def main():
    totals, problems = {}, []
    for arg in sys.argv[1:]:
        try:
            count(pathlib.Path(arg), totals, problems)
        except (OSError, ValueError, xml.etree.ElementTree.ParseError) as e:
            problems.append(f"{arg}: no test log: {e}")
            totals.setdefault((arg, "-"), [0, 0, 0, 0.0])[1] += 1
    print(f"\n{'build':<16}{'suite':<16}{'passed':>8}{'failed':>8}{'skipped':>9}{'seconds':>9}")
    for (build, suite), (passed, failed, skipped, seconds) in sorted(totals.items()):
        print(f"{build:<16}{suite:<16}{passed:>8}{failed:>8}{skipped:>9}{seconds:>9.1f}")
    for problem in problems:
        print(f"FAILED {problem}")
    passed, failed = (sum(row[i] for row in totals.values()) for i in (0, 1))
    if passed + failed == 0:
        failed = 1
        print("FAILED no test ran")
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


main()
