#!/usr/bin/env python3
"""Each check passes on a small clean tree and fails, for the right reason, on every planted violation."""
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

HERE = pathlib.Path(__file__).resolve().parent

CLEAN = {
    "meson.build": "subdir('raftio')\n",
    "raftio/meson.build": "public_headers += {'raftio': files('a.h')}\n",
    "raftio/a.h": "#ifndef NH_RAFTIO_A_H\n#define NH_RAFTIO_A_H\n#define NH_API __attribute__((visibility(\"default\")))\n"
                  "/* Says a. */\nNH_API int nh_a(int x);\n#endif\n",
    "raftio/a.c": '#include "raftio/a.h"\n\n#include <time.h>\n\nint nh_a(int x)\n{\n    return x;\n}\n',
    "engine/raft/r.h": '#ifndef NH_R_H\n#define NH_R_H\n#include "raftio/a.h"\nint r_step(int x);\n#endif\n',
    "engine/raft/r.c": '#include "engine/raft/r.h"\n\n#include <string.h>\n\nint r_step(int x)\n{\n    return nh_a(x);\n}\n',
    "engine/raft/r_internal.h": "#ifndef NH_RI_H\n#define NH_RI_H\n#endif\n",
    "engine/e.h": '#ifndef NH_E_H\n#define NH_E_H\n#include "engine/raft/r.h"\n#endif\n',
    "engine/runtime_threads.c": '#include "engine/e.h"\n\n#include <time.h>\n\nlong runtime_now(void)\n{\n    return time(0);\n}\n',
    "logdb/rocksdb/rocksdb_logdb.h": "#ifndef NH_RL_H\n#define NH_RL_H\n#endif\n",
    "logdb/rocksdb/keys.h": "#ifndef NH_KEYS_H\n#define NH_KEYS_H\n#endif\n",
    "nodehost/n.c": '#include "engine/e.h"\n#include "logdb/rocksdb/rocksdb_logdb.h"\n',
    "cmd/c.c": '#include "raftio/a.h"\n',
    "cmd/nodehostd/command.c": '#include "raftio/a.h"\n\nstatic const struct command commands[] = {\n    {"get", 2, 0},\n    {"nh.x", -2, 1},\n};\n',
    "README.md": "# Top\n\nSee [HACKING](docs/HACKING.md#four-commands) and `raftio/a.h`.\n\n```sh\n./run.sh --suite lint\n```\n\n"
                 "## Redis commands\n\n`GET`, `NH.X`\n\n## End\n",
    "docs/HACKING.md": "# Hacking\n\n## Four commands\n",
    "tests/lint/meson.build": "",
    "run.sh": "#!/bin/sh\n",
}


