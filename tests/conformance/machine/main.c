/* machine_kit - does a machine keep the contract of raftio/machine.h? Usage: below. For authors: docs/MACHINES.md. */
#include "tests/conformance/machine/kit.h"

#include <errno.h>
#include <ftw.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define POLL_US 10000

struct kit kit = {.seed = 1, .n_entries = 300, .call_limit_ms = 20000};

const struct kit_check kit_checks[] = {
    {"acceptance", "the table is complete and a host takes it", KIT_ANY, check_acceptance},
    {"errors_are_results", "update takes any bytes", KIT_ANY, check_errors_are_results},
    {"lifecycle", "two instances at once, opened, used, closed; with a sanitizer: without leaks", KIT_ANY, check_lifecycle},
    {"determinism", "equal entries in other batches, at another time: equal results, state and image", KIT_ANY,
     check_determinism},
    {"borrowed_memory", "a command is overwritten and freed after update", KIT_ANY, check_borrowed_memory},
    {"results_stay", "results are valid until the next update", KIT_ANY, check_results_stay},
    {"lookups", "queries change nothing; a writer's failure is passed on", KIT_ANY, check_lookups},
    {"snapshot_round_trip", "recover into a new and a used instance, then the same entries: equal", KIT_SNAPSHOTS,
     check_snapshot_round_trip},
    {"snapshot_moment", "several contexts at once, each of its moment; released without being saved", KIT_SNAPSHOTS,
     check_snapshot_moment},
    {"writer_errors", "failures of writer and reader are passed on", KIT_SNAPSHOTS, check_writer_errors},
    {"stop", "save_snapshot and recover end early when told to", KIT_SNAPSHOTS, check_stop},
    {"mangled_images", "cut, flipped and foreign images: a failure or a sound state", KIT_SNAPSHOTS, check_mangled_images},
    {"concurrency", "lookups and snapshots beside updates, as the kind allows", KIT_ANY, check_concurrency},
    {"restart", "closed and opened again: the applied index is that of the state", KIT_ON_DISK, check_restart},
    {"crash", "killed at any time: what was synced is there, and nothing in between is missing", KIT_ON_DISK, check_crash},
    {"crash_in_recover", "killed inside recover: the old state, the new one, or none", KIT_ON_DISK, check_crash_in_recover},
    {0},
};

static const char usage[] = "usage: machine_kit [options] path/to/machine.so\n"
                            "  --commands FILE      commands and queries for this machine (default: random bytes alone)\n"
                            "  --seed N             another seed gives other entries (default 1)\n"
                            "  --entries N          entries per check (default 300)\n"
                            "  --call-limit SECONDS a call that takes longer is taken for blocked (default 20)\n"
                            "  --only CHECK         one check\n"
                            "  --fail-fast          end with the first check that fails\n"
                            "  --list               names the checks\n"
                            "Ends with 0 if the machine keeps the contract, 1 if not, 2 if it can not be tested.\n";

/* ---- one check ---- */

static int remove_path(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st, (void)kind, (void)at;
    return remove(path);
}

static void run_in_child(const struct kit_check *check)
{
    struct nh_error err = {0};

    setpgid(0, 0);
    if (nh_machine_load(kit.machine, &kit.ops, &err) < 0)
        kit_fail("raftio/plugin.h: a table is refused if its ABI version is another or a required member is NULL", "%s",
                 err.text);
    check->run();
    fflush(stdout);
    if (check->run == check_lifecycle)
        exit(0); /* a leak is seen at the end of the process: once is enough */
    _exit(0);
}

/* The call that has not returned in time; NULL: there is none. */
static const char *blocked_call(void)
{
    for (size_t i = 0; i < KIT_THREADS; i++) {
        const struct kit_call *c = &kit.shared->calls[i];
        const char *name = __atomic_load_n(&c->name, __ATOMIC_ACQUIRE);

        if (name && kit_now_ms() - __atomic_load_n(&c->began_ms, __ATOMIC_ACQUIRE) > kit.call_limit_ms)
            return name;
    }
    return NULL;
}

static int wait_for(pid_t pid)
{
    int status;

    while (waitpid(pid, &status, WNOHANG) == 0) {
        const char *call = blocked_call();

        if (call) {
            snprintf(kit.shared->what, sizeof kit.shared->what,
                     "%s has not returned for %" PRId64 " s: it blocks, or is far too slow", call, kit.call_limit_ms / 1000);
            snprintf(kit.shared->contract, sizeof kit.shared->contract,
                     "a machine serves its replica and shares its thread with others: every call comes back, and by itself");
            kill(-pid, SIGKILL);
            kill(pid, SIGKILL);
        }
        usleep(POLL_US);
    }
    return status;
}

static void explain_end(int status)
{
    struct kit_shared *s = kit.shared;

    if (s->what[0] || (WIFEXITED(status) && WEXITSTATUS(status) == 0))
        return;
    if (WIFSIGNALED(status))
        snprintf(s->what, sizeof s->what, "it crashed: signal %d, %s", WTERMSIG(status), strsignal(WTERMSIG(status)));
    else
        snprintf(s->what, sizeof s->what, "the process ended with %d: a leak, or what a sanitizer says above",
                 WEXITSTATUS(status));
    snprintf(s->contract, sizeof s->contract,
             "raftio/plugin.h: a crash in a plugin is a crash of the host and of all its shards");
}

