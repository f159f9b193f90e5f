#include "cmd/nodehostd/demo.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <limits.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cmd/nodehostd/config.h"

#define N_HOSTS         3
#define START_TIMEOUT_S 120
#define STOP_TIMEOUT_MS 20000
#define POLL_MS         100
#define ANSWER_BYTES    8192

struct demo_host {
    pid_t pid; /* 0: not running */
    unsigned raft_port, redis_port;
    char config[PATH_MAX + 32], log[PATH_MAX + 32];
};

struct demo {
    struct demo_options options;
    char dir[PATH_MAX], env[PATH_MAX + 32];
    bool is_temporary;
    int lock_fd; /* of dir; -1: none */
    struct demo_host hosts[N_HOSTS];
    sigset_t signals;
};

static uint64_t now_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* ---- preparing ---- */

/* The kernel picks a free port; all are held until the last is found, so that they differ. */
static bool find_ports(struct demo *d)
{
    int fds[2 * N_HOSTS];
    unsigned ports[2 * N_HOSTS];
    int n = 0;

    for (; n < 2 * N_HOSTS; n++) {
        struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        socklen_t size = sizeof a;

        fds[n] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fds[n] < 0 || bind(fds[n], (struct sockaddr *)&a, sizeof a) < 0 ||
            getsockname(fds[n], (struct sockaddr *)&a, &size) < 0)
            break;
        ports[n] = ntohs(a.sin_port);
    }
    for (int i = 0; i < n; i++)
        close(fds[i]);
    if (n < 2 * N_HOSTS) {
        fprintf(stderr, "nodehostd demo: no free port on 127.0.0.1: %s\n", strerror(errno));
        return false;
    }
    for (int i = 0; i < N_HOSTS; i++) {
        d->hosts[i].raft_port = ports[2 * i];
        d->hosts[i].redis_port = ports[2 * i + 1];
    }
    return true;
}

static bool make_directory(struct demo *d)
{
    const char *tmp = getenv("TMPDIR");

    if (!d->options.dir) {
        snprintf(d->dir, sizeof d->dir, "%s/nodehost-demo.XXXXXX", tmp && tmp[0] ? tmp : "/tmp");
        d->is_temporary = mkdtemp(d->dir) != NULL;
        if (!d->is_temporary)
            fprintf(stderr, "nodehostd demo: make %s: %s\n", d->dir, strerror(errno));
        return d->is_temporary;
    }
    if ((mkdir(d->options.dir, 0700) < 0 && errno != EEXIST) || !realpath(d->options.dir, d->dir)) {
        fprintf(stderr, "nodehostd demo: make %s: %s\n", d->options.dir, strerror(errno));
        return false;
    }
    return true;
}

