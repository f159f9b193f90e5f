#include "cmd/nhbench/cluster.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cmd/nhbench/clock.h"
#include "cmd/nhbench/must.h"

#define STOP_TIMEOUT_MS 20000u

static bool failed(const char *doing)
{
    fprintf(stderr, "nhbench: %s: %s\n", doing, strerror(errno));
    return false;
}

/* ---- preparing ---- */

/* The kernel picks free ports; all are held until the last is found, so that they differ. */
static bool find_ports(struct cluster *c)
{
    int fds[BENCH_HOSTS];
    uint32_t n = 0;

    c->addresses[0] = 0;
    for (; n < BENCH_HOSTS; n++) {
        struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        socklen_t size = sizeof a;

        fds[n] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fds[n] < 0 || bind(fds[n], (struct sockaddr *)&a, sizeof a) < 0 ||
            getsockname(fds[n], (struct sockaddr *)&a, &size) < 0)
            break;
        snprintf(c->addresses + strlen(c->addresses), 32, "%s127.0.0.1:%u", n ? "," : "", ntohs(a.sin_port));
    }
    for (uint32_t i = 0; i < n; i++)
        close(fds[i]);
    return n == BENCH_HOSTS || failed("find a free port");
}

static int count_file(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)path, (void)st, (void)type;
    return at->level > 0;
}

/* c->dir stays empty unless the directory is ours to fill, and so to empty. */
static bool make_directory(struct cluster *c)
{
    const char *dir = c->options->dir;
    char name[] = "nhbench.XXXXXX", whole[PATH_MAX];

    if (!dir) {
        c->is_temporary = mkdtemp(name) != NULL;
        if (!c->is_temporary || !realpath(name, whole))
            return failed("make a directory here");
    } else if ((mkdir(dir, 0700) < 0 && errno != EEXIST) || !realpath(dir, whole)) {
        return failed(dir);
    } else if (nftw(whole, count_file, 16, FTW_PHYS) != 0) {
        fprintf(stderr, "nhbench: --dir %s is not an empty directory\n", dir);
        return false;
    }
    strcpy(c->dir, whole);
    return true;
}

bool cluster_init(struct cluster *c, const struct bench_options *o)
{
    ssize_t n;

    *c = (struct cluster){.options = o};
    n = readlink("/proc/self/exe", c->program, sizeof c->program - 1);
    if (n <= 0)
        return failed("/proc/self/exe");
    return find_ports(c) && make_directory(c);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st, (void)type;
    return at->level > 0 ? remove(path) : 0;
}

void remove_tree(const char *path, bool with_itself)
{
    nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    if (with_itself)
        rmdir(path);
}

/* ---- processes ---- */

/* The i-th list of the text, which options_parse has checked. */
static void pin(const char *text, uint32_t i)
{
    cpu_set_t set;

    if (!options_cores(text, i, &set)) /* checked before */
        _exit(1);
    if (sched_setaffinity(0, sizeof set, &set) < 0) {
        fprintf(stderr, "nhbench: --pin: host %u: %s\n", i + 1, strerror(errno));
        _exit(1);
    }
}

static void become_host(const struct cluster *c, uint32_t i, int channel, pid_t parent)
{
    const char *args[512] = {"nhbench", "host"};
    char number[16], fd[16], shards[16], in_flight[16], loaders[16], dir[PATH_MAX + 16];
    int n = 2;

    snprintf(number, sizeof number, "%u", i + 1);
    snprintf(fd, sizeof fd, "%d", channel);
    snprintf(dir, sizeof dir, "%s/host-%u", c->dir, i + 1);
    if (c->options->quiesce)
        args[n++] = "--quiesce";
    args[n++] = "--as-host";
    args[n++] = number;
    args[n++] = "--channel";
    args[n++] = fd;
    args[n++] = "--addresses";
    args[n++] = c->addresses;
    args[n++] = "--host-dir";
    args[n++] = dir;
    for (int k = 0; k < c->options->n_words && n < 500; k++)
        args[n++] = c->options->words[k];
    snprintf(shards, sizeof shards, "%u", c->options->shards); /* these may differ from what the words say */
    snprintf(in_flight, sizeof in_flight, "%u", c->options->in_flight);
    snprintf(loaders, sizeof loaders, "%u", c->options->load_threads);
    args[n++] = "--shards";
    args[n++] = shards;
    args[n++] = "--in-flight";
    args[n++] = in_flight;
    args[n++] = "--load-threads";
    args[n++] = loaders;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    if (c->options->pin)
        pin(c->options->pin, i);
    execv(c->program, (char *const *)(size_t)args);
    _exit(127);
}

