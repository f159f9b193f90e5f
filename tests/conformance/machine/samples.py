#!/usr/bin/env python3
"""Runs the machine kit on sound and broken machines: samples.py [--sanitizer KIND] KIT MACHINE.so...

A sound one passes. A broken one fails, and the first check that fails is the one that its first line names ("expect: CHECK", or
"expect: CHECK: words of what it says")."""
import argparse
import concurrent.futures
import pathlib
import re
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
FAIL = re.compile(r"^FAIL\s+(\S+)\s+(.*)$", re.M)


def expectation(name, sanitizer):
    """(check, words) or None if the machine has to pass."""
    first = (HERE / f"{name}.c").read_text().split("\n")[0]
    match = re.search(r"expect( with a sanitizer that finds leaks)?: ([a-z_]+)(?:: (.*?))? \*/", first)
    if not match or (match.group(1) and "address" not in sanitizer):
        return None
    return match.group(2), match.group(3) or ""


def judge(kit, machine, sanitizer):
    """What is wrong with the kit's verdict about this machine, or None."""
    name = pathlib.Path(machine).stem
    expected = expectation(name, sanitizer)
    if name.startswith("broken_") and expected is None and "leak" not in name:
        return f"{name}: its first line names no check"
    done = subprocess.run([kit, "--call-limit", "10", "--fail-fast", machine], capture_output=True, text=True)
    failed = FAIL.findall(done.stdout)
    if expected is None:
        return None if done.returncode == 0 and not failed else f"{name} is sound:\n{done.stdout}{done.stderr}"
    if done.returncode != 1 or not failed:
        return f"{name} was accepted, expected a failure of {expected[0]}:\n{done.stdout}"
    if failed[0][0] != expected[0] or expected[1] not in failed[0][1]:
        return f"{name} fails first in {failed[0][0]} ({failed[0][1]}), expected {': '.join(expected)}\n{done.stderr}"
    print(f"{name}: {failed[0][0]}: {failed[0][1]}")
    return None


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--sanitizer", default="none")
    p.add_argument("kit")
    p.add_argument("machines", nargs="+")
    args = p.parse_args()
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        problems = list(filter(None, pool.map(lambda m: judge(args.kit, m, args.sanitizer), args.machines)))
    print("\n".join(problems))
    print(f"{len(args.machines)} machines, {len(problems)} wrong verdicts")
    sys.exit(1 if problems else 0)


main()
