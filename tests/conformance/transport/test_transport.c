/* The ITransport contract (raftio/transport.h), over any transport. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/conformance/transport/fixture.h"

static struct host a_b[2], *const a = &a_b[0], *const b = &a_b[1];

static void setup(void)
{
    hosts_init(a_b, 2);
    host_up(a, NULL);
    host_up(b, NULL);
}

static void teardown(void)
{
    host_down(a);
    host_down(b);
}

TestSuite(transport, .init = setup, .fini = teardown);

Test(transport, the_table_is_complete)
{
    cr_assert_eq(a->ops->abi_version, NH_TRANSPORT_ABI);
    cr_assert_geq(a->ops->struct_size, sizeof *a->ops);
    cr_assert(a->ops->name && a->ops->name[0]);
    cr_assert(a->ops->open && a->ops->start && a->ops->close && a->ops->get_connection && a->ops->send_batch &&
              a->ops->close_connection);
}

Test(transport, batches_arrive_in_order_and_once)
{
    struct nh_connection *c = connect_to(a, b);

    for (uint64_t i = 0; i < 2000; i++)
        cr_assert_eq(send_numbered(a, c, i), 0);
    cr_assert(await_at_least(b, &b->n_messages, 2000), "%u of 2000 came", b->n_messages);
    cr_assert_not(b->out_of_order || b->doubled);
    cr_assert_str_eq(b->source, a->address);
    a->ops->close_connection(c);
}

Test(transport, both_directions_work_at_once)
{
    struct nh_connection *there = connect_to(a, b), *back = connect_to(b, a);

    for (uint64_t i = 0; i < 100; i++) {
        cr_assert_eq(send_numbered(a, there, i), 0);
        cr_assert_eq(send_numbered(b, back, i), 0);
    }
    cr_assert(await_at_least(b, &b->n_messages, 100));
    cr_assert(await_at_least(a, &a->n_messages, 100));
    a->ops->close_connection(there);
    b->ops->close_connection(back);
}

Test(transport, entries_arrive_whole)
{
    struct nh_connection *c = connect_to(a, b);

    cr_assert_eq(send_entry(a, c, 10), 0);
    cr_assert_eq(send_entry(a, c, 8u << 20), 0);
    cr_assert(await_at_least(b, &b->n_messages, 2));
    cr_assert_geq(b->entry_bytes, 10 + (8u << 20));
    a->ops->close_connection(c);
}

Test(transport, an_empty_batch_says_that_a_host_lives)
{
    struct nh_message_batch ping = {.deployment_id = DEPLOYMENT, .source_address = a->address};
    struct nh_connection *c = connect_to(a, b);

    cr_assert_eq(a->ops->send_batch(c, &ping, NULL), 0);
    cr_assert(await_at_least(b, &b->n_batches, 1));
    cr_assert_eq(b->n_messages, 0);
    cr_assert_str_eq(b->source, a->address);
    a->ops->close_connection(c);
}

Test(transport, types_that_are_only_local_are_refused)
{
    struct nh_connection *c = connect_to(a, b);

    for (uint32_t type = 0; type <= NH_MSG_TYPE_COUNT; type++) {
        struct nh_message m[] = {{.type = NH_MSG_NOOP, .shard_id = 1, .to = 2, .from = 1},
                                 {.type = type, .shard_id = 1, .to = 2, .from = 1}};
        struct nh_message_batch batch = {.deployment_id = DEPLOYMENT,
                                         .source_address = a->address,
                                         .n_messages = 2,
                                         .messages = m};

        if (nh_message_type_is_local(type))
            cr_assert_eq(a->ops->send_batch(c, &batch, NULL), NH_EINVAL, "type %u", type);
    }
    cr_assert_eq(send_numbered(a, c, 0), 0);
    cr_assert(await_at_least(b, &b->n_messages, 1));
    cr_assert_eq(b->n_messages, 1, "nothing of a refused batch was sent");
    a->ops->close_connection(c);
}

Test(transport, a_batch_above_the_frame_limit_is_refused_and_one_at_it_goes)
{
    struct nh_transport_config small = {.frame_bytes_max = 64 * 1024};
    struct nh_connection *c;

    host_down(a);
    host_up(a, &small);
    c = connect_to(a, b);
    cr_assert_eq(send_entry(a, c, 64 * 1024), NH_EINVAL);
    cr_assert_eq(send_entry(a, c, 60 * 1024), 0);
    cr_assert(await_at_least(b, &b->n_messages, 1));
    a->ops->close_connection(c);
}

Test(transport, what_was_accepted_and_is_lost_is_reported_for_every_message)
{
    struct nh_connection *c;
    uint32_t n_accepted = 0;

    host_down(b);
    c = connect_to(a, b);
    for (uint64_t i = 0; i < 50; i++)
        n_accepted += send_numbered(a, c, i) == 0;
    cr_assert(await_at_least(a, &a->n_unreachable, n_accepted), "%u of %u", a->n_unreachable, n_accepted);
    cr_assert_eq(a->n_unreachable, n_accepted, "once per message");
    a->ops->close_connection(c);
}

Test(transport, a_host_that_comes_later_or_again_is_reached)
{
    struct nh_connection *c;

    host_down(b);
    c = connect_to(a, b);
    cr_assert_eq(send_numbered(a, c, 0), 0);
    for (int round = 0; round < 3; round++) {
        host_up(b, NULL);
        pthread_mutex_lock(&b->lock);
        b->n_messages = 0;
        pthread_mutex_unlock(&b->lock);
        for (uint32_t i = 0; i < AWAIT_S * 20 && !b->n_messages; i++) {
            send_numbered(a, c, 0);
            usleep(50000);
        }
        cr_assert(b->n_messages > 0, "round %d", round);
        if (round < 2)
            host_down(b);
    }
    a->ops->close_connection(c);
}

Test(transport, the_queue_of_a_peer_is_bounded)
{
    struct nh_transport_config small = {.send_queue_bytes = 1u << 20};
    struct nh_connection *c;
    uint32_t n_accepted = 0;
    int r = 0;

    host_down(a);
    host_up(a, &small);
    pthread_mutex_lock(&b->lock); /* the receiver's handler stands still */
    c = connect_to(a, b);
    for (uint32_t i = 0; i < 4096 && r == 0; i++) {
        r = send_entry(a, c, 64 * 1024);
        n_accepted += r == 0;
    }
    pthread_mutex_unlock(&b->lock);
    cr_assert_eq(r, NH_EBUSY, "after %u batches: %d", n_accepted, r);
    cr_assert(await_at_least(b, &b->n_messages, n_accepted), "what was accepted arrives");
    for (uint32_t i = 0; i < AWAIT_S * 100 && send_entry(a, c, 64 * 1024) != 0; i++)
        usleep(10000);
    cr_assert(await_at_least(b, &b->n_messages, n_accepted + 1), "and there is room again");
    a->ops->close_connection(c);
}

