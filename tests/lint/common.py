"""What the lint scripts share: the source list, a comment stripper, the report. Needs Python 3.9 and nothing else."""
import argparse
import pathlib
import re
import sys

FOLDERS = ["raftio", "engine", "logdb", "transport", "nodehost", "cmd", "tests"]


def arguments(description, *extra):
    """Parses the command line; every check takes --root. `extra` are (flag, options) pairs."""
    p = argparse.ArgumentParser(description=description)
    p.add_argument("--root", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parents[2])
    for flag, options in extra:
        p.add_argument(flag, **options)
    return p.parse_args()


def sources(root, *suffixes, folders=None):
    """Our files below the project's folders, as sorted paths relative to root. Generated code lies in build directories."""
    found = []
    for folder in folders or FOLDERS:
        for path in (root / folder).rglob("*"):
            parts = path.relative_to(root).parts
            if path.suffix in suffixes and path.is_file() and not any(p.startswith("build") for p in parts[:-1]):
                found.append(path.relative_to(root))
    return sorted(found)


TOKEN = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)


def strip_comments(text, keep_strings=False):
    """Blanks comments (and the inside of strings) and keeps the line count."""

    def blank(match):
        token = match.group(0)
        if token[0] == "/":
            return "\n" * token.count("\n") or " "
        return token if keep_strings else token[0] + token[-1]

    return TOKEN.sub(blank, text)


def public_headers(root):
    """The headers that meson installs: {folder: files('a.h', ...)} added to public_headers by the folders."""
    found = []
    for path in sorted(root.rglob("meson.build")):
        text = re.sub(r"#[^\n]*", "", path.read_text())
        for folder, names in re.findall(r"public_headers\s*\+=\s*\{\s*'([^']+)'\s*:\s*files\(([^)]*)\)", text):
            found += [pathlib.Path(folder) / name for name in re.findall(r"'([^']+)'", names)]
    return found


def finish(problems, summary):
    """Prints what was found and ends the script: 1 if there is any problem."""
    for problem in problems:
        print(problem)
    print(f"{len(problems)} problem{'s' * (len(problems) != 1)}; {summary}")
    sys.exit(1 if problems else 0)
