#!/usr/bin/env python3
"""Tests the tests: puts one known bug of Raft systems after another back in, and requires that a test notices.

    tests/sim/mutants/run.py [--quick] [--all-killers] [--seeds N] [NAME ...]

Each *.patch beside this file is one bug; its first lines say what it is and what kills it (the cheapest test that does);
"# slow": the simulator needs long for it, --quick leaves it out.
Works on a copy of the tree, which is built once. A mutant is killed by a test that fails with it and passes without it, by
nothing else: not if it does not build, nor if the test does not end.
Ends with "N of M mutants killed", and with 1 if one survives or no longer applies (then bring the patch up to date).
"""
import argparse
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[2]
KILLED_BY = re.compile(r"^# killed by: (?:unit (test_\w+)|(scenario)|(sim))$", re.M)
LIMIT_S = 600  # of one test
SCENARIO, SIM = "tests/sim/scenario", "tests/sim/run"


class Mutant:
    def __init__(self, path):
        self.name, self.path = path.stem, path
        text = path.read_text()
        self.slow = "\n# slow\n" in text
        self.files = re.findall(r"^\+\+\+ b/(\S+)", text, re.M)
        killer = KILLED_BY.search(text)
        self.killer = target_of(killer) if killer and text.startswith("# ") else None


def target_of(killer):
    unit, scenario, _ = killer.groups()
    return f"tests/unit_{unit}" if unit else SCENARIO if scenario else SIM


class Workshop:
    """A copy of the tree, and its build."""

    def __init__(self, folder, seeds):
        self.tree, self.build, self.seeds = folder / "tree", folder / "build", seeds
        self.sound_sim = folder / "run.sound"
        self.passes = {}
        shutil.copytree(ROOT, self.tree, ignore=shutil.ignore_patterns("build*", ".git", "__pycache__"))
        subprocess.run(["meson", "setup", self.build, self.tree, "-Dbuildtype=debugoptimized"], check=True, stdout=subprocess.DEVNULL)

    def make(self, targets):
        return subprocess.run(["ninja", "-C", self.build, *targets], capture_output=True, text=True, check=False)

    def arguments(self, target, seeds):
        if target == SCENARIO:
            return [self.tree / "tests/sim/scenarios"]
        return ["--seeds", str(seeds)] if target == SIM else ["--tap=-", "-j2", "--timeout", "60"]

    def test(self, target, seeds=None, program=None):
        """What is wrong: None if it passes, the first words of its complaint if not; raises TimeoutExpired."""
        command = [program or self.build / target, *self.arguments(target, seeds or self.seeds)]
        run = subprocess.run(command, cwd=self.tree, capture_output=True, text=True, timeout=LIMIT_S, errors="replace", check=False)
        if run.returncode == 0:
            return None
        return complaint(run.stdout, run.stderr)

    def baseline(self, targets):
        """Builds the sound tree; the targets that do not pass."""
        made = self.make(sorted(targets))
        if made.returncode:
            sys.exit(made.stdout[-4000:])
        if SIM in targets:
            shutil.copy(self.build / SIM, self.sound_sim)
        return [t for t in sorted(targets) if self.test(t, seeds=50)]

    def patch(self, mutant, *options):
        return subprocess.run(["patch", "-p1", "-s", "-f", "--no-backup-if-mismatch", *options, "-i", mutant.path], cwd=self.tree,
                              capture_output=True, text=True, check=False)

    def try_killers(self, mutant, killers):
        """(what killed it, its complaint), or (None, why not)."""
        kept = {f: (self.tree / f).read_bytes() for f in mutant.files}
        if self.patch(mutant, "--dry-run").returncode or self.patch(mutant).returncode:
            return [], "does not apply"
        try:
            if self.make(killers).returncode:
                return [], "does not build"
            return self.killed_by(killers)
        finally:
            for f, content in kept.items():
                (self.tree / f).write_bytes(content)

    def killed_by(self, killers):
        found, why = [], "SURVIVES"
        for target in killers:
            try:
                words = self.test(target)
            except subprocess.TimeoutExpired:
                why = f"{target} does not end"
                continue
            if words and target == SIM and not self.seed_is_sound(words):
                why = f"the sound tree fails, too: {words}"
                continue
            if words:
                found.append((target, words))
        return found, why

    def seed_is_sound(self, words):
        seed = re.match(r"seed (\d+)", words)
        if not seed:
            return True  # the coverage of all seeds
        return subprocess.run([self.sound_sim, "--seed", seed.group(1)], capture_output=True, timeout=LIMIT_S, check=False).returncode == 0


def complaint(out, err):
    """The line that names the reason best."""
    lines = [line.strip() for line in (err + "\n" + out).splitlines() if line.strip() and not line.startswith("ok ")]
    for pattern in (r"^seed \d+", r"^not ok", r"^FAIL", r"Assertion", r""):
        for line in lines:
            if re.search(pattern, line):
                return line[:160]
    return "failed without a word"


def all_targets():
    names = re.findall(r"'([a-z_]+)'", re.search(r"foreach t : (\[.*?\])", (ROOT / "tests/unit/engine/meson.build").read_text(), re.S).group(1))
    return [f"tests/unit_test_raft_{n}" for n in names] + [SCENARIO, SIM]


def choose(names, quick):
    mutants = [Mutant(p) for p in sorted(HERE.glob("*.patch"))]
    unknown = set(names) - {m.name for m in mutants}
    if unknown:
        sys.exit(f"no such mutant: {', '.join(sorted(unknown))}")
    nameless = [m.name for m in mutants if not m.killer or not m.files]
    if nameless:
        sys.exit(f"no header, or nothing changed: {', '.join(nameless)}")
    return [m for m in mutants if (not names or m.name in names) and (not quick or (m.killer == SIM and not m.slow))]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="only those that the simulator has to find soon")
    parser.add_argument("--all-killers", action="store_true", help="try every test, not only the one that the patch names")
    parser.add_argument("--seeds", type=int, default=4000, help="of the simulator, for each mutant")
    parser.add_argument("names", nargs="*", metavar="NAME")
    args = parser.parse_args()
    mutants = choose(args.names, args.quick)
    targets = set(all_targets() if args.all_killers else ()) | {m.killer for m in mutants}
    killed = 0
    with tempfile.TemporaryDirectory() as tmp:
        shop = Workshop(pathlib.Path(tmp), args.seeds)
        broken = shop.baseline(targets)
        if broken:
            sys.exit(f"fails without any mutant: {', '.join(broken)}")
        for m in mutants:
            found, why = shop.try_killers(m, all_targets() if args.all_killers else [m.killer])
            killed += bool(found)
            for target, words in found:
                print(f"{m.name}: {target.rpartition('/')[2]}: {words}", flush=True)
            if not found:
                print(f"{m.name}: {why} ({m.killer})", file=sys.stderr, flush=True)
    print(f"{killed} of {len(mutants)} mutants killed")
    sys.exit(killed != len(mutants))


main()