/* Whatever a transport takes a batch to need before it is encoded: the queue has room for it again when it has gone. */
Test(transport, messages_of_the_smallest_and_the_largest_numbers_leave_no_trace_in_the_queue)
{
    enum { N = 200, ROUNDS = 200 };
    struct nh_transport_config small = {.send_queue_bytes = 256u << 10};
    struct nh_message m[N];
    struct nh_message_batch batch = {DEPLOYMENT, a->address, N, m};
    struct nh_connection *c;

    host_down(a);
    host_up(a, &small);
    c = connect_to(a, b);
    for (uint32_t round = 0; round < ROUNDS; round++) {
        uint64_t number = round % 2 ? 1 : UINT64_MAX;

        for (uint32_t i = 0; i < N; i++)
            m[i] = (struct nh_message){NH_MSG_REPLICATE_RESP,
                                       true,
                                       number,
                                       number,
                                       number,
                                       number,
                                       number,
                                       number,
                                       number,
                                       number,
                                       number,
                                       0,
                                       NULL,
                                       NULL};
        cr_assert_eq(a->ops->send_batch(c, &batch, NULL), 0, "round %u", round);
        cr_assert(await_at_least(b, &b->n_messages, (round + 1) * N), "round %u", round);
    }
    a->ops->close_connection(c);
}

Test(transport, hosts_of_other_deployments_stay_apart)
{
    struct nh_transport_config other = {.deployment_id = DEPLOYMENT + 1};
    struct nh_connection *c;

    host_down(b);
    host_up(b, &other);
    c = connect_to(a, b);
    cr_assert_eq(send_numbered(a, c, 0), 0);
    cr_assert(await_at_least(a, &a->n_unreachable, 1));
    cr_assert_eq(b->n_messages, 0);
    a->ops->close_connection(c);
}

static void expect_arrival(uint64_t our_layout, uint64_t their_layout, bool arrives)
{
    struct nh_transport_config ours = {.data_layout = our_layout}, theirs = {.data_layout = their_layout};
    struct nh_connection *c;

    host_down(a);
    host_down(b);
    host_up(a, &ours);
    host_up(b, &theirs);
    a->n_unreachable = b->n_messages = 0;
    c = connect_to(a, b);
    cr_assert_eq(send_numbered(a, c, 0), 0);
    if (arrives)
        cr_assert(await_at_least(b, &b->n_messages, 1));
    else
        cr_assert(await_at_least(a, &a->n_unreachable, 1));
    cr_assert_eq(b->n_messages, arrives ? 1u : 0u);
    a->ops->close_connection(c);
}

Test(transport, hosts_with_other_layouts_of_the_data_stay_apart)
{
    expect_arrival(7, 8, false);
    expect_arrival(7, 7, true);
}

