/* Several threads send over one TCP connection, small batches and large ones, to a receiver that is slow at times and then
 * goes away and comes back. Senders write the socket themselves, take turns with the loop, and meet its closing. What one
 * thread sends must arrive in order and at most once; while the receiver stays, all of it. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "raftio/plugin.h"
#include "raftio/support/block.h"
#include "raftio/transport.h"
#include "tests/addresses.h"
#include "tests/stress/check.h"
#include "transport/tcp/tcp_transport.h"

#define N_SENDERS  4u
#define N_STEADY   6000u /* batches per sender while the receiver stays */
#define N_OUTAGES  8u
#define N_SIZES    4u
#define AWAIT_MS   60000u
#define DEPLOYMENT 7u

static const uint32_t payloads[N_SIZES] = {16, 700, 40000, 150000};

struct stress {
    const struct nh_transport_ops *ops;
    char addresses[2][ADDRESS_SIZE];
    const char *from, *to;
    struct nh_transport *sending, *receiving;
    struct nh_block *blocks[N_SIZES];
    bool stop; /* atomic */
    /* atomic */
    uint64_t n_accepted, n_busy, n_delivered, n_unreachable;
    uint64_t last[N_SENDERS + 1]; /* of one receiver's thread at a time */
};

struct sender {
    pthread_t thread;
    struct stress *s;
    uint64_t shard, number, n_batches;
};

