#!/usr/bin/env python3
"""No unfinished work in code, and every function of a public header is exported by name and explained."""
import re

import common

# In two pieces, so that this file passes its own check.
UNFINISHED = re.compile(r"\b(TO" r"DO|FIX" r"ME|X" r"XX|HA" r"CK|W" r"IP)\b|not " r"implemented|unimple" r"mented", re.I | re.A)
CASE_MATTERS = re.compile(r"^[A-Z]+$|im", re.A)

COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.S)


def check_words(path, text):
    return [f"{path}:{text.count(chr(10), 0, m.start()) + 1}: unfinished: {m.group(0)}"
            for m in UNFINISHED.finditer(text) if CASE_MATTERS.search(m.group(0))]


def declarations(text):
    """Yields (line, text, has_comment) of each function declared at file scope. A comment explains the declarations that
    follow it without a blank line, or the one on whose line it stands."""
    marked = COMMENT.sub(lambda m: "\x01" + "\x02" * m.group(0).count("\n"), text)  # 1: a comment, 2: a line of it
    marked = re.sub(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", lambda m: "\n" * m.group(0).count("\n"), marked, flags=re.M)
    depth, start, explained = 0, None, False
    i = 0
    while i < len(marked):
        c = marked[i]
        if depth == 0 and start is None:
            if marked.startswith("\n\n", i):
                explained = False
            elif c == "\x01":
                explained = True
            elif not c.isspace() and c not in ";}\x02":
                start = i
        if c == "{":
            depth += 1
        elif c == "}":
            depth -= 1
            if depth == 0 and start is not None and "(" in marked[start:marked.index("{", start)]:
                start = None  # the end of an inline function
        elif c == ";" and depth == 0 and start is not None:
            statement = " ".join(re.sub("[\x01\x02]", " ", marked[start:i]).split())
            statement = re.sub(r"^(NH_(BEGIN|END)_DECLS\s*)+", "", statement)
            trailing = "\x01" in marked[i:marked.find("\n", i)]
            if "(" in statement and "{" not in statement and not statement.startswith("typedef"):
                yield len(re.findall("[\n\x02]", marked[:start])) + 1, statement, explained or trailing
            start = None
        i += 1


def check_public(path, text):
    problems = []
    for line, statement, has_comment in declarations(text):
        if not statement.startswith("NH_API "):
            problems.append(f"{path}:{line}: without NH_API: {statement[:60]}")
        if not re.match(r"NH_API [\w\s*]*?\bnh_\w+\(", statement):
            problems.append(f"{path}:{line}: public names begin with nh_: {statement[:60]}")
        if not has_comment:
            problems.append(f"{path}:{line}: without a comment: {statement[:60]}")
    return problems


def main():
    root = common.arguments(__doc__).root
    problems, n = [], 0
    code = common.sources(root, ".c", ".h", ".py", ".sh", ".proto", ".yaml", ".build")
    for path in code + [p.relative_to(root) for p in root.glob("*.sh")]:
        problems += check_words(path, (root / path).read_text())
        n += 1
    headers = common.public_headers(root)
    for path in headers:
        problems += check_public(path, (root / path).read_text())
    common.finish(problems, f"{n} files, {len(headers)} public headers")


main()
