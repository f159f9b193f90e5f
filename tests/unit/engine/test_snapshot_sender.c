/* A sender whose streams all go to hosts that answer no connection: what else its task has to do does not wait for all of them.
 *
 * The sender's task is a thread; the clock is the test's. The first chunk is held until whoever wants something of the sender has
 * said so and begins to wait.
 */
#include <criterion/criterion.h>
#include <semaphore.h>
#include <stdio.h>

#include "engine/snapshot_stream.h"

#define STREAMS    10u
#define CONNECT_NS 5000000000ull /* after which nobody has answered */

static struct runtime *threads;
static struct snapshot_sender *sender;
static sem_t held, go_on;
static uint64_t clock_ns;                                               /* atomic */
static uint32_t n_sent, n_sent_of_last;                                 /* atomic */
static uint32_t n_ended, n_released;                                    /* atomic */
static struct nh_snapshot_connection *const connection = (void *)&held; /* they are all alike */

static uint32_t count(uint32_t *counter)
{
    return __atomic_load_n(counter, __ATOMIC_SEQ_CST);
}

static void add(uint32_t *counter)
{
    __atomic_add_fetch(counter, 1, __ATOMIC_SEQ_CST);
}

/* ---- runtime: threads, with a clock of ours; who stops the task lets the first chunk go on ---- */

static uint64_t now_ns(struct runtime *rt)
{
    (void)rt;
    return __atomic_load_n(&clock_ns, __ATOMIC_SEQ_CST);
}

static struct task *task_start(struct runtime *rt, const char *name, task_poll_fn poll, void *arg)
{
    (void)rt;
    return threads->ops->task_start(threads, name, poll, arg);
}

static void task_stop(struct task *t)
{
    sem_post(&go_on);
    threads->ops->task_stop(t);
}

static bool sleep_ns(struct runtime *rt, uint64_t ns)
{
    (void)rt;
    return threads->ops->sleep_ns(threads, ns);
}

/* ---- network ---- */

static int get_connection(struct nh_transport *t, const char *target, struct nh_snapshot_connection **ret, struct nh_error *err)
{
    (void)t;
    (void)target;
    (void)err;
    *ret = connection;
    return NH_OK;
}

static int send_chunk(struct nh_snapshot_connection *c, const struct nh_chunk *chunk, struct nh_error *err)
{
    (void)c;
    if (chunk->shard_id == STREAMS)
        add(&n_sent_of_last);
    add(&n_sent);
    if (count(&n_sent) == 1) {
        sem_post(&held);
        sem_wait(&go_on);
    }
    __atomic_add_fetch(&clock_ns, CONNECT_NS, __ATOMIC_SEQ_CST);
    return nh_error_set(err, NH_EIO, "nobody answers");
}

static void close_connection(struct nh_snapshot_connection *c)
{
    (void)c;
}

/* ---- streams ---- */

static void on_started(void *ctx, const struct stream_id *id)
{
    (void)ctx;
    (void)id;
}

static void on_ended(void *ctx, const struct stream_id *id, bool failed, const char *reason)
{
    (void)ctx;
    (void)id;
    (void)reason;
    cr_assert(failed);
    add(&n_ended);
}

static int produce(void *ctx, const struct image_sink *sink, const volatile bool *stop, struct nh_error *err)
{
    (void)ctx;
    (void)sink;
    (void)stop;
    return nh_error_set(err, NH_EINVAL, "nobody has asked for it");
}

static void release(void *ctx)
{
    (void)ctx;
    add(&n_released);
}

/* Each to a host of its own. */
static void send_image(uint64_t shard_id)
{
    struct nh_member members[] = {{.replica_id = 1, .address = "here:1"}, {.replica_id = 2, .address = "there:1"}};
    struct nh_snapshot record = {.shard_id = shard_id, .index = 1, .term = 1, .membership = {.n_members = 2, .members = members}};
    const struct nh_message install = {
        .type = NH_MSG_INSTALL_SNAPSHOT, .shard_id = shard_id, .to = 2, .from = 1, .term = 1, .snapshot = &record};
    const struct stream_producer producer = {.produce = produce, .release = release};
    struct stream_request request = {.id = {shard_id, 1, 2, 1}, .install = &install, .producer = &producer};

    snprintf(request.address, sizeof request.address, "host%u:1", (unsigned)shard_id);
    snapshot_sender_send(sender, &request);
}

/* All streams wait for their first step when the sender starts; its first chunk is held. */
static void begin(void)
{
    static const struct nh_transport_ops transport = {.name = "dead",
                                                      .get_snapshot_connection = get_connection,
                                                      .send_chunk = send_chunk,
                                                      .close_snapshot_connection = close_connection};
    static struct runtime_ops ops;
    static struct runtime runtime = {&ops};
    const struct snapshot_sender_config config = {.runtime = &runtime,
                                                  .transport_ops = &transport,
                                                  .address = "here:1",
                                                  .sending_max = STREAMS,
                                                  .started = on_started,
                                                  .ended = on_ended};

    threads = runtime_threads_new();
    ops = *threads->ops;
    ops.now_ns = now_ns;
    ops.task_start = task_start;
    ops.task_stop = task_stop;
    ops.sleep_ns = sleep_ns;
    clock_ns = CONNECT_NS;
    sem_init(&held, 0, 0);
    sem_init(&go_on, 0, 0);
    cr_assert_eq(snapshot_sender_new(&config, &sender, NULL), NH_OK);
    for (uint64_t shard_id = 1; shard_id <= STREAMS; shard_id++)
        send_image(shard_id);
    snapshot_sender_start(sender);
    sem_wait(&held);
}

static void finish(void)
{
    snapshot_sender_free(sender);
    runtime_threads_free(threads);
    cr_assert_eq(count(&n_ended), STREAMS);
    cr_assert_eq(count(&n_released), STREAMS);
}

Test(snapshot_sender, one_that_is_closed_tries_no_other_host)
{
    begin();
    snapshot_sender_stop(sender);
    cr_assert_eq(count(&n_sent), 1);
    finish();
}

static void on_cancelled(void *done)
{
    sem_post(done);
}

Test(snapshot_sender, a_cancel_waits_for_one_host_at_most)
{
    sem_t done;

    begin();
    sem_init(&done, 0, 0);
    snapshot_sender_cancel(sender, STREAMS, on_cancelled, &done);
    sem_post(&go_on);
    sem_wait(&done);
    sem_destroy(&done);
    cr_assert_eq(count(&n_sent_of_last), 0);
    cr_assert_geq(count(&n_released), 1);
    snapshot_sender_stop(sender);
    finish();
}
