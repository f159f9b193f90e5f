#include "cmd/nodehostd/server.h"

#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "cmd/nodehostd/log.h"

#define BACKLOG 1024

/* ---- shards and slots ---- */

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

static void collect_shards(struct server *s)
{
    const struct config *c = s->config;

    for (unsigned i = 0; i < c->shards_count; i++) {
        if (config_has_replica(&c->shards[i], c->host.id))
            s->n_shards_wanted += (uint32_t)c->shards[i].count;
        if (!config_is_kv(&c->shards[i]))
            continue;
        s->kv_shards = must_alloc(realloc(s->kv_shards, (s->n_kv + c->shards[i].count) * sizeof *s->kv_shards));
        for (uint64_t k = 0; k < c->shards[i].count; k++)
            s->kv_shards[s->n_kv++] = c->shards[i].first + k;
    }
    if (s->n_kv == 0)
        return;
    qsort(s->kv_shards, s->n_kv, sizeof *s->kv_shards, by_value);
    s->kv_queues = must_alloc(calloc(s->n_kv, sizeof *s->kv_queues));
    for (uint32_t i = 0; i < s->n_kv; i++)
        s->kv_queues[i].shard_id = s->kv_shards[i];
}

/* ---- the loop ---- */

static void on_connection(uv_stream_t *listener, int status)
{
    if (status == 0)
        client_accept(listener->data);
}

static void on_ended(uv_async_t *async)
{
    requests_take_ended(async->data);
}

/* What all clients wrote in this round goes out together. Whatever callback queued it (a read, an end, a written reply): this is
 * the last thing before the loop sleeps. */
static void on_prepare(uv_prepare_t *prepare)
{
    requests_flush(prepare->data);
}

static int resolve(const char *address, struct sockaddr_storage *ret, socklen_t *ret_size, struct nh_error *err)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *found;
    char host[NH_ADDRESS_BYTES], service[8];
    uint16_t port = 0;
    int r;

    if (!config_split_address(address, host, &port))
        return nh_error_set(err, NH_EINVAL, "%s is no address", address);
    snprintf(service, sizeof service, "%u", port);
    r = getaddrinfo(host, service, &hints, &found);
    if (r != 0)
        return nh_error_set(err, NH_EIO, "resolve %s: %s", address, gai_strerror(r));
    memcpy(ret, found->ai_addr, found->ai_addrlen);
    *ret_size = found->ai_addrlen;
    freeaddrinfo(found);
    return NH_OK;
}

static int start_listening(struct server *s, struct nh_error *err)
{
    const struct config_redis *c = &s->config->redis;
    const char *at = c->bind ? c->bind : c->listen;
    struct sockaddr_storage address;
    socklen_t size;
    int r = resolve(at, &address, &size, err);

    if (r < 0)
        return r;
    uv_tcp_init(&s->loop, &s->listener);
    s->listener.data = s;
    r = uv_tcp_bind(&s->listener, (const struct sockaddr *)&address, 0);
    if (r == 0)
        r = uv_listen((uv_stream_t *)&s->listener, BACKLOG, on_connection);
    if (r == 0)
        return NH_OK;
    uv_close((uv_handle_t *)&s->listener, NULL);
    return nh_error_set(err, NH_EIO, "listen for clients at %s: %s", at, uv_strerror(r));
}

/* Half of the descriptors at most: a log store that cannot open a file is fenced, and needs a restart. */
static uint32_t find_max_clients(const struct config *config)
{
    uint32_t wanted = config->redis.max_clients;
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur / 2 >= wanted)
        return wanted;
    LOG_WARN("redis.max_clients is %u, and the process may have %llu file descriptors (ulimit -n): %llu clients are served",
             wanted, (unsigned long long)limit.rlim_cur, (unsigned long long)limit.rlim_cur / 2);
    return (uint32_t)(limit.rlim_cur / 2);
}

int server_init(struct server *s, const struct config *config, struct nh_error *err)
{
    int r;

    *s = (struct server){.config = config, .max_clients = find_max_clients(config), .loading = true};
    pthread_mutex_init(&s->ended_lock, NULL);
    uv_loop_init(&s->loop);
    s->started_ms = uv_now(&s->loop);
    collect_shards(s);
    r = start_listening(s, err);
    if (r < 0) {
        s->stopping = true;
        server_deinit(s);
        return r;
    }
    uv_async_init(&s->loop, &s->ended_async, on_ended);
    s->ended_async.data = s;
    uv_prepare_init(&s->loop, &s->flush_prepare);
    s->flush_prepare.data = s;
    uv_prepare_start(&s->flush_prepare, on_prepare);
    return NH_OK;
}

void server_run(struct server *s)
{
    uv_run(&s->loop, UV_RUN_DEFAULT);
}

void server_stop(struct server *s)
{
    if (s->stopping)
        return;
    s->stopping = true;
    requests_flush(s); /* the host is still open */
    uv_close((uv_handle_t *)&s->listener, NULL);
    while (s->clients)
        client_close(s->clients);
    uv_stop(&s->loop);
}

void server_deinit(struct server *s)
{
    requests_take_ended(s); /* all requests have ended with the host; their clients are gone */
    if (s->ended_async.data) {
        uv_close((uv_handle_t *)&s->ended_async, NULL);
        uv_close((uv_handle_t *)&s->flush_prepare, NULL);
    }
    uv_run(&s->loop, UV_RUN_DEFAULT);
    if (uv_loop_close(&s->loop) < 0)
        LOG_WARN("the event loop closed with handles open");
    for (uint32_t i = 0; i < s->n_kv; i++)
        free(s->kv_queues[i].items);
    free(s->kv_queues);
    free(s->kv_shards);
    pthread_mutex_destroy(&s->ended_lock);
}
