#!/usr/bin/env python3
"""What the documents point at exists: links and anchors, paths in backticks, commands in code blocks; Redis commands are listed."""
import os
import re

import common

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.S | re.M)
FOLDERS = "|".join(common.FOLDERS + ["docs", "scripts", r"\.ci"])
PATH = re.compile(rf"`((?:{FOLDERS})/[\w./<>*-]+)`")
SUITES = re.compile(r"--suite[ =]([\w-]+)")
BUILT = re.compile(r"(?:^|[\s/\"])build[\w-]*/([\w./-]+)")
SCRIPT = re.compile(r"(?:^|\s)\./([\w./-]+)", re.M)


def anchors(text):
    """The anchors of a document's headings, as GitHub makes them."""
    heads = re.findall(r"^#+\s+(.+?)\s*$", BLOCK.sub("", text), re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in heads}


def check_links(root, path, text):
    problems = []
    for target in LINK.findall(BLOCK.sub("", text)):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        to = (root / path).parent / file if file else root / path
        if not to.exists():
            problems.append(f"{path}: link to {target}: no such file")
        elif anchor and anchor not in anchors(to.read_text()):
            problems.append(f"{path}: link to {target}: no such heading")
    for target in PATH.findall(BLOCK.sub("", text)):
        if not re.search(r"[<>*]", target) and not (root / target.rstrip("/.")).exists():
            problems.append(f"{path}: `{target}` does not exist")
    return problems


def suites(root):
    """Names of the suites: the folders below tests/ that have tests."""
    return {p.parent.name for p in (root / "tests").glob("*/meson.build")}


def built(root, target):
    """True if the build makes `target` (a path in a build directory): meson.build of its folder names it, in one string or
    as a prefix with an underscore and a rest."""
    folder, name = os.path.split(target)
    file = root / folder / "meson.build"
    if not file.is_file():
        return False
    text, stem = file.read_text(), re.sub(r"^lib|\.so.*$|\.a$", "", name)
    cuts = [i + 1 for i, c in enumerate(stem) if c == "_"]
    return f"'{stem}'" in text or any(f"'{stem[:i]}'" in text and f"'{stem[i:]}'" in text for i in cuts)


def check_commands(root, path, text):
    problems = []
    for language, block in BLOCK.findall(text):
        if language not in ("", "sh", "shell", "bash", "console"):
            continue
        for script in SCRIPT.findall(block):
            if not script.startswith("build") and not os.access(root / script, os.X_OK):
                problems.append(f"{path}: ./{script} is no program here")
        for target in BUILT.findall(block):
            if not built(root, target):
                problems.append(f"{path}: build/{target} is not built by any meson.build")
    for suite in SUITES.findall(text):
        if suite not in suites(root):
            problems.append(f"{path}: there is no suite {suite}")
    return problems


def check_redis_commands(root):
    """The commands that README names under "Redis commands" are those of the table."""
    table, readme = root / "cmd/nodehostd/command.c", root / "README.md"
    if not table.is_file():
        return []
    known = {name.upper() for name in re.findall(r'^ *\{"([a-z.]+)", -?\d+, ', table.read_text(), re.M)}
    section = re.search(r"^#+ Redis commands\n(.*?)^#", readme.read_text(), re.M | re.S)
    listed = set(re.findall(r"`([A-Z.]+)`", section.group(1))) if section else set()
    return [f"README.md: the command {x} is not listed" for x in sorted(known - listed)] + [
        f"README.md: there is no command {x}" for x in sorted(listed - known)]


def main():
    root = common.arguments(__doc__).root
    documents = [p.relative_to(root) for p in [*sorted(root.glob("*.md")), *sorted((root / "docs").rglob("*.md"))]]
    problems = [] if documents else ["no documents found"]
    for path in documents:
        text = (root / path).read_text()
        problems += check_links(root, path, text)
        problems += check_commands(root, path, text)
    problems += check_redis_commands(root)
    common.finish(problems, f"{len(documents)} documents")


main()
