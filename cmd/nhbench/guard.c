#include "cmd/nhbench/guard.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cmd/nhbench/must.h"

#define WORDS_MAX    256
#define RESULT_BYTES 65536u
#define TREE         "/tree"
#define BUILD        "/build"

/* ---- other programs ---- */

/* Runs argv[0] from PATH; what it prints goes to `out` of RESULT_BYTES, or to stderr (out NULL). quiet: stderr is not shown. */
static bool run_program(const char *const *argv, char *out, bool quiet)
{
    int pipe_fds[2] = {-1, -1}, status = 0;
    size_t size = 0;
    ssize_t n;
    pid_t pid;

    if (pipe2(pipe_fds, O_CLOEXEC) < 0 || (pid = fork()) < 0) {
        perror("nhbench: start a program");
        return false;
    }
    if (pid == 0) {
        if (quiet)
            dup2(open("/dev/null", O_WRONLY | O_CLOEXEC), STDERR_FILENO);
        dup2(out ? pipe_fds[1] : STDERR_FILENO, STDOUT_FILENO);
        execvp(argv[0], (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    close(pipe_fds[1]);
    while (out && size < RESULT_BYTES - 1 && ((n = read(pipe_fds[0], out + size, RESULT_BYTES - 1 - size)) > 0 || errno == EINTR))
        size += n > 0 ? (size_t)n : 0;
    close(pipe_fds[0]);
    if (out)
        out[size] = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return true;
    fprintf(stderr, "nhbench: %s %s has failed%s\n", argv[0], argv[1] ? argv[1] : "",
            WIFEXITED(status) && WEXITSTATUS(status) == 127 ? ": is it installed?" : "");
    return false;
}

/* ---- the other build ---- */

struct other {
    char dir[PATH_MAX - 64]; /* tree and build are in it */
    bool has_tree;
};

static bool build_other(struct other *b, const struct bench_options *o)
{
    char tree[PATH_MAX], build[PATH_MAX];
    const char *const add[] = {"git", "-C", o->source, "worktree", "add", "--quiet", "--detach", tree, o->against, NULL};
    const char *const setup[] = {"meson", "setup", "--buildtype=release", build, tree, NULL};
    const char *const make[] = {"ninja", "-C", build, "cmd/nhbench/nhbench", "cmd/machines/kv.so", NULL};

    snprintf(tree, sizeof tree, "%s" TREE, b->dir);
    snprintf(build, sizeof build, "%s" BUILD, b->dir);
    fprintf(stderr, "building %s in %s\n", o->against, build);
    b->has_tree = run_program(add, NULL, false);
    return b->has_tree && run_program(setup, NULL, !o->verbose) && run_program(make, NULL, !o->verbose);
}

static void remove_other(const struct other *b, const struct bench_options *o)
{
    char tree[PATH_MAX];
    const char *const forget[] = {"git", "-C", o->source, "worktree", "remove", "--force", tree, NULL};
    const char *const clean[] = {"rm", "-rf", b->dir, NULL};

    snprintf(tree, sizeof tree, "%s" TREE, b->dir);
    if (b->has_tree)
        run_program(forget, NULL, false);
    run_program(clean, NULL, false);
}

/* ---- runs ---- */

bool guard_find(const char *json, const char *name, double *ret)
{
    char key[64], *end;
    const char *at;

    snprintf(key, sizeof key, "\"%s\":", name);
    at = strstr(json, key);
    if (!at)
        return false;
    at += strlen(key);
    *ret = strtod(at, &end);
    return end != at;
}

/* Our own options mean nothing to `run`, least of all to an older one. Returns how many words of ours begin at `word`. */
static int own_words(const char *word)
{
    static const char *const own[] = {"--against", "--source", "--rounds", "--below"};

    for (size_t i = 0; i < sizeof own / sizeof own[0]; i++) {
        size_t n = strlen(own[i]);

        if (strncmp(word, own[i], n) == 0 && (word[n] == 0 || word[n] == '='))
            return word[n] == 0 ? 2 : 1;
    }
    return 0;
}

struct figures {
    double ops, ops_per_cpu;
};

static bool measure(const char *program, const struct bench_options *o, struct figures *ret)
{
    const char *argv[WORDS_MAX + 1] = {program, "run", "--json"};
    char *json = must(malloc(RESULT_BYTES));
    int n = 3;
    bool ok;

    for (int i = 0; i < o->n_words && n < WORDS_MAX;) {
        int own = own_words(o->words[i]);

        if (own == 0)
            argv[n++] = o->words[i++];
        i += own;
    }
    ok = run_program(argv, json, !o->verbose);
    if (ok && !(guard_find(json, "ops_per_second", &ret->ops) && guard_find(json, "ops_per_cpu_second", &ret->ops_per_cpu) &&
                ret->ops > 0 && ret->ops_per_cpu > 0)) {
        fprintf(stderr, "nhbench: %s gives no result\n", program);
        ok = false;
    }
    free(json);
    return ok;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

double guard_median(double *values, uint32_t n)
{
    qsort(values, n, sizeof *values, by_value);
    return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

/* One pair. Who begins changes with every round: the second finds a warmer disk. */
static bool measure_pair(const char *ours, const char *theirs, const struct bench_options *o, uint32_t round,
                         struct figures ret[2])
{
    bool ours_first = round % 2 == 0;

    return measure(ours_first ? ours : theirs, o, &ret[ours_first ? 0 : 1]) &&
           measure(ours_first ? theirs : ours, o, &ret[ours_first ? 1 : 0]);
}

static int compare(const char *ours, const char *theirs, const struct bench_options *o)
{
    double ops[GUARD_ROUNDS_MAX], per_cpu[GUARD_ROUNDS_MAX], ops_ratio, per_cpu_ratio;

    printf("%-6s %12s %12s %7s   %12s %12s %7s\n", "round", "ops/s here", "there", "ratio", "per CPU s", "there", "ratio");
    for (uint32_t i = 0; i < o->rounds; i++) {
        struct figures f[2];

        if (!measure_pair(ours, theirs, o, i, f))
            return 2;
        ops[i] = f[0].ops / f[1].ops;
        per_cpu[i] = f[0].ops_per_cpu / f[1].ops_per_cpu;
        printf("%-6u %12.0f %12.0f %7.3f   %12.0f %12.0f %7.3f\n", i + 1, f[0].ops, f[1].ops, ops[i], f[0].ops_per_cpu,
               f[1].ops_per_cpu, per_cpu[i]);
        fflush(stdout);
    }
    ops_ratio = guard_median(ops, o->rounds);
    per_cpu_ratio = guard_median(per_cpu, o->rounds);
    printf("%-6s %12s %12s %7.3f   %12s %12s %7.3f\n", "median", "", "", ops_ratio, "", "", per_cpu_ratio);
    if (ops_ratio >= o->below && per_cpu_ratio >= o->below)
        return 0;
    printf("slower than %s: a median is below %g\n", o->against, o->below);
    return 1;
}

int guard_main(const struct bench_options *o)
{
    struct other other = {0};
    char ours[PATH_MAX], theirs[PATH_MAX], here[PATH_MAX - 128];
    ssize_t n = readlink("/proc/self/exe", ours, sizeof ours - 1);
    int result = 2;

    if (n < 0 || !getcwd(here, sizeof here)) {
        perror("nhbench: find this program and this directory");
        return 2;
    }
    ours[n] = 0;
    snprintf(other.dir, sizeof other.dir, "%s/nhbench-guard.XXXXXX", here);
    if (!mkdtemp(other.dir)) {
        fprintf(stderr, "nhbench: make %s: %s\n", other.dir, strerror(errno));
        return 2;
    }
    snprintf(theirs, sizeof theirs, "%s" BUILD "/cmd/nhbench/nhbench", other.dir);
    if (build_other(&other, o))
        result = compare(ours, theirs, o);
    remove_other(&other, o);
    return result;
}
