#!/usr/bin/env python3
"""The include table of docs/ARCHITECTURE.md: who may include what, and which calls stay behind which door."""
import re

import common

# Folder -> folders whose headers it may include, besides public headers for cmd. The longest matching folder counts.
MAY_INCLUDE = {
    "raftio": ["raftio"],
    "engine/raft": ["raftio", "engine/raft"],
    "engine": ["raftio", "engine"],
    "logdb": ["raftio", "logdb"],
    "transport": ["raftio", "transport"],
    "nodehost": ["raftio", "engine", "nodehost"],
    "cmd/machines": ["cmd/machines"],
    "cmd": ["cmd"],
}
# The default plugins' constructors: all that nodehost knows of logdb and transport.
CONSTRUCTORS = {"rocksdb_logdb.h", "memory_logdb.h", "tcp_transport.h", "loopback.h"}

# The core gets an allow-list; the others a list of what belongs to one folder only.
CORE_SYSTEM_HEADERS = {"assert.h", "inttypes.h", "limits.h", "stdalign.h", "stdbool.h", "stddef.h", "stdint.h", "stdlib.h", "string.h"}
SYSTEM_HEADER_HOMES = [
    (re.compile(r"^rocksdb/"), ["logdb/rocksdb", "cmd/machines", "cmd/nhbench"]),
    (re.compile(r"^uv(\.h|/)"), ["transport/tcp", "cmd"]),
    (re.compile(r"^cyaml/"), ["cmd"]),
    (re.compile(r"^protobuf-c/"), ["raftio"]),
    (re.compile(r"^zstd\.h$"), ["engine/rsm"]),
    (re.compile(r"^xxhash\.h$"), ["engine/rsm", "cmd", "nodehost"]),
    # What depends on the process's locale is not for what all replicas must decide alike.
    (re.compile(r"^(ctype|wctype|strings|locale|langinfo)\.h$"), ["cmd/nodehostd", "cmd/nhbench", "tests"]),
]

# Doors of the engine: time, sleep and threads exist only behind its runtime, files only behind engine/files.h. A header or call
# of a door may be used in its one source alone; unistd.h, signal.h and their like belong to several.
RUNTIME = "engine/runtime_threads.c"
FILES = "engine/files_posix.c"
FAILPOINT = "engine/failpoint.c"
ENGINE_DOOR_HEADERS = [
    (re.compile(r"(time|threads|poll|sched|semaphore|sys/(time|timerfd|epoll|eventfd|random))\.h"), {RUNTIME}, "the runtime"),
    (re.compile(r"(fcntl|dirent|ftw|glob|sys/(stat|statvfs|file|mman|uio|types|xattr))\.h"), {FILES}, "engine/files.h"),
    (re.compile(r"(unistd|signal|sys/.*)\.h"), {RUNTIME, FILES, FAILPOINT}, "the runtime"),
]
ENGINE_DOOR_CALLS = [
    (re.compile(
        r"(?<![\w.>])(clock_gettime|gettimeofday|time|nanosleep|clock_nanosleep|usleep|sleep|sched_yield|rand|random|srand|"
        r"getrandom|thrd_\w+|pthread_(?!mutex|rwlock)\w+)\s*\("), RUNTIME, "the runtime"),
    (re.compile(
        r"(?<![\w.>])(fopen|freopen|tmpfile|mkstemp|mkdtemp|open|openat|creat|mkdir|mkdirat|rename|renameat|unlink|unlinkat|remove|rmdir|link|"
        r"symlink|opendir|fsync|fdatasync|truncate|ftruncate)\s*\("), FILES, "engine/files.h"),
]

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"]+)[>"]', re.M)
GENERATED = {"raftio/raftpb.pb-c.h"}


def inside(path, folder):
    return path == folder or path.startswith(folder + "/")


def layer_of(path):
    return max((f for f in MAY_INCLUDE if inside(path, f)), key=len, default=None)


