#include "tests/conformance/transport/fixture.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "raftio/support/block.h"
#include "raftio/support/memory.h"
#include "transport/loopback/loopback.h"
#include "transport/tcp/tcp_transport.h"

static const struct nh_transport_ops *load(const char *path)
{
    const struct nh_transport_ops *(*plugin)(void);
    void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);

    cr_assert(lib, "%s", dlerror());
    *(void **)&plugin = dlsym(lib, NH_TRANSPORT_PLUGIN_SYMBOL);
    cr_assert(plugin, "%s", dlerror());
    return plugin();
}

static const char *chosen(void)
{
    const char *name = getenv("NH_TRANSPORT_PLUGIN");

    return name ? name : "tcp";
}

bool fixture_is(const char *name)
{
    return strcmp(chosen(), name) == 0;
}

static const struct nh_transport_ops *ops(void)
{
    if (fixture_is("tcp"))
        return nh_transport_tcp();
    return fixture_is("loopback") ? nh_transport_loopback() : load(chosen());
}

void hosts_init(struct host *hosts, size_t n)
{
    char addresses[ADDRESSES_MAX][ADDRESS_SIZE];

    memset(hosts, 0, n * sizeof *hosts);
    cr_assert(find_addresses(addresses, n));
    for (size_t i = 0; i < n; i++) {
        hosts[i].ops = ops();
        pthread_mutex_init(&hosts[i].lock, NULL);
        memcpy(hosts[i].address, addresses[i], sizeof hosts[i].address);
    }
}

static void count_message(struct host *h, const struct nh_message *m)
{
    h->n_messages++;
    for (uint32_t i = 0; i < m->n_runs; i++)
        h->entry_bytes += nh_run_size(&m->runs[i]);
    if (m->type != NH_MSG_HEARTBEAT)
        return;
    if (m->commit < h->next_index)
        h->doubled = true;
    if (m->commit > h->next_index)
        h->out_of_order = true;
    h->next_index = m->commit + 1;
}

static void on_batch(void *ctx, const struct nh_message_batch *batch)
{
    struct host *h = ctx;

    pthread_mutex_lock(&h->lock);
    h->n_batches++;
    h->n_undrained++;
    h->batch_thread = pthread_self();
    snprintf(h->source, sizeof h->source, "%s", batch->source_address);
    for (uint32_t i = 0; i < batch->n_messages; i++)
        count_message(h, &batch->messages[i]);
    pthread_mutex_unlock(&h->lock);
}

static void on_drained(void *ctx)
{
    struct host *h = ctx;
    struct nh_connection *answer;

    pthread_mutex_lock(&h->lock);
    answer = h->n_undrained ? h->answer : NULL;
    h->n_drained += h->n_undrained && pthread_equal(h->batch_thread, pthread_self());
    h->n_undrained = 0;
    pthread_mutex_unlock(&h->lock);
    if (answer)
        send_numbered(h, answer, 0);
}

static bool on_chunk(void *ctx, const struct nh_chunk *chunk)
{
    struct host *h = ctx;
    bool take;

    (void)chunk;
    pthread_mutex_lock(&h->lock);
    take = !h->refuse_chunks;
    h->n_chunks += take;
    pthread_mutex_unlock(&h->lock);
    return take;
}

static void on_unreachable(void *ctx, struct nh_replica_info to)
{
    struct host *h = ctx;

    (void)to;
    pthread_mutex_lock(&h->lock);
    h->n_unreachable++;
    pthread_mutex_unlock(&h->lock);
}

static void on_connected(void *ctx, const char *address, bool snapshot)
{
    struct host *h = ctx;

    (void)address;
    (void)snapshot;
    pthread_mutex_lock(&h->lock);
    h->n_connected++;
    pthread_mutex_unlock(&h->lock);
}

static void on_failed(void *ctx, const char *address, bool snapshot, const char *reason)
{
    struct host *h = ctx;

    (void)address;
    (void)snapshot;
    (void)reason;
    pthread_mutex_lock(&h->lock);
    h->n_failed++;
    pthread_mutex_unlock(&h->lock);
}

int host_try_up(struct host *h, const struct nh_transport_config *config, struct nh_error *err)
{
    struct nh_transport_config c = config ? *config : (struct nh_transport_config){0};
    struct nh_transport_handlers handlers = {sizeof handlers, h,         on_batch,  on_chunk, on_unreachable,
                                             on_connected,    on_failed, on_drained};
    int r;

    c.struct_size = sizeof c;
    c.deployment_id = c.deployment_id ? c.deployment_id : DEPLOYMENT;
    c.address = c.address ? c.address : h->address;
    c.services = nh_plugin_services();
    r = h->ops->open(&c, &handlers, &h->t, err);
    if (r < 0)
        return r;
    r = h->ops->start(h->t, err);
    if (r < 0)
        host_down(h);
    return r;
}

void host_up(struct host *h, const struct nh_transport_config *config)
{
    struct nh_error err = {0};

    cr_assert_eq(host_try_up(h, config, &err), 0, "%s", err.text);
}

void host_down(struct host *h)
{
    h->ops->close(h->t);
    h->t = NULL;
}

static int send_one(struct host *from, struct nh_connection *c, struct nh_message *m)
{
    struct nh_message_batch b = {.deployment_id = DEPLOYMENT, .source_address = from->address, .n_messages = 1, .messages = m};

    return from->ops->send_batch(c, &b, NULL);
}

int send_numbered(struct host *from, struct nh_connection *c, uint64_t number)
{
    struct nh_message m = {.type = NH_MSG_HEARTBEAT, .shard_id = 1, .to = 2, .from = 1, .term = 1, .commit = number};

    return send_one(from, c, &m);
}

int send_entry(struct host *from, struct nh_connection *c, size_t bytes)
{
    struct block_builder b = {0};
    struct nh_run run = {.to = 1};
    struct nh_message m = {.type = NH_MSG_REPLICATE, .shard_id = 1, .to = 2, .from = 1, .term = 1, .n_runs = 1, .runs = &run};
    void *payload = xcalloc(1, bytes);
    int r;

    block_builder_add(&b, &(struct block_record){.key = 1, .payload = payload, .payload_bytes = (uint32_t)bytes});
    run.block = block_seal(&b, 1, 1);
    r = send_one(from, c, &m);
    nh_block_unref(run.block);
    free(payload);
    return r;
}

struct nh_connection *connect_to(struct host *from, const struct host *to)
{
    struct nh_connection *c = NULL;
    struct nh_error err = {0};

    cr_assert_eq(from->ops->get_connection(from->t, to->address, &c, &err), 0, "%s", err.text);
    return c;
}

bool await_at_least(struct host *h, const uint32_t *counter, uint32_t n)
{
    for (uint32_t i = 0; i < AWAIT_S * 200; i++) {
        bool reached;

        pthread_mutex_lock(&h->lock);
        reached = *counter >= n;
        pthread_mutex_unlock(&h->lock);
        if (reached)
            return true;
        usleep(5000);
    }
    return false;
}