static bool start_host(struct cluster *c, uint32_t i)
{
    pid_t parent = getpid();
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return failed("socket pair");
    c->pids[i] = fork();
    if (c->pids[i] == 0) {
        fcntl(pair[1], F_SETFD, 0);
        become_host(c, i, pair[1], parent);
    }
    close(pair[1]);
    c->channels[i] = pair[0];
    if (c->pids[i] > 0)
        return true;
    c->pids[i] = 0;
    close(pair[0]);
    return failed("fork");
}

/* Ctrl-C: the hosts end, and whoever waits for their words goes on to clean up. */
static struct cluster *running;

static void on_signal(int number)
{
    (void)number;
    for (uint32_t i = 0; i < BENCH_HOSTS; i++)
        if (running->pids[i] > 0)
            kill(running->pids[i], SIGKILL);
}

bool cluster_start(struct cluster *c)
{
    struct sigaction action = {.sa_handler = on_signal};
    bool ok = true;

    running = c;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    for (uint32_t i = 0; i < BENCH_HOSTS && ok; i++)
        ok = start_host(c, i);
    return ok;
}

bool cluster_await(struct cluster *c, uint32_t i, enum said what, union channel_words *ret)
{
    enum said heard;

    do {
        if (!channel_hear(c->channels[i], &heard, ret)) {
            fprintf(stderr, "nhbench: host %u has ended\n", i + 1);
            return false;
        }
    } while (heard == SAID_PROGRESS && what != SAID_PROGRESS);
    if (heard == SAID_FAILED)
        fprintf(stderr, "nhbench: %.*s\n", (int)SAID_TEXT_BYTES, ret->text);
    return heard == what;
}

bool cluster_say(struct cluster *c, enum said what, const void *data, size_t size_bytes)
{
    bool ok = true;

    for (uint32_t i = 0; i < BENCH_HOSTS; i++)
        ok &= c->pids[i] && channel_say(c->channels[i], what, data, size_bytes);
    return ok;
}

bool cluster_lead(struct cluster *c)
{
    union channel_words *words = must(malloc(sizeof *words));
    bool ok = cluster_say(c, SAID_LEAD, NULL, 0);

    for (uint32_t i = 0; i < BENCH_HOSTS && ok; i++)
        ok = cluster_await(c, i, SAID_LEADING, words);
    free(words);
    return ok;
}

static void forget(struct cluster *c, uint32_t i)
{
    close(c->channels[i]);
    c->pids[i] = 0;
}

void cluster_kill(struct cluster *c)
{
    for (uint32_t i = 0; i < BENCH_HOSTS; i++)
        if (c->pids[i])
            kill(c->pids[i], SIGKILL);
    for (uint32_t i = 0; i < BENCH_HOSTS; i++) {
        if (!c->pids[i])
            continue;
        waitpid(c->pids[i], NULL, 0);
        forget(c, i);
    }
}

/* False: it still runs. */
static bool reap(struct cluster *c, uint32_t i)
{
    int status = 0;

    if (waitpid(c->pids[i], &status, WNOHANG) == 0)
        return false;
    if (status != 0) {
        fprintf(stderr, "nhbench: host %u has ended by %s %d\n", i + 1, WIFSIGNALED(status) ? "signal" : "exit code",
                WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
        c->unclean = true;
    }
    forget(c, i);
    return true;
}

bool cluster_stop(struct cluster *c)
{
    uint64_t give_up_ns = clock_ns() + STOP_TIMEOUT_MS * NS_PER_MS;

    cluster_say(c, SAID_QUIT, NULL, 0);
    for (uint32_t i = 0; i < BENCH_HOSTS; i++) {
        while (c->pids[i] && !reap(c, i) && clock_ns() < give_up_ns)
            sleep_ms(5);
        if (c->pids[i]) {
            fprintf(stderr, "nhbench: host %u does not end\n", i + 1);
            c->unclean = true;
        }
    }
    cluster_kill(c);
    return !c->unclean;
}

void cluster_deinit(struct cluster *c)
{
    cluster_stop(c);
    if (c->dir[0])
        remove_tree(c->dir, c->is_temporary);
}
