#include "cmd/nhbench/remote.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cmd/nhbench/clock.h"
#include "cmd/nhbench/must.h"
#include "cmd/nhbench/remote_client.h"
#include "cmd/nhbench/report.h"

#define EVENTS_MAX 64
#define ADDRESS    256u

struct remote_thread {
    const struct bench_options *options;
    struct remote_client *clients;
    uint32_t n_clients;
    int epoll;
    struct remote_counts counts;
    _Atomic bool stopping, broken;
    pthread_t thread;
};

/* ---- connecting ---- */

static int refuse(const char *address, const char *why)
{
    fprintf(stderr, "nhbench: connect to %s: %s\n", address, why);
    return -1;
}

static int connect_to(const char *address)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
    char host[ADDRESS];
    int one = 1, fd, r;
    char *colon;

    snprintf(host, sizeof host, "%s", address);
    colon = strrchr(host, ':');
    if (!colon)
        return refuse(address, "is not address:port");
    *colon = 0;
    r = getaddrinfo(host, colon + 1, &hints, &found);
    if (r != 0)
        return refuse(address, gai_strerror(r));
    fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    r = fd < 0 ? -1 : connect(fd, found->ai_addr, found->ai_addrlen);
    freeaddrinfo(found);
    if (r < 0) {
        refuse(address, strerror(errno));
        close(fd);
        return -1;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

/* The i-th of the --hosts, in turn. */
static void address_of(const char *hosts, uint32_t i, char *out)
{
    uint32_t n = 1;
    size_t size;

    for (const char *p = hosts; *p; p++)
        n += *p == ',';
    for (i %= n; i > 0; i--)
        hosts = strchr(hosts, ',') + 1;
    size = strcspn(hosts, ",");
    size = size < ADDRESS ? size : ADDRESS - 1;
    memcpy(out, hosts, size);
    out[size] = 0;
}

static bool connect_all(struct remote_thread *t, uint32_t first)
{
    char address[ADDRESS];

    t->epoll = epoll_create1(EPOLL_CLOEXEC);
    for (uint32_t i = 0; i < t->n_clients; i++) {
        struct epoll_event e = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = &t->clients[i]};
        int fd;

        address_of(t->options->hosts, first + i, address);
        fd = connect_to(address);
        if (fd < 0)
            return false;
        remote_client_init(&t->clients[i], t->options, &t->counts, fd);
        epoll_ctl(t->epoll, EPOLL_CTL_ADD, fd, &e);
    }
    return true;
}

/* ---- a thread ---- */

static bool serve(struct remote_client *c)
{
    bool ok = remote_client_receive(c);

    if (ok && c->n < c->options->pipeline)
        remote_client_fill(c);
    return ok && remote_client_send(c);
}

static void *run(void *arg)
{
    struct remote_thread *t = arg;
    struct epoll_event events[EVENTS_MAX];

    while (!atomic_load(&t->stopping)) {
        int n = epoll_wait(t->epoll, events, EVENTS_MAX, 100);

        for (int i = 0; i < n; i++) {
            if (serve(events[i].data.ptr))
                continue;
            fprintf(stderr, "\nnhbench: a host has closed a connection\n");
            atomic_store(&t->broken, true);
            return NULL;
        }
    }
    return NULL;
}

/* ---- all ---- */

static bool make_threads(const struct bench_options *o, struct remote_thread *threads, uint32_t n, const char *value)
{
    uint32_t first = 0;

    for (uint32_t i = 0; i < n; i++) {
        struct remote_thread *t = &threads[i];

        t->options = o;
        t->n_clients = o->clients / n + (i < o->clients % n);
        t->clients = must(calloc(t->n_clients, sizeof *t->clients));
        t->counts.value = value;
        t->counts.random = (o->seed + i + 1) * 0x9e3779b97f4a7c15u;
        if (!connect_all(t, first))
            return false;
        first += t->n_clients;
    }
    return true;
}

