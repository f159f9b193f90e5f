#include "engine/outbox.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "raftio/support/block.h"

static struct outbox o;
static struct liveness liveness;
static uint32_t batches[16], n_batches, n_failed;
static int result;

static int get_connection(struct nh_transport *t, const char *target, struct nh_connection **ret, struct nh_error *err)
{
    (void)t;
    (void)err;
    *ret = (struct nh_connection *)&o;
    return strcmp(target, "bad") == 0 ? NH_EINVAL : NH_OK;
}

static int send_batch(struct nh_connection *c, const struct nh_message_batch *batch, struct nh_error *err)
{
    (void)c;
    (void)err;
    cr_assert_eq(batch->deployment_id, 7);
    cr_assert_str_eq(batch->source_address, "me:1");
    batches[n_batches++ % 16] = batch->n_messages;
    return result;
}

static void close_connection(struct nh_connection *c)
{
    (void)c;
}

static const struct nh_transport_ops ops = {.get_connection = get_connection,
                                            .send_batch = send_batch,
                                            .close_connection = close_connection};

static void failed(void *ctx, const struct nh_message *m)
{
    (void)ctx;
    cr_assert_eq(m->shard_id, 5);
    n_failed++;
}

static void setup(void)
{
    liveness_init(&liveness);
    outbox_init(&o, &liveness, 7, "me:1");
    o.ops = &ops;
}

static void teardown(void)
{
    outbox_deinit(&o);
    liveness_deinit(&liveness);
}

TestSuite(outbox, .init = setup, .fini = teardown);

static void add(struct outbox_peer *p, size_t entry_bytes)
{
    struct nh_message m = {.type = NH_MSG_HEARTBEAT, .shard_id = 5, .to = 2};

    if (entry_bytes) {
        struct block_builder b = {0};
        char *payload = calloc(1, entry_bytes);

        block_builder_add(&b, &(struct block_record){.payload = payload, .payload_bytes = (uint32_t)entry_bytes});
        m.runs = calloc(1, sizeof *m.runs);
        m.runs[0] = (struct nh_run){block_seal(&b, 1, 1), 0, 1};
        m.n_runs = 1;
        free(payload);
    }
    outbox_add(&o, p, &m);
}

Test(outbox, messages_to_one_host_leave_together)
{
    struct outbox_peer *a = outbox_peer(&o, "a:1", 0), *b = outbox_peer(&o, "b:1", 0);

    cr_assert_eq(outbox_peer(&o, "a:1", 0), a);
    for (int i = 0; i < 5; i++)
        add(a, 0);
    add(b, 0);
    outbox_flush(&o, failed, NULL);
    cr_assert_eq(n_batches, 2);
    cr_assert_eq(batches[0], 5);
    cr_assert_eq(batches[1], 1);
    outbox_flush(&o, failed, NULL);
    cr_assert_eq(n_batches, 2, "nothing is left");
}

Test(outbox, a_batch_is_bounded_but_one_large_message_goes)
{
    struct outbox_peer *a = outbox_peer(&o, "a:1", 0);

    add(a, OUTBOX_BATCH_BYTES + 1);
    add(a, OUTBOX_BATCH_BYTES / 2);
    add(a, OUTBOX_BATCH_BYTES / 2 - 1000);
    add(a, OUTBOX_BATCH_BYTES / 2);
    outbox_flush(&o, failed, NULL);
    cr_assert_eq(n_batches, 3);
    cr_assert_eq(batches[0], 1);
    cr_assert_eq(batches[1], 2);
    cr_assert_eq(batches[2], 1);
}

Test(outbox, what_the_transport_refuses_is_reported_message_by_message)
{
    struct outbox_peer *a = outbox_peer(&o, "a:1", 0);

    result = NH_EBUSY;
    for (int i = 0; i < 3; i++)
        add(a, 0);
    outbox_flush(&o, failed, NULL);
    cr_assert_eq(n_failed, 3);
    cr_assert_eq(o.messages_sent, 0);
}

Test(outbox, only_peers_that_heard_nothing_are_pinged)
{
    struct outbox_peer *a = outbox_peer(&o, "a:1", 0);

    outbox_peer(&o, "b:1", 0);
    add(a, 0);
    outbox_flush(&o, failed, NULL);
    outbox_ping(&o);
    cr_assert_eq(n_batches, 2);
    cr_assert_eq(batches[1], 0);
    outbox_ping(&o);
    cr_assert_eq(n_batches, 4);
}

Test(outbox, peers_are_limited)
{
    char address[32];

    cr_assert_null(outbox_peer(&o, "bad", 0));
    for (uint32_t i = 0; i < OUTBOX_PEERS_MAX; i++) {
        snprintf(address, sizeof address, "p:%u", i);
        cr_assert_not_null(outbox_peer(&o, address, 0));
    }
    cr_assert_null(outbox_peer(&o, "one:more", 0));
    cr_assert_not_null(outbox_peer(&o, "p:0", 0));
}

Test(liveness, only_known_hosts_are_remembered)
{
    struct liveness l;
    struct live_host *h;

    liveness_init(&l);
    liveness_heard(&l, "stranger:1", 5);
    cr_assert_null(l.hosts);
    h = liveness_add(&l, "a:1", 10);
    cr_assert_eq(liveness_add(&l, "a:1", 20), h);
    cr_assert_eq(live_host_heard_ns(h), 10);
    liveness_heard(&l, "a:1", 30);
    cr_assert_eq(live_host_heard_ns(h), 30);
    liveness_deinit(&l);
}
