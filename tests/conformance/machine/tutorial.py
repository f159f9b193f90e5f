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


class Tutorial:
    def __init__(self, root, build):
        """root: of the sources; build: the build directory, where the headers are found by pkg-config."""
        blocks = BLOCK.findall((root / "docs/MACHINES.md").read_text())
        self.pieces = [text for language, text in blocks if language == "c"]
        template = [text for text in self.pieces if "nh_machine_plugin(void)\n{" in text]
        shell = [text for language, text in blocks if language == "sh" and text.startswith("cc ")]
        meson = [text for language, text in blocks if language == "meson"]
        if len(template) != 1 or len(shell) != 1 or len(meson) != 1 or len(self.pieces) < 3:
            sys.exit("expected one template, one call of cc, one meson.build and pieces of the counter")
        self.template, self.shell, self.meson = template[0], shell[0], meson[0]
        self.env = dict(os.environ, PKG_CONFIG_PATH=str(build / "meson-uninstalled"))

    def build_with_cc(self, directory):
        """Makes mine.c and mine.so there."""
        (directory / "mine.c").write_text(self.template)
        run("sh", "-ec", self.shell.replace("-Wextra", "-Wextra -Werror"), cwd=directory, env=self.env)

    def build_with_meson(self, directory):
        """mine.c is there; makes build/mine.so."""
        (directory / "meson.build").write_text(self.meson)
        run("meson", "setup", "build", "-Dwerror=true", cwd=directory, env=self.env)
        run("meson", "compile", "-C", "build", cwd=directory, env=self.env)


def main():
    root, build, kit = map(pathlib.Path, sys.argv[1:])
    tutorial = Tutorial(root, build)
    counter = (root / "cmd/machines/counter.c").read_text()
    strange = [text for text in tutorial.pieces if text != tutorial.template and text not in counter]
    if strange:
        sys.exit(f"not in cmd/machines/counter.c:\n{strange[0]}")
    with tempfile.TemporaryDirectory() as directory:
        mine = pathlib.Path(directory)
        tutorial.build_with_cc(mine)
        print(run(kit, mine / "mine.so"))
        tutorial.build_with_meson(mine)
        print(run(kit, "--only", "acceptance", mine / "build/mine.so"))


if __name__ == "__main__":
    main()