/* One demo at a time in a directory. */
static bool lock_directory(struct demo *d)
{
    d->lock_fd = open(d->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (d->lock_fd >= 0 && flock(d->lock_fd, LOCK_EX | LOCK_NB) == 0)
        return true;
    if (errno == EWOULDBLOCK)
        fprintf(stderr, "nodehostd demo: another demo runs in %s: stop it, or use another --dir\n", d->dir);
    else
        fprintf(stderr, "nodehostd demo: lock %s: %s\n", d->dir, strerror(errno));
    return false;
}

static bool write_config(struct demo *d, int i)
{
    struct demo_host *h = &d->hosts[i];
    FILE *f = fopen(h->config, "we");

    if (!f) {
        fprintf(stderr, "nodehostd demo: write %s: %s\n", h->config, strerror(errno));
        return false;
    }
    fprintf(f, "host:   { id: %d, data_dir: \"%s/data-%d\" }\n", i + 1, d->dir, i + 1);
    fprintf(f, "raft:   { listen: \"127.0.0.1:%u\", rtt_ms: 100 }\n", h->raft_port);
    fprintf(f, "redis:  { listen: \"127.0.0.1:%u\" }\npeers:\n", h->redis_port);
    for (int k = 0; k < N_HOSTS; k++)
        fprintf(f, "  - { id: %d, raft: \"127.0.0.1:%u\", redis: \"127.0.0.1:%u\" }\n", k + 1, d->hosts[k].raft_port,
                d->hosts[k].redis_port);
    fprintf(f,
            "shards:\n  - { first: 1, count: %u, machine: kv, replicas: [1, 2, 3], election_rtt: 10, heartbeat_rtt: 1,\n"
            "      check_quorum: true, pre_vote: true, quiesce: true }\n",
            d->options.shards);
    return fclose(f) == 0;
}

/* The first one last: if it is there, all are. */
static bool write_configs(struct demo *d)
{
    d->options.shards = d->options.shards ? d->options.shards : DEMO_SHARDS_DEFAULT;
    for (int i = N_HOSTS - 1; i >= 0; i--)
        if (!write_config(d, i))
            return false;
    return true;
}

/* "127.0.0.1:port" */
static bool take_port(const char *address, unsigned *ret)
{
    char host[NH_ADDRESS_BYTES];
    uint16_t port;

    if (!config_split_address(address, host, &port) || strcmp(host, "127.0.0.1") != 0)
        return false;
    *ret = port;
    return true;
}

/* Takes ports and shards from what an earlier demo has written. */
static bool take_config(struct demo *d, int i, const struct config *c)
{
    struct demo_host *h = &d->hosts[i];

    if (c->host.id != (uint64_t)i + 1 || c->peers_count != N_HOSTS || c->shards_count != 1 ||
        c->shards[0].replicas_count != N_HOSTS || !take_port(c->raft.listen, &h->raft_port) ||
        !take_port(c->redis.listen, &h->redis_port)) {
        fprintf(stderr, "nodehostd demo: %s is not as demo has written it: run its hosts yourself, or use another --dir\n",
                h->config);
        return false;
    }
    if (d->options.shards && d->options.shards != c->shards[0].count) {
        fprintf(stderr, "nodehostd demo: %s has %" PRIu64 " shards, not %u: leave out --shards, or use another --dir\n",
                h->config, c->shards[0].count, d->options.shards);
        return false;
    }
    d->options.shards = (unsigned)c->shards[0].count;
    return true;
}

static bool read_config(struct demo *d, int i)
{
    struct nh_error err = {0};
    struct config *c = NULL;
    bool ok;

    if (config_load(d->hosts[i].config, &c, &err) < 0) {
        fprintf(stderr, "nodehostd demo: %s\n", err.text);
        return false;
    }
    ok = take_config(d, i, c);
    config_free(c);
    return ok;
}

static bool read_configs(struct demo *d)
{
    for (int i = 0; i < N_HOSTS; i++)
        if (!read_config(d, i))
            return false;
    return true;
}

/* What is in the directory goes on: the hosts know each other, and their data, by their addresses. */
static bool prepare(struct demo *d)
{
    if (!make_directory(d) || !lock_directory(d))
        return false;
    for (int i = 0; i < N_HOSTS; i++) {
        snprintf(d->hosts[i].config, sizeof d->hosts[i].config, "%s/host-%d.yaml", d->dir, i + 1);
        snprintf(d->hosts[i].log, sizeof d->hosts[i].log, "%s/host-%d.log", d->dir, i + 1);
    }
    snprintf(d->env, sizeof d->env, "%s/cluster.env", d->dir);
    return access(d->hosts[0].config, F_OK) == 0 ? read_configs(d) : find_ports(d) && write_configs(d);
}

/* ---- processes ---- */

static void become_host(const struct demo *d, const struct demo_host *h, pid_t parent)
{
    int log = open(h->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600), null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    const char *args[] = {d->options.program,    "--config", h->config, d->options.plugin_dir ? "--plugin-dir" : NULL,
                          d->options.plugin_dir, NULL};
    sigset_t none;

    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setpgid(0, 0); /* Ctrl-C is for the demo, which stops us */
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent || log < 0 || null < 0)
        _exit(1);
    dup2(null, 0);
    dup2(log, 1);
    dup2(log, 2);
    execv(d->options.program, (char *const *)(size_t)args);
    _exit(127);
}