/* As versions do that know of none. */
Test(transport, who_tells_no_layout_is_taken)
{
    expect_arrival(7, 0, true);
    expect_arrival(0, 7, true);
}

Test(transport, an_address_is_used_once)
{
    struct host third = *b;
    struct nh_error err = {0};

    third.t = NULL;
    cr_assert_eq(host_try_up(&third, NULL, &err), NH_EIO);
    cr_assert(strstr(err.text, b->address), "%s", err.text);
}

Test(transport, addresses_that_make_no_sense_are_refused)
{
    struct nh_connection *c;

    cr_assert_lt(a->ops->get_connection(a->t, "", &c, NULL), 0);
    if (strcmp(a->ops->name, "tcp") == 0) { /* others may have names of another form */
        cr_assert_lt(a->ops->get_connection(a->t, "no-port", &c, NULL), 0);
        cr_assert_lt(a->ops->get_connection(a->t, "host:99999", &c, NULL), 0);
    }
}

Test(transport, closing_with_batches_queued_calls_nobody_back)
{
    struct nh_connection *c;
    uint32_t after;

    host_down(b);
    c = connect_to(a, b);
    for (uint64_t i = 0; i < 100; i++)
        send_numbered(a, c, i);
    host_down(a);
    after = a->n_unreachable;
    usleep(50000);
    cr_assert_eq(a->n_unreachable, after);
}

Test(transport, chunks_travel_on_a_connection_of_their_own)
{
    struct nh_snapshot_connection *c = NULL;
    static uint8_t data[300000];
    struct nh_chunk chunk = {.shard_id = 1,
                             .replica_id = 2,
                             .from = 1,
                             .chunk_count = 3,
                             .deployment_id = DEPLOYMENT,
                             .data = data,
                             .size_bytes = sizeof data};

    cr_assert_eq(a->ops->get_snapshot_connection(a->t, b->address, &c, NULL), 0);
    for (chunk.chunk_id = 0; chunk.chunk_id < 3; chunk.chunk_id++)
        cr_assert_eq(a->ops->send_chunk(c, &chunk, NULL), 0);
    cr_assert(await_at_least(b, &b->n_chunks, 3));
    a->ops->close_snapshot_connection(c);
}

Test(transport, a_receiver_that_refuses_a_chunk_ends_the_stream)
{
    struct nh_snapshot_connection *c = NULL;
    static uint8_t data[100000];
    struct nh_chunk chunk = {.shard_id = 1,
                             .replica_id = 2,
                             .from = 1,
                             .chunk_count = 1000,
                             .deployment_id = DEPLOYMENT,
                             .data = data,
                             .size_bytes = sizeof data};
    int r = 0;

    b->refuse_chunks = true;
    cr_assert_eq(a->ops->get_snapshot_connection(a->t, b->address, &c, NULL), 0);
    for (; chunk.chunk_id < 1000 && r == 0; chunk.chunk_id++)
        r = a->ops->send_chunk(c, &chunk, NULL);
    cr_assert_eq(r, NH_EIO);
    cr_assert_eq(b->n_chunks, 0);
    a->ops->close_snapshot_connection(c);
}

Test(transport, it_says_when_it_has_no_more)
{
    struct nh_connection *c = connect_to(a, b);

    for (uint32_t i = 0; i < 10; i++)
        cr_assert_eq(send_numbered(a, c, i), 0);
    cr_assert(await_at_least(b, &b->n_messages, 10));
    if (NH_HAS(b->ops, calls_on_drained)) {
        cr_assert(await_at_least(b, &b->n_drained, 1));
        cr_assert_eq(send_numbered(a, c, 10), 0);
        cr_assert(await_at_least(b, &b->n_messages, 11));
        cr_assert(await_at_least(b, &b->n_drained, 2), "each time");
    }
    a->ops->close_connection(c);
}

Test(transport, it_sends_what_is_answered_there)
{
    struct nh_connection *c = connect_to(a, b), *back = connect_to(b, a);

    b->answer = back;
    for (uint32_t i = 0; i < 100 && NH_HAS(b->ops, calls_on_drained); i++) {
        cr_assert_eq(send_numbered(a, c, i), 0);
        cr_assert(await_at_least(a, &a->n_messages, i + 1));
    }
    a->ops->close_connection(c);
    b->ops->close_connection(back);
}

static double cpu_seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

Test(transport, it_is_quiet_when_nobody_sends)
{
    struct nh_connection *c = connect_to(a, b), *back = connect_to(b, a);
    double before;

    b->answer = back;
    for (uint32_t i = 0; i < 100; i++) {
        cr_assert_eq(send_numbered(a, c, i), 0);
        cr_assert(await_at_least(b, &b->n_messages, i + 1));
    }
    usleep(100000);
    before = cpu_seconds();
    usleep(500000);
    cr_assert_lt(cpu_seconds() - before, 0.25, "it looks for messages all the time");
    a->ops->close_connection(c);
    b->ops->close_connection(back);
}
