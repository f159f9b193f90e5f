#!/usr/bin/env python3
"""The code of docs/MACHINES.md: tutorial.py ROOT BUILD KIT. Its template compiles by the commands that it shows, with cc and with meson, and
passes the kit; every other piece of C in it stands in cmd/machines/counter.c."""
import os
import pathlib
import re
import subprocess
import sys
import tempfile

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.S | re.M)


def run(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if done.returncode:
        sys.exit(f"{command}\n{done.stdout}{done.stderr}")
    return done.stdout


def main():
    root, build, kit = map(pathlib.Path, sys.argv[1:])
    blocks = BLOCK.findall((root / "docs/MACHINES.md").read_text())
    pieces = [text for language, text in blocks if language == "c"]
    template = [text for text in pieces if "nh_machine_plugin(void)\n{" in text]
    counter = (root / "cmd/machines/counter.c").read_text()
    strange = [text for text in pieces if text not in template and text not in counter]
    shell = [text for language, text in blocks if language == "sh" and text.startswith("cc ")]
    meson = [text for language, text in blocks if language == "meson"]
    if len(template) != 1 or len(shell) != 1 or len(meson) != 1 or len(pieces) < 3:
        sys.exit("expected one template, one call of cc, one meson.build and pieces of the counter")
    if strange:
        sys.exit(f"not in cmd/machines/counter.c:\n{strange[0]}")

    env = dict(os.environ, PKG_CONFIG_PATH=str(build / "meson-uninstalled"))
    with tempfile.TemporaryDirectory() as directory:
        mine = pathlib.Path(directory)
        (mine / "mine.c").write_text(template[0])
        (mine / "meson.build").write_text(meson[0])
        run("sh", "-ec", shell[0].replace("-Wextra", "-Wextra -Werror"), cwd=mine, env=env)
        print(run(kit, mine / "mine.so"))
        run("meson", "setup", "build", "-Dwerror=true", cwd=mine, env=env)
        run("meson", "compile", "-C", "build", cwd=mine, env=env)
        print(run(kit, "--only", "acceptance", mine / "build/mine.so"))


main()