static bool run_check(const struct kit_check *check, const char *root)
{
    struct kit_shared *s = kit.shared;
    int status;
    pid_t pid;

    memset(s->calls, 0, sizeof s->calls);
    s->n_threads = 0;
    s->what[0] = s->contract[0] = s->note[0] = 0;
    snprintf(kit.dir, sizeof kit.dir, "%s/%s", root, check->name);
    if (mkdir(kit.dir, 0700) < 0) {
        fprintf(stderr, "%s: %s\n", kit.dir, strerror(errno));
        exit(2);
    }
    fflush(stdout);
    pid = fork();
    if (pid == 0)
        run_in_child(check);
    status = wait_for(pid);
    explain_end(status);
    nftw(kit.dir, remove_path, 16, FTW_DEPTH | FTW_PHYS);
    printf("%-5s %-20s %s\n", s->what[0] ? "FAIL" : "ok", check->name, s->what[0] ? s->what : check->what);
    if (s->what[0])
        printf("      contract: %s\n", s->contract);
    if (s->note[0])
        printf("      note: %s\n", s->note);
    return !s->what[0];
}

/* Why a check does not apply to this machine; NULL: it does. */
static const char *not_applicable(const struct kit_check *check)
{
    const struct kit_shared *s = kit.shared;

    if (check->needs & KIT_ON_DISK && s->kind != NH_MACHINE_ON_DISK)
        return "for on-disk machines";
    if (check->needs & KIT_SNAPSHOTS && !s->has_snapshots)
        return "it has no snapshots (its shard's log grows for ever), or some with files";
    return NULL;
}

static int run_all(const char *only, bool fail_fast, const char *root)
{
    int n_ok = 0, n_failed = 0, n_skipped = 0;

    for (const struct kit_check *c = kit_checks; c->name; c++) {
        if (only && c != kit_checks && strcmp(c->name, only) != 0)
            continue; /* acceptance tells what kind it is, so it is always run */
        if (not_applicable(c)) {
            printf("skip  %-20s %s\n", c->name, not_applicable(c));
            n_skipped++;
        } else if (run_check(c, root)) {
            n_ok++;
        } else {
            n_failed++;
            if (!kit.shared->accepted || fail_fast)
                break;
        }
    }
    printf("%s: %d checks passed, %d failed, %d do not apply (seed %" PRIu64 ")\n", kit.machine, n_ok, n_failed, n_skipped,
           kit.seed);
    return n_failed > 0;
}

/* ---- the command line ---- */

static void list_checks(void)
{
    for (const struct kit_check *c = kit_checks; c->name; c++)
        printf("%-20s %s\n", c->name, c->what);
}

static bool is_check(const char *name)
{
    for (const struct kit_check *c = kit_checks; c->name; c++)
        if (strcmp(c->name, name) == 0)
            return true;
    fprintf(stderr, "there is no check '%s': see --list\n", name);
    return false;
}

/* 0: go on; otherwise the exit code plus one. */
static int parse(int argc, char **argv, const char **only, bool *fail_fast)
{
    static const struct option options[] = {{"commands", 1, NULL, 'c'},   {"seed", 1, NULL, 's'}, {"entries", 1, NULL, 'e'},
                                            {"call-limit", 1, NULL, 't'}, {"only", 1, NULL, 'o'}, {"fail-fast", 0, NULL, 'f'},
                                            {"list", 0, NULL, 'l'},       {"help", 0, NULL, 'h'}, {0}};
    int option;

    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'c' && kit_commands_load(optarg) < 0)
            return 3;
        else if (option == 's')
            kit.seed = strtoull(optarg, NULL, 10);
        else if (option == 'e')
            kit.n_entries = (uint32_t)strtoul(optarg, NULL, 10);
        else if (option == 't')
            kit.call_limit_ms = strtol(optarg, NULL, 10) * 1000;
        else if (option == 'o')
            *only = optarg;
        else if (option == 'f')
            *fail_fast = true;
        else if (option == 'l' || option == 'h')
            return option == 'l' ? (list_checks(), 1) : (fputs(usage, stdout), 1);
        else if (option == '?')
            return fputs(usage, stderr), 3;
    }
    if (optind != argc - 1 || kit.n_entries < 50 || kit.call_limit_ms <= 0 || (*only && !is_check(*only)))
        return fputs(usage, stderr), 3;
    return 0;
}

int main(int argc, char **argv)
{
    char root[64] = "/tmp/nh-machine-kit-XXXXXX", path[PATH_MAX];
    const char *only = NULL;
    bool fail_fast = false;
    int r = parse(argc, argv, &only, &fail_fast);

    if (r)
        return r - 1;
    kit.machine = realpath(argv[optind], path);
    if (!kit.machine) {
        fprintf(stderr, "%s: %s\n", argv[optind], strerror(errno));
        return 2;
    }
    kit.shared = mmap(NULL, sizeof *kit.shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (kit.shared == MAP_FAILED || !mkdtemp(root)) {
        perror("machine_kit");
        return 2;
    }
    r = run_all(only, fail_fast, root);
    rmdir(root);
    return r;
}