static bool start_host(struct demo *d, int i)
{
    pid_t parent = getpid(), pid = fork();

    if (pid == 0)
        become_host(d, &d->hosts[i], parent);
    if (pid < 0)
        fprintf(stderr, "nodehostd demo: fork: %s\n", strerror(errno));
    d->hosts[i].pid = pid > 0 ? pid : 0;
    return pid > 0;
}

/* Notes which hosts have ended; true if one has since the last call. */
static bool reap(struct demo *d)
{
    bool any = false;
    pid_t pid;
    int status;

    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        for (int i = 0; i < N_HOSTS; i++) {
            if (d->hosts[i].pid != pid)
                continue;
            d->hosts[i].pid = 0;
            any = true;
            printf("host %d has ended (%s %d); the others go on. Start it again with:\n    %s --config %s\n", i + 1,
                   WIFSIGNALED(status) ? "signal" : "exit code", WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status),
                   d->options.program, d->hosts[i].config);
            fflush(stdout);
        }
    }
    return any;
}

static int n_running(const struct demo *d)
{
    int n = 0;

    for (int i = 0; i < N_HOSTS; i++)
        n += d->hosts[i].pid != 0;
    return n;
}

static void signal_all(const struct demo *d, int number)
{
    for (int i = 0; i < N_HOSTS; i++)
        if (d->hosts[i].pid)
            kill(d->hosts[i].pid, number);
}

static void sleep_ms(unsigned ms)
{
    struct timespec ts = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};

    nanosleep(&ts, NULL);
}

static void stop_all(struct demo *d)
{
    uint64_t end = now_ms() + STOP_TIMEOUT_MS;

    signal_all(d, SIGTERM);
    while (n_running(d) > 0 && now_ms() < end) {
        int status;
        pid_t pid = waitpid(-1, &status, WNOHANG);

        for (int i = 0; i < N_HOSTS && pid > 0; i++)
            if (d->hosts[i].pid == pid)
                d->hosts[i].pid = 0;
        if (pid <= 0)
            sleep_ms(10);
    }
    signal_all(d, SIGKILL);
}

/* True if Ctrl-C or SIGTERM came within `ms`; SIGCHLD ends the waiting early. */
static bool wait_signal(struct demo *d, unsigned ms)
{
    struct timespec ts = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
    int number = sigtimedwait(&d->signals, NULL, &ts);

    return number == SIGINT || number == SIGTERM;
}

/* ---- waiting for leaders ---- */

/* Asks a host by INFO; false if it does not answer. */
static bool ask(const struct demo_host *h, char *answer)
{
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_port = htons((uint16_t)h->redis_port),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval timeout = {.tv_sec = 2};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    size_t size = 0;
    ssize_t n = 1;

    if (fd < 0)
        return false;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
    if (connect(fd, (struct sockaddr *)&a, sizeof a) == 0 &&
        send(fd, "INFO nodehost persistence\r\nQUIT\r\n", 33, MSG_NOSIGNAL) == 33) {
        while (n > 0 && size < ANSWER_BYTES - 1) {
            n = recv(fd, answer + size, ANSWER_BYTES - 1 - size, 0);
            size += n > 0 ? (size_t)n : 0;
        }
    }
    close(fd);
    answer[size] = 0;
    return size > 0;
}

static long number_of(const char *answer, const char *name)
{
    const char *at = strstr(answer, name);

    return at ? strtol(at + strlen(name), NULL, 10) : -1;
}

/* Shards with a leader as this host knows it; -1: it does not answer. */
static long count_led(const struct demo_host *h)
{
    char answer[ANSWER_BYTES];
    long shards, leaderless;

    if (!ask(h, answer) || number_of(answer, "\nloading:") != 0)
        return -1;
    shards = number_of(answer, "\nshards:");
    leaderless = number_of(answer, "\nleaderless:");
    return shards < 0 || leaderless < 0 ? -1 : shards - leaderless;
}