static void print_progress(const struct remote_thread *threads, uint32_t n, uint64_t *before, uint32_t second)
{
    uint64_t done = 0, errors = 0;

    for (uint32_t i = 0; i < n; i++) {
        done += __atomic_load_n(&threads[i].counts.done, __ATOMIC_RELAXED);
        errors += __atomic_load_n(&threads[i].counts.errors, __ATOMIC_RELAXED);
    }
    fprintf(stderr, "\r%3u s  %9" PRIu64 " ops/s  %" PRIu64 " failed   ", second, done - *before, errors);
    *before = done;
}

static bool load(const struct bench_options *o, struct remote_thread *threads, uint32_t n)
{
    uint64_t begin_ns = clock_ns() + (uint64_t)(o->warm_up * 1e9), end_ns = begin_ns + (uint64_t)(o->seconds * 1e9);
    uint64_t before = 0;
    bool ok = true;

    for (uint32_t i = 0; i < n; i++) {
        threads[i].counts.begin_ns = begin_ns;
        threads[i].counts.end_ns = end_ns;
        if (pthread_create(&threads[i].thread, NULL, run, &threads[i]) != 0)
            exit(1);
    }
    for (uint32_t second = 1; clock_ns() + NS_PER_S < end_ns; second++) {
        sleep_ms(1000);
        print_progress(threads, n, &before, second);
    }
    sleep_until_ns(end_ns);
    fputc('\n', stderr);
    for (uint32_t i = 0; i < n; i++) {
        atomic_store(&threads[i].stopping, true);
        pthread_join(threads[i].thread, NULL);
        ok &= !threads[i].broken;
    }
    return ok;
}

static void report(const struct bench_options *o, const struct remote_counts *sum)
{
    double ops = (double)(sum->writes.count + sum->reads.count) / o->seconds;

    if (o->json) {
        printf("{\n  \"options\": {\"clients\": %u, \"pipeline\": %u, \"payload\": %u, \"read_share\": %g, \"seconds\": %g},\n",
               o->clients, o->pipeline, o->payload, o->read_share, o->seconds);
        report_json_latencies("writes", &sum->writes);
        report_json_latencies("reads", &sum->reads);
        printf("  \"ops_per_second\": %.0f,\n  \"errors\": %" PRIu64 "\n}\n", ops, sum->errors);
        return;
    }
    printf("%u clients with %u commands under way each, payload %u bytes\n", o->clients, o->pipeline, o->payload);
    printf("  ops/s   %.0f\n  errors  %" PRIu64 "\n", ops, sum->errors);
    report_table_latencies("writes", &sum->writes);
    report_table_latencies("reads", &sum->reads);
}

static void add_up(const struct remote_thread *threads, uint32_t n, struct remote_counts *sum)
{
    for (uint32_t i = 0; i < n; i++) {
        const struct remote_counts *c = &threads[i].counts;

        latencies_merge(&sum->writes, &c->writes);
        latencies_merge(&sum->reads, &c->reads);
        sum->errors += c->errors;
        if (c->first_error[0] && !sum->first_error[0])
            memcpy(sum->first_error, c->first_error, sizeof sum->first_error);
    }
}

static void free_threads(struct remote_thread *threads, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t k = 0; threads[i].clients && k < threads[i].n_clients; k++)
            remote_client_deinit(&threads[i].clients[k]);
        free(threads[i].clients);
        if (threads[i].epoll > 0)
            close(threads[i].epoll);
    }
    free(threads);
}

int remote_main(const struct bench_options *o)
{
    uint32_t n = o->clients < o->load_threads ? o->clients : o->load_threads;
    struct remote_thread *threads = must(calloc(n, sizeof *threads));
    struct remote_counts *sum = must(calloc(1, sizeof *sum));
    char *value = must(malloc(o->payload + 1u));
    bool ok;

    memset(value, 'v', o->payload + 1u);
    ok = make_threads(o, threads, n, value) && load(o, threads, n);
    add_up(threads, n, sum);
    if (sum->first_error[0])
        fprintf(stderr, "nhbench: the first error: %s\n", sum->first_error);
    if (ok)
        report(o, sum);
    free_threads(threads, n);
    free(sum);
    free(value);
    return ok ? 0 : 1;
}