static uint64_t load(const uint64_t *counter)
{
    return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

static void count(uint64_t *counter)
{
    __atomic_add_fetch(counter, 1, __ATOMIC_RELAXED);
}

static void on_batch(void *ctx, const struct nh_message_batch *batch)
{
    struct stress *s = ctx;

    for (uint32_t i = 0; i < batch->n_messages; i++) {
        const struct nh_message *m = &batch->messages[i];

        CHECK(m->shard_id <= N_SENDERS && m->n_runs == 1);
        CHECK(m->hint > s->last[m->shard_id]);
        s->last[m->shard_id] = m->hint;
        count(&s->n_delivered);
    }
    if (load(&s->n_delivered) % 1024 == 0)
        usleep(20000); /* meanwhile the socket gets full */
}

static void on_unreachable(void *ctx, struct nh_replica_info to)
{
    CHECK(to.shard_id <= N_SENDERS && to.replica_id == 2);
    count(&((struct stress *)ctx)->n_unreachable);
}

static struct nh_transport *open_host(struct stress *s, const char *address)
{
    struct nh_transport_config c = {.struct_size = sizeof c,
                                    .deployment_id = DEPLOYMENT,
                                    .address = address,
                                    .send_queue_bytes = 8u << 20,
                                    .services = nh_plugin_services()};
    struct nh_transport_handlers h = {.struct_size = sizeof h, .ctx = s, .on_batch = on_batch, .on_unreachable = on_unreachable};
    struct nh_transport *t = NULL;

    CHECK(s->ops->open(&c, &h, &t, NULL) == NH_OK);
    CHECK(s->ops->start(t, NULL) == NH_OK);
    return t;
}

static struct nh_block *make_block(uint32_t payload_bytes)
{
    struct block_builder b = {0};
    void *payload = calloc(1, payload_bytes);

    CHECK(payload);
    block_builder_add(&b, &(struct block_record){.key = 1, .payload = payload, .payload_bytes = payload_bytes});
    free(payload);
    return block_seal(&b, 1, 1);
}

/* Mostly small ones: these go at once. */
static struct nh_block *pick_block(const struct sender *sender)
{
    uint64_t n = sender->number;

    return sender->s->blocks[n % 97 == 0 ? 3 : n % 31 == 0 ? 2 : n % 2];
}

static int send_one(struct sender *sender, struct nh_connection *c)
{
    struct nh_block *block = pick_block(sender);
    struct nh_run run = {block, 0, 1};
    struct nh_message m = {.type = NH_MSG_REPLICATE,
                           .shard_id = sender->shard,
                           .to = 2,
                           .from = 1,
                           .term = 1,
                           .hint = sender->number,
                           .n_runs = 1,
                           .runs = &run};
    struct nh_message_batch batch = {.n_messages = 1, .messages = &m};

    return sender->s->ops->send_batch(c, &batch, NULL);
}

static void *sender_main(void *arg)
{
    struct sender *sender = arg;
    struct stress *s = sender->s;
    struct nh_connection *c = NULL;

    CHECK(s->ops->get_connection(s->sending, s->to, &c, NULL) == NH_OK);
    for (uint64_t i = 0; i < sender->n_batches && !__atomic_load_n(&s->stop, __ATOMIC_RELAXED); i++) {
        sender->number++;
        while (send_one(sender, c) == NH_EBUSY) {
            count(&s->n_busy);
            usleep(1000);
        }
        count(&s->n_accepted);
        if (i % 16 == 0)
            usleep(50); /* lets the loop catch up, so that the socket is lent again */
    }
    s->ops->close_connection(c);
    return NULL;
}

static void start_senders(struct stress *s, struct sender *senders, uint64_t n_batches)
{
    __atomic_store_n(&s->stop, false, __ATOMIC_RELAXED);
    for (unsigned i = 0; i < N_SENDERS; i++) {
        senders[i].s = s;
        senders[i].shard = i + 1;
        senders[i].n_batches = n_batches;
        CHECK(pthread_create(&senders[i].thread, NULL, sender_main, &senders[i]) == 0);
    }
}

static void join_senders(struct sender *senders)
{
    for (unsigned i = 0; i < N_SENDERS; i++)
        pthread_join(senders[i].thread, NULL);
}

static bool await_delivered(struct stress *s, uint64_t n)
{
    for (unsigned ms = 0; ms < AWAIT_MS && load(&s->n_delivered) < n; ms += 5)
        usleep(5000);
    return load(&s->n_delivered) >= n;
}

static void report(const struct stress *s, const char *phase)
{
    struct tcp_transport_stats stats;

    tcp_transport_stats(s->sending, &stats);
    printf("%s: %llu accepted, %llu arrived, %llu reported lost, %llu times full, %llu frames sent\n", phase,
           (unsigned long long)load(&s->n_accepted), (unsigned long long)load(&s->n_delivered),
           (unsigned long long)load(&s->n_unreachable), (unsigned long long)load(&s->n_busy),
           (unsigned long long)stats.frames_sent);
}

static void run_steady(struct stress *s, struct sender *senders)
{
    struct tcp_transport_stats stats;

    start_senders(s, senders, N_STEADY);
    join_senders(senders);
    CHECK(await_delivered(s, load(&s->n_accepted)));
    report(s, "steady");
    tcp_transport_stats(s->sending, &stats);
    CHECK(load(&s->n_accepted) == (uint64_t)N_SENDERS * N_STEADY);
    CHECK(stats.frames_sent == load(&s->n_accepted) && load(&s->n_unreachable) == 0);
}

static void run_outages(struct stress *s, struct sender *senders)
{
    start_senders(s, senders, UINT64_MAX);
    for (unsigned i = 0; i < N_OUTAGES; i++) {
        uint64_t before = load(&s->n_delivered);

        usleep(30000);
        s->ops->close(s->receiving);
        usleep(20000);
        s->receiving = open_host(s, s->to);
        CHECK(await_delivered(s, before + 500));
    }
    __atomic_store_n(&s->stop, true, __ATOMIC_RELAXED);
    join_senders(senders);
    report(s, "outages");
    CHECK(load(&s->n_unreachable) > 0);
    CHECK(load(&s->n_delivered) <= load(&s->n_accepted) && load(&s->n_unreachable) <= load(&s->n_accepted));
}

int main(void)
{
    static struct stress s;
    struct sender senders[N_SENDERS] = {0};

    s.ops = nh_transport_tcp();
    CHECK(find_addresses(s.addresses, 2));
    s.from = s.addresses[0];
    s.to = s.addresses[1];
    for (unsigned i = 0; i < N_SIZES; i++)
        s.blocks[i] = make_block(payloads[i]);
    s.sending = open_host(&s, s.from);
    s.receiving = open_host(&s, s.to);
    run_steady(&s, senders);
    run_outages(&s, senders);
    s.ops->close(s.sending);
    s.ops->close(s.receiving);
    for (unsigned i = 0; i < N_SIZES; i++)
        nh_block_unref(s.blocks[i]);
    return 0;
}