/* 0: every shard has a leader; else an exit code. */
static int await_leaders(struct demo *d)
{
    uint64_t begin = now_ms(), told = begin;

    for (;;) {
        long led = (long)d->options.shards;

        for (int i = 0; i < N_HOSTS; i++) {
            long n = count_led(&d->hosts[i]);

            led = n < led ? n : led;
        }
        if (led == (long)d->options.shards) {
            printf("%u shards, %d replicas each: all have a leader after %.1f s\n", d->options.shards, N_HOSTS,
                   (double)(now_ms() - begin) / 1000);
            return 0;
        }
        if (now_ms() - told > 2000) {
            printf("%ld of %u shards have a leader\n", led < 0 ? 0 : led, d->options.shards);
            fflush(stdout);
            told = now_ms();
        }
        if (wait_signal(d, POLL_MS))
            return 130;
        if (reap(d) || now_ms() - begin > START_TIMEOUT_S * 1000) {
            fprintf(stderr, "nodehostd demo: the hosts did not come up; see %s/host-*.log\n", d->dir);
            return 1;
        }
    }
}

/* ---- telling ---- */

static bool write_env(const struct demo *d)
{
    char tmp[PATH_MAX + 32];
    FILE *f;

    snprintf(tmp, sizeof tmp, "%s/cluster.env.tmp", d->dir);
    f = fopen(tmp, "we");
    if (!f)
        return false;
    for (int i = 0; i < N_HOSTS; i++)
        fprintf(f, "REDIS_PORT_%d=%u\nPID_%d=%ld\nCONFIG_%d='%s'\n", i + 1, d->hosts[i].redis_port, i + 1, (long)d->hosts[i].pid,
                i + 1, d->hosts[i].config);
    return fclose(f) == 0 && rename(tmp, d->env) == 0;
}

static void print_addresses(const struct demo *d)
{
    for (int i = 0; i < N_HOSTS; i++)
        printf("host %d: redis 127.0.0.1:%u  raft 127.0.0.1:%u  pid %ld  log %s\n", i + 1, d->hosts[i].redis_port,
               d->hosts[i].raft_port, (long)d->hosts[i].pid, d->hosts[i].log);
    printf("\nTry:\n    redis-cli -p %u SET greeting hello\n    redis-cli -p %u GET greeting\n"
           "    redis-benchmark -p %u -t set,get,incr -n 100000 -P 16 -q\n    kill -9 %ld      # and ask the others again\n"
           "Ctrl-C stops all three.\n",
           d->hosts[0].redis_port, d->hosts[1].redis_port, d->hosts[2].redis_port, (long)d->hosts[2].pid);
    fflush(stdout);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static int run(struct demo *d)
{
    int code;

    unlink(d->env); /* of hosts that were killed */
    for (int i = 0; i < N_HOSTS; i++)
        if (!start_host(d, i))
            return 1;
    code = await_leaders(d);
    if (code)
        return code;
    print_addresses(d);
    if (!write_env(d)) {
        fprintf(stderr, "nodehostd demo: write %s: %s\n", d->env, strerror(errno));
        return 1;
    }
    while (!wait_signal(d, 1000))
        reap(d);
    printf("stopping\n");
    return 0;
}

int demo_run(const struct demo_options *options)
{
    struct demo *d = calloc(1, sizeof *d);
    bool prepared;
    int code = 1;

    if (!d)
        return 1;
    d->options = *options;
    sigemptyset(&d->signals);
    sigaddset(&d->signals, SIGINT);
    sigaddset(&d->signals, SIGTERM);
    sigaddset(&d->signals, SIGCHLD);
    sigprocmask(SIG_BLOCK, &d->signals, NULL);
    d->lock_fd = -1;
    prepared = prepare(d);
    if (prepared) {
        code = run(d);
        stop_all(d);
        unlink(d->env);
    }
    if (d->is_temporary && !options->keep && (code != 1 || !prepared)) /* after a failure the logs are wanted */
        nftw(d->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    else if (prepared)
        printf("kept: %s; to go on with it: %s demo --dir %s\n", d->dir, options->program, d->dir);
    if (d->lock_fd >= 0)
        close(d->lock_fd);
    free(d);
    return code == 130 ? 0 : code;
}