class LintTest(unittest.TestCase):
    def setUp(self):
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="nh-lint-"))
        self.addCleanup(shutil.rmtree, self.root)
        for name, text in CLEAN.items():
            self.write(name, text)
        (self.root / "run.sh").chmod(0o755)

    def write(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def run_check(self, script, *args):
        return subprocess.run([sys.executable, HERE / script, "--root", self.root, *args], capture_output=True, text=True)

    def passes(self, script, *args):
        done = self.run_check(script, *args)
        if done.returncode == 77:
            self.skipTest(done.stdout.strip())
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def fails(self, reason, script, *args):
        done = self.run_check(script, *args)
        self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
        self.assertIn(reason, done.stdout)

    def build(self, output, source, *options):
        (self.root / "t.c").write_text(source)
        subprocess.run(["cc", *options, "-I", self.root, "-o", self.root / output, self.root / "t.c"], check=True)
        (self.root / "t.c").unlink()
        return str(self.root / output)


class Layers(LintTest):
    def planted(self, name, text, reason):
        self.write(name, text)
        self.fails(reason, "layers.py")

    def test_clean_tree_passes(self):
        self.passes("layers.py")

    def test_include_from_above(self):
        self.planted("raftio/b.c", '#include "engine/e.h"\n', "raftio/b.c:1: engine/e.h is above or beside raftio/")

    def test_locale_where_replicas_must_agree(self):
        self.planted("cmd/machines/m.c", "#include <strings.h>\n", "cmd/machines/m.c:1: strings.h is only for cmd/nodehostd")

    def test_core_includes_engine(self):
        self.planted("engine/raft/x.c", '#include "engine/e.h"\n', "engine/e.h is above or beside engine/raft/")

    def test_plugins_beside_each_other(self):
        self.planted("transport/t.c", '#include "logdb/rocksdb/keys.h"\n', "is above or beside transport/")

    def test_nodehost_knows_only_constructors(self):
        self.planted("nodehost/m.c", '#include "logdb/rocksdb/keys.h"\n', "is above or beside nodehost/")

    def test_cmd_uses_private_header(self):
        self.planted("cmd/d.c", '#include "engine/e.h"\n', "engine/e.h is not a public header")

    def test_internal_header_stays_in_its_folder(self):
        self.planted("engine/x.c", '#include "engine/raft/r_internal.h"\n', "is private to engine/raft/")

    def test_include_without_folder(self):
        self.planted("raftio/b.c", '#include "a.h"\n', "a.h is not a header of the project")

    def test_project_header_in_angles(self):
        self.planted("raftio/b.c", "#include <raftio/a.h>\n", "is ours: quote it")

    def test_core_includes_time(self):
        self.planted("engine/raft/x.c", '#include "engine/raft/r.h"\n#include <time.h>\n', "time.h is not on the core's list")

    def test_engine_includes_time(self):
        self.planted("engine/x.c", '#include "engine/e.h"\n#include <time.h>\n', "time.h belongs behind the runtime")

    def test_engine_includes_uv(self):
        self.planted("engine/x.c", '#include "engine/e.h"\n#include <uv.h>\n', "uv.h is only for")

    def test_engine_starts_a_thread(self):
        self.planted("engine/x.c", '#include "engine/e.h"\nvoid f(void)\n{\n    pthread_create(0, 0, 0, 0);\n}\n',
                     "engine/x.c:4: pthread_create() belongs behind the runtime")

    def test_engine_opens_a_file(self):
        self.planted("engine/x.c", '#include "engine/e.h"\nvoid f(void)\n{\n    rename("a", "b");\n}\n',
                     "engine/x.c:4: rename() belongs behind engine/files.h")

    def test_engine_includes_fcntl(self):
        self.planted("engine/x.c", '#include "engine/e.h"\n#include <fcntl.h>\n', "fcntl.h belongs behind engine/files.h")

    def test_runtime_has_no_files(self):
        self.planted("engine/runtime_threads.c", '#include "engine/e.h"\n#include <sys/stat.h>\n', "sys/stat.h belongs behind")

    def test_files_have_no_time(self):
        self.planted("engine/files_posix.c", '#include "engine/e.h"\nlong f(void)\n{\n    return time(0);\n}\n',
                     "time() belongs behind the runtime")

    def test_engine_includes_unistd(self):
        self.planted("engine/x.c", '#include "engine/e.h"\n#include <unistd.h>\n', "unistd.h belongs behind")

    def test_own_header_is_first(self):
        self.planted("engine/raft/r.c", '#include "raftio/a.h"\n#include "engine/raft/r.h"\n', "is not included first")

    def test_reserved_guard(self):
        self.planted("raftio/b.h", "#ifndef _B_H\n#define _B_H\n#endif\n", "is a reserved name")

    def test_guard_used_twice(self):
        self.planted("raftio/b.h", "#ifndef NH_E_H\n#define NH_E_H\n#endif\n", "is also that of")

    def test_comments_do_not_count(self):
        self.write("raftio/b.c", '/* #include "engine/e.h" */\n')
        self.write("engine/x.c", '#include "engine/e.h"\n/* sleep(1) */\n')
        self.passes("layers.py")


class Purity(LintTest):
    def library(self, source):
        return self.build("r.o", source, "-c", "-O1")

    def test_clean_library_passes(self):
        source = "#include <string.h>\nint nh_block_x(void);\nint a(char *p, const char *q)\n{\n memcpy(p, q, 99); return nh_block_x();\n}\n"
        self.passes("purity.py", self.library(source))

    def test_clock_fails(self):
        self.fails("needs time", "purity.py", self.library("#include <time.h>\nlong a(void)\n{\n return time(0);\n}\n"))

    def test_rand_fails(self):
        self.fails("needs rand", "purity.py", self.library("#include <stdlib.h>\nint a(void)\n{\n return rand();\n}\n"))

    def test_empty_library_fails(self):
        self.fails("defines nothing", "purity.py", self.library("typedef int nothing;\n"))


class HeadersAlone(LintTest):
    def test_clean_headers_pass(self):
        self.passes("headers_alone.py", "--mode", "c11", "cc")
        self.passes("headers_alone.py", "--mode", "private", "cc")

    def test_header_that_needs_another_fails(self):
        self.write("raftio/a.h", "#ifndef A_H\n#define A_H\nuint32_t nh_a(void);\n#endif\n")
        self.fails("raftio/a.h does not compile alone", "headers_alone.py", "--mode", "c11", "cc")

    def test_private_header_that_needs_another_fails(self):
        self.write("engine/e.h", "#ifndef E_H\n#define E_H\nuint32_t e(void);\n#endif\n")
        self.fails("engine/e.h does not compile alone", "headers_alone.py", "--mode", "private", "cc")

    def test_missing_compiler_is_skipped(self):
        self.assertEqual(self.run_check("headers_alone.py", "--mode", "c11", "no-such-compiler").returncode, 77)


class Sizes(LintTest):
    def function(self, lines, head="int f(int a,\n      int b)\n{\n"):
        return head + "    a++;\n" * (lines - head.count("\n") - 1) + "}\n"

    def test_function_at_the_limit_passes(self):
        self.write("raftio/b.c", self.function(70) + "\n" + self.function(70, "int g(void) {\n"))
        self.passes("sizes.py")

    def test_function_one_past_it_fails(self):
        self.write("raftio/b.c", "int x;\n\n" + self.function(71))
        self.fails("raftio/b.c:3: 71 lines", "sizes.py")

    def test_brace_on_the_signature_line_is_seen(self):
        self.write("raftio/b.c", self.function(71, "int g(void) {\n"))
        self.fails("raftio/b.c:1: 71 lines", "sizes.py")

    def test_file_at_the_limit_passes(self):
        self.write("raftio/b.c", "int x;\n" * 1000)
        self.passes("sizes.py")

    def test_file_one_past_it_fails(self):
        self.write("raftio/b.c", "int x;\n" * 1001)
        self.fails("1001 lines; a file", "sizes.py")

    def test_long_struct_is_no_function(self):
        self.write("raftio/b.c", "struct s {\n" + "    int x;\n" * 90 + "};\n")
        self.passes("sizes.py")


class Format(LintTest):
    def test_format_is_checked(self):
        self.write(".clang-format", "BasedOnStyle: LLVM\n")
        for path in list(self.root.rglob("*.[ch]")):
            path.unlink()
        self.write("raftio/a.c", "int x;\n")
        self.passes("format.py")
        self.write("raftio/a.c", "int   x;\n")
        self.fails("raftio/a.c:1:", "format.py")


class Words(LintTest):
    def test_clean_tree_passes(self):
        self.passes("words.py")

    def test_unfinished_work_fails(self):
        self.write("raftio/b.c", "/* TO" "DO: more */\n")
        self.fails("raftio/b.c:1: unfinished", "words.py")

    def test_public_function_without_export_fails(self):
        self.write("raftio/a.h", "/* Says a. */\nint nh_a(int x);\n")
        self.fails("raftio/a.h:2: without NH_API", "words.py")

    def test_public_function_without_comment_fails(self):
        self.write("raftio/a.h", "/* About the file,\n * in two lines. */\n\nNH_API int nh_a(int x);\n")
        self.fails("raftio/a.h:4: without a comment", "words.py")

    def test_public_function_with_private_name_fails(self):
        self.write("raftio/a.h", "/* Says a. */\nNH_API int a(int x);\n")
        self.fails("public names begin with nh_", "words.py")


class Docs(LintTest):
    def planted(self, text, reason):
        self.write("docs/X.md", text)
        self.fails(reason, "docs.py")

    def test_clean_tree_passes(self):
        self.passes("docs.py")

    def test_dead_link_fails(self):
        self.planted("[x](nowhere.md)\n", "no such file")

    def test_dead_anchor_fails(self):
        self.planted("[x](HACKING.md#five-commands)\n", "no such heading")

    def test_missing_path_fails(self):
        self.planted("Look into `raftio/none.h`.\n", "`raftio/none.h` does not exist")

    def test_missing_script_fails(self):
        self.planted("```sh\n./none.sh\n```\n", "./none.sh is no program")

    def test_unbuilt_program_fails(self):
        self.planted("```sh\nbuild/cmd/nodehostd/nodehostd\n```\n", "is not built by any meson.build")

    def test_unlisted_redis_command_fails(self):
        self.write("README.md", CLEAN["README.md"].replace(", `NH.X`", ""))
        self.fails("the command NH.X is not listed", "docs.py")

    def test_unknown_redis_command_fails(self):
        self.write("README.md", CLEAN["README.md"].replace("`GET`", "`GET`, `GOT`"))
        self.fails("there is no command GOT", "docs.py")

    def test_unknown_suite_fails(self):
        self.planted("`meson test --suite nothing`\n", "there is no suite nothing")


class Exports(LintTest):
    def library(self, source):
        return self.build("libx.so", source, "-shared", "-fPIC", "-fvisibility=hidden")

    def test_clean_library_passes(self):
        machine = self.build("kv.so", '__attribute__((visibility("default"))) int nh_machine_plugin(void)\n{\n return 0;\n}\n',
                             "-shared", "-fPIC", "-fvisibility=hidden")
        self.passes("exports.py", "--machine", machine, self.library(CLEAN["raftio/a.c"]))

    def test_private_export_fails(self):
        source = CLEAN["raftio/a.c"] + "NH_API int b(void);\nint b(void)\n{\n return 0;\n}\n"
        self.fails("b is exported and does not begin with nh_", "exports.py", self.library(source))

    def test_undeclared_export_fails(self):
        source = CLEAN["raftio/a.c"] + "NH_API int nh_b(void);\nint nh_b(void)\n{\n return 0;\n}\n"
        self.fails("nh_b is exported and in no public header", "exports.py", self.library(source))

    def test_missing_export_fails(self):
        self.fails("nh_a is declared in a public header and not exported", "exports.py", self.library("int x;\n"))

    def test_machine_with_other_exports_fails(self):
        library = self.library(CLEAN["raftio/a.c"])
        self.fails("instead of nh_machine_plugin", "exports.py", "--machine", library, library)


class Handlers(LintTest):
    """What scripts/coverage asks of the branches of the core's message handlers."""

    SOURCE = ("static int help(int x)\n{\n    return x ? 1 : 2;\n}\n\nint raft_on_x(int x)\n{\n    return help(x); /* spare */\n}\n\n"
              "int spare(int x)\n{\n    return x ? 3 : 4;\n}\n")
    OTHER = "static int help(int x)\n{\n    return x ? 5 : 6;\n}\n"

    def report(self, line, *counts, path="engine/raft/h.c"):
        """The branches of one line."""
        self.write("engine/raft/h.c", self.SOURCE)
        self.write("engine/raft/i.c", self.OTHER)
        places = {"engine/raft/h.c": [("help", 1), ("raft_on_x", 6), ("spare", 11)], "engine/raft/i.c": [("help", 1)]}
        files = [{"file": name, "functions": [{"name": n, "lineno": at} for n, at in found],
                  "lines": [{"line_number": line, "branches": [{"count": c} for c in counts]}] if name == path else []}
                 for name, found in places.items()]
        self.write("report.json", json.dumps({"files": files}))
        return str(self.root / "report.json")

    def test_all_taken_passes(self):
        self.passes("handlers.py", self.report(3, 1, 2))

    def test_missing_branch_of_what_a_handler_uses_fails(self):
        self.fails("engine/raft/h.c:3: 1 of 2 branches of help", "handlers.py", self.report(3, 0, 2))

    def test_line_that_was_not_run_fails(self):
        self.fails("engine/raft/h.c:3: 2 of 2 branches of help", "handlers.py", self.report(3, 0, 0))

    def test_others_may_miss_branches(self):
        self.passes("handlers.py", self.report(13, 0, 0))
        self.passes("handlers.py", self.report(3, 0, 0, path="engine/raft/i.c"))

    def test_report_without_handlers_fails(self):
        self.write("report.json", '{"files": []}')
        self.fails("no function raft_on_*", "handlers.py", str(self.root / "report.json"))


class Summary(LintTest):
    """tests/summary.py, which decides whether test.sh passed."""

    def summary(self, runs, cases):
        logs = self.root / "b" / "meson-logs"
        logs.mkdir(parents=True)
        lines = [json.dumps({"name": f"nodehost:unit / {name}", "result": result, "duration": 1.0}) for name, result in runs]
        (logs / "testlog.json").write_text("\n".join(lines))
        suites = "".join(f'<testsuite name="nodehost.nodehost:unit / {name}">{body}</testsuite>' for name, body in cases)
        (logs / "testlog.junit.xml").write_text(f"<testsuites>{suites}</testsuites>")
        done = subprocess.run([sys.executable, HERE.parent / "summary.py", self.root / "b"], capture_output=True, text=True)
        return done.returncode, done.stdout.splitlines()[-1]

    def test_cases_and_programs_are_added_up(self):
        two = '<testcase name="x"/><testcase name="y"/><testcase name="z"><skipped/></testcase>'
        self.assertEqual(self.summary([("a", "OK"), ("b", "OK"), ("c", "SKIP")], [("a", two)]), (0, "3 passed, 0 failed"))

    def test_failed_case_fails(self):
        cases = '<testcase name="x"/><testcase name="y"><failure/></testcase>'
        self.assertEqual(self.summary([("a", "FAIL")], [("a", cases)]), (1, "1 passed, 1 failed"))

    def test_program_that_dies_after_its_cases_fails(self):
        self.assertEqual(self.summary([("a", "ERROR")], [("a", '<testcase name="x"/>')]), (1, "1 passed, 1 failed"))

    def test_timeout_fails(self):
        self.assertEqual(self.summary([("a", "TIMEOUT"), ("b", "OK")], []), (1, "1 passed, 1 failed"))

    def test_no_test_fails(self):
        self.assertEqual(self.summary([], []), (1, "0 passed, 1 failed"))

    def test_missing_log_fails(self):
        done = subprocess.run([sys.executable, HERE.parent / "summary.py", self.root / "none"], capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stdout.splitlines()[-1]), (1, "0 passed, 1 failed"))


unittest.main(verbosity=1)