def check_project_include(root, path, target, public):
    """The reason why `path` may not include the project's header `target`, or None."""
    if target not in GENERATED and not (root / target).is_file():
        return "is not a header of the project (from its root, with the folder)"
    folder = target.rsplit("/", 1)[0]
    if target.endswith(("_internal.h", "_private.h")) and folder != path.rsplit("/", 1)[0] and not inside(path, "tests"):
        return f"is private to {folder}/"
    layer = layer_of(path)
    if layer is None or any(inside(target, f) for f in MAY_INCLUDE[layer]):
        return None
    if layer.startswith("cmd"):
        return None if target in public else "is not a public header"
    if layer == "nodehost" and target.rsplit("/", 1)[1] in CONSTRUCTORS and target.startswith(("logdb/", "transport/")):
        return None
    return f"is above or beside {layer}/"


def check_system_include(path, target):
    layer = layer_of(path)
    if layer is None:
        return None
    if layer == "engine/raft":
        return None if target in CORE_SYSTEM_HEADERS else "is not on the core's list"
    if layer == "engine":
        for pattern, homes, door in ENGINE_DOOR_HEADERS:
            if pattern.fullmatch(target):
                return None if path in homes else f"belongs behind {door} ({', '.join(sorted(homes))})"
    for pattern, homes in SYSTEM_HEADER_HOMES:
        if pattern.match(target) and not any(inside(path, home) for home in homes):
            return f"is only for {' and '.join(homes)}"
    return None


def check_includes(root, path, text, public):
    problems = []
    quoted = []
    stripped = common.strip_comments(text, keep_strings=True)
    for match in INCLUDE.finditer(stripped):
        target, line = match.group(2), stripped.count("\n", 0, match.start()) + 1
        if match.group(1) == '"':
            quoted.append(target)
            reason = check_project_include(root, path, target, public)
        elif (root / target).is_file():
            reason = "is ours: quote it"
        else:
            reason = check_system_include(path, target)
        if reason:
            problems.append(f"{path}:{line}: {target} {reason}")
    first = INCLUDE.search(stripped)
    own = path[:-2] + ".h"
    if path.endswith(".c") and (root / own).is_file() and (not first or first.group(2) != own):
        problems.append(f"{path}: its own header {own} is not included first")
    elif path.endswith(".c") and layer_of(path) and quoted and first.group(1) == "<":
        problems.append(f"{path}: a system header comes before the project's")
    return problems


def check_guard(path, text, guards):
    match = re.search(r"^#ifndef (\w+)\n#define (\w+)", common.strip_comments(text), re.M)
    if not match or match.group(1) != match.group(2):
        return [f"{path}: no include guard"]
    guard = match.group(1)
    if guard.startswith("_") or "__" in guard:
        return [f"{path}: include guard {guard} is a reserved name"]
    if guard in guards:
        return [f"{path}: include guard {guard} is also that of {guards[guard]}"]
    guards[guard] = path
    return []


def check_calls(path, text):
    if not inside(path, "engine"):
        return []
    text = common.strip_comments(text)
    return [f"{path}:{text.count(chr(10), 0, m.start()) + 1}: {m.group(1)}() belongs behind {door}"
            for pattern, home, door in ENGINE_DOOR_CALLS if path != home for m in pattern.finditer(text)]


def main():
    root = common.arguments(__doc__).root
    public = {str(h) for h in common.public_headers(root)}
    problems, guards = [], {}
    if not public:
        problems.append("no public headers: is the parser of meson.build wrong?")
    files = common.sources(root, ".c", ".h")
    for file in files:
        path, text = str(file), (root / file).read_text()
        problems += check_includes(root, path, text, public)
        problems += check_calls(path, text)
        if path.endswith(".h"):
            problems += check_guard(path, text, guards)
    common.finish(problems, f"{len(files)} files, {len(public)} public headers")


main()
