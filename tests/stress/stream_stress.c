/* Images between two hosts on threads, over the loopback transport and the real disk: several shards at once, half of the images
 * made on the fly; streams are cancelled on either side, replaced, and at the end cut off by closing the hosts. Run under
 * ThreadSanitizer too.
 *
 * Checks: each stream ends exactly once; what is handed over is a whole image of the right state; after a cancel has returned
 * nothing of the shard runs, and every producer has been released.
 */
#include <assert.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/snapshot_stream.h"
#include "raftio/support/log.h"
#include "raftio/support/memory.h"
#include "transport/loopback/loopback.h"

#define N_SHARDS   4u
#define N_ROUNDS   12u
#define DATA_BYTES (20u * STREAM_CHUNK_BYTES)

struct shard {
    uint64_t id;
    unsigned seed;
    struct snapshot_dir dirs[2]; /* replica 1 is at host 0, replica 2 at host 1 */
    uint8_t *image;
    size_t image_bytes, image_cap;
    uint64_t index; /* of the image */
    uint32_t n_sent, n_producers;
    uint32_t n_started, n_ended, n_arrived, n_released, n_running; /* atomic */
    uint64_t received_index;                                       /* atomic */
};

struct host {
    uint32_t number;
    char address[16];
    struct nh_transport *transport;
    struct nh_connection *to_other;
    struct snapshot_sender *sender;
    struct snapshot_receiver *receiver;
};

static struct runtime *runtime;
static struct host hosts[2];
static struct shard shards[N_SHARDS];
static char root[2][64];
static struct nh_member members[2] = {{.replica_id = 1, .address = "h0:1"}, {.replica_id = 2, .address = "h1:1"}};

#define MUST(call)                                                        \
    do {                                                                  \
        struct nh_error err = {0};                                        \
        if ((call) < 0) {                                                 \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, err.text); \
            abort();                                                      \
        }                                                                 \
    } while (0)

static uint32_t count(uint32_t *counter)
{
    return __atomic_load_n(counter, __ATOMIC_SEQ_CST);
}

static void add(uint32_t *counter, uint32_t n)
{
    __atomic_add_fetch(counter, n, __ATOMIC_SEQ_CST);
}

static struct shard *shard_of(uint64_t shard_id)
{
    assert(shard_id >= 1 && shard_id <= N_SHARDS);
    return &shards[shard_id - 1];
}

/* ---- images ---- */

static struct nh_snapshot record_of(const struct shard *s)
{
    return (struct nh_snapshot){.shard_id = s->id,
                                .index = s->index,
                                .term = 1,
                                .membership = {.config_change_id = 1, .n_members = 2, .members = members}};
}

static int keep(void *ctx, const void *data, size_t size_bytes, struct nh_error *err)
{
    struct shard *s = ctx;

    (void)err;
    array_reserve((void **)&s->image, &s->image_cap, s->image_bytes + size_bytes, 1);
    memcpy(s->image + s->image_bytes, data, size_bytes);
    s->image_bytes += size_bytes;
    return NH_OK;
}

/* A new image of the next index, in memory; and on the disk of host 0. */
static void make_image(struct shard *s, bool stored)
{
    const struct image_sink sink = {keep, s};
    struct image_head head = {.machine_name = "m", .machine_version = "1"};
    size_t bytes = DATA_BYTES / 4 + (unsigned)rand_r(&s->seed) % DATA_BYTES;
    struct image_writer *w;
    struct snapshot_temp t;
    uint64_t size;

    s->index++;
    s->image_bytes = 0;
    head.record = record_of(s);
    MUST(image_writer_new(&sink, &head, &w, &err));
    MUST(image_write_sessions(w, "", 0, &err));
    for (size_t at = 0; at < bytes; at += 4096) {
        unsigned piece[1024];

        for (unsigned i = 0; i < 1024; i += 64)
            piece[i] = (unsigned)rand_r(&s->seed);
        MUST(image_write_data(w, piece, sizeof piece, &err));
    }
    MUST(image_writer_finish(w, &size, &err));
    image_writer_free(w);
    if (!stored)
        return;
    MUST(snapshot_temp_begin(&t, &s->dirs[0], s->index, 0, &err));
    MUST(snapshot_temp_write(&t, s->image, s->image_bytes, &err));
    head.record.file_size_bytes = size;
    MUST(snapshot_temp_commit(&t, &head.record, &err));
    MUST(snapshot_dir_prune(&s->dirs[0], s->index, 1, &err));
}

static int produce(void *ctx, const struct image_sink *sink, const volatile bool *stop, struct nh_error *err)
{
    struct shard *s = ctx;
    int r = NH_OK;

    add(&s->n_running, 1);
    for (size_t at = 0; r == NH_OK && at < s->image_bytes && !__atomic_load_n(stop, __ATOMIC_ACQUIRE); at += 50000) {
        size_t left = s->image_bytes - at;

        r = sink->write(sink->ctx, s->image + at, left < 50000 ? left : 50000, err);
    }
    add(&s->n_running, UINT32_MAX);
    return r;
}

static void release(void *ctx)
{
    add(&((struct shard *)ctx)->n_released, 1);
}

/* ---- callbacks ---- */

static void on_started(void *ctx, const struct stream_id *id)
{
    (void)ctx;
    add(&shard_of(id->shard_id)->n_started, 1);
}

static void on_ended(void *ctx, const struct stream_id *id, bool failed, const char *reason)
{
    struct shard *s = shard_of(id->shard_id);

    (void)ctx;
    assert(failed == (reason[0] != 0));
    if (failed && strcmp(reason, STREAM_REPLACED) != 0 && strcmp(reason, "the replica is being stopped") != 0 &&
        strcmp(reason, "the host is being closed") != 0) {
        fprintf(stderr, "shard %" PRIu64 ": %s\n", id->shard_id, reason);
        abort();
    }
    add(&s->n_arrived, !failed);
    add(&s->n_ended, 1);
}

static int on_admit(void *ctx, uint64_t shard_id, uint64_t replica_id, const struct nh_snapshot *record, struct snapshot_dir *ret)
{
    struct shard *s = shard_of(shard_id);

    (void)ctx;
    assert(replica_id == 2);
    if (record->index <= __atomic_load_n(&s->received_index, __ATOMIC_SEQ_CST))
        return NH_EEXIST;
    *ret = s->dirs[1];
    return NH_OK;
}

static void on_answer(void *ctx, const char *address, const struct nh_message *m)
{
    const struct host *h = ctx;
    struct nh_message message = *m;
    const struct nh_message_batch batch = {.deployment_id = 1,
                                           .source_address = h->address,
                                           .n_messages = 1,
                                           .messages = &message};

    assert(strcmp(address, hosts[1 - h->number].address) == 0);
    nh_transport_loopback()->send_batch(h->to_other, &batch, NULL); /* one that is lost is asked for again */
}

static void on_received(void *ctx, struct nh_message *install)
{
    struct shard *s = shard_of(install->shard_id);
    struct image_source source;
    struct file_source from;
    struct image_head head;
    struct file *f;
    uint64_t size;

    (void)ctx;
    MUST(snapshot_dir_open(&s->dirs[1], install->snapshot->index, &f, &size, &err));
    assert(size == install->snapshot->file_size_bytes);
    file_source_init(&from, files_posix(), f, &source);
    MUST(image_verify(&source, &head, &err));
    assert(head.record.index == install->snapshot->index);
    image_head_deinit(&head);
    files_posix()->ops->close(f, NULL);
    __atomic_store_n(&s->received_index, install->snapshot->index, __ATOMIC_SEQ_CST);
    MUST(snapshot_dir_prune(&s->dirs[1], install->snapshot->index, 1, &err));
    nh_message_deinit(install);
}

static bool on_chunk(void *ctx, const struct nh_chunk *chunk)
{
    return snapshot_receiver_chunk(((struct host *)ctx)->receiver, chunk);
}

static void on_batch(void *ctx, const struct nh_message_batch *batch)
{
    for (uint32_t i = 0; i < batch->n_messages; i++)
        snapshot_sender_answer(((struct host *)ctx)->sender, &batch->messages[i]);
}

/* ---- hosts ---- */

static void open_transport(struct host *h, struct loopback_hub *hub)
{
    const struct nh_transport_config config = {.struct_size = sizeof config,
                                               .deployment_id = 1,
                                               .address = h->address,
                                               .services = nh_plugin_services()};
    const struct nh_transport_handlers handlers = {.struct_size = sizeof handlers,
                                                   .ctx = h,
                                                   .on_batch = on_batch,
                                                   .on_chunk = on_chunk};

    MUST(loopback_open(hub, &config, &handlers, &h->transport, &err));
}

static void open_streams(struct host *h)
{
    const struct snapshot_sender_config sc = {
        .runtime = runtime,
        .files = files_posix(),
        .transport_ops = nh_transport_loopback(),
        .transport = h->transport,
        .deployment_id = 1,
        .address = h->address,
        .bytes_per_s = 200u << 20,
        .sending_max = 3,
        .started = on_started,
        .ended = on_ended,
    };
    const struct snapshot_receiver_config rc = {
        .runtime = runtime, .files = files_posix(), .ctx = h, .admit = on_admit, .answer = on_answer, .received = on_received};

    MUST(snapshot_sender_new(&sc, &h->sender, &err));
    MUST(snapshot_receiver_new(&rc, &h->receiver, &err));
}

static void start_host(struct host *h)
{
    MUST(nh_transport_loopback()->start(h->transport, &err));
    MUST(nh_transport_loopback()->get_connection(h->transport, hosts[1 - h->number].address, &h->to_other, &err));
    snapshot_sender_start(h->sender);
    snapshot_receiver_start(h->receiver);
}

/* ---- shards ---- */

static void send_image(struct shard *s, bool produced)
{
    struct nh_snapshot record = record_of(s);
    const struct nh_message install = {
        .type = NH_MSG_INSTALL_SNAPSHOT, .shard_id = s->id, .to = 2, .from = 1, .term = 1, .snapshot = &record};
    const struct stream_producer producer = {produce, release, s};
    struct stream_request request = {.id = {s->id, 1, 2, s->index},
                                     .install = &install,
                                     .dir = s->dirs[0],
                                     .producer = produced ? &producer : NULL};

    memcpy(request.address, hosts[1].address, sizeof hosts[1].address);
    s->n_sent++;
    s->n_producers += produced;
    snapshot_sender_send(hosts[0].sender, &request);
}

static void await_end(struct shard *s)
{
    for (uint32_t ms = 0; count(&s->n_ended) < s->n_sent; ms++) {
        assert(ms < 60000);
        usleep(1000);
    }
}

static void set_done(void *ctx)
{
    __atomic_store_n((bool *)ctx, true, __ATOMIC_RELEASE);
}

static void await_done(const bool *done)
{
    for (uint32_t ms = 0; !__atomic_load_n(done, __ATOMIC_ACQUIRE); ms++) {
        assert(ms < 60000);
        usleep(1000);
    }
}

static void cancel(struct shard *s)
{
    bool done = false;

    snapshot_sender_cancel(hosts[0].sender, s->id, set_done, &done);
    await_done(&done);
    assert(count(&s->n_started) == s->n_sent);
    assert(count(&s->n_ended) == s->n_sent);
    assert(count(&s->n_released) == s->n_producers);
    assert(count(&s->n_running) == 0);
}

static void cancel_received(struct shard *s)
{
    bool done = false;

    snapshot_receiver_cancel(hosts[1].receiver, s->id, set_done, &done);
    await_done(&done);
}

/* The image that a producer writes from is not changed while one may run. */
static void *run_shard(void *arg)
{
    struct shard *s = arg;

    for (uint32_t round = 0; round < N_ROUNDS; round++) {
        bool produced = (unsigned)rand_r(&s->seed) % 2;

        make_image(s, true);
        send_image(s, produced);
        usleep((unsigned)rand_r(&s->seed) % 20000);
        switch ((unsigned)rand_r(&s->seed) % 5) {
        case 0: cancel(s); break;
        case 1: cancel_received(s); break;
        case 2: send_image(s, !produced); break; /* replaces it */
        default: break;
        }
        await_end(s);
        cancel(s);
    }
    assert(count(&s->n_arrived) > 0);
    make_image(s, true);
    send_image(s, s->id % 2); /* cut off by the end */
    return NULL;
}

static void prepare(struct loopback_hub *hub)
{
    runtime = runtime_threads_new();
    for (uint32_t i = 0; i < 2; i++) {
        hosts[i].number = i;
        snprintf(hosts[i].address, sizeof hosts[i].address, "h%u:1", i);
        snprintf(root[i], sizeof root[i], "/tmp/stream_stress.%d.%u", (int)getpid(), i);
        MUST(files_posix()->ops->make_dir(files_posix(), root[i], &err));
        open_transport(&hosts[i], hub);
        open_streams(&hosts[i]);
    }
    for (uint32_t i = 0; i < N_SHARDS; i++) {
        shards[i].id = i + 1;
        shards[i].seed = i + 1;
        for (uint32_t k = 0; k < 2; k++)
            MUST(snapshot_dir_init(&shards[i].dirs[k], files_posix(), root[k], i + 1, k + 1, &err));
    }
    for (uint32_t i = 0; i < 2; i++)
        start_host(&hosts[i]);
}

static void finish(struct loopback_hub *hub)
{
    for (uint32_t i = 0; i < 2; i++) {
        snapshot_sender_stop(hosts[i].sender);
        snapshot_receiver_stop(hosts[i].receiver);
    }
    for (uint32_t i = 0; i < 2; i++) {
        nh_transport_loopback()->close_connection(hosts[i].to_other);
        nh_transport_loopback()->close(hosts[i].transport);
    }
    for (uint32_t i = 0; i < 2; i++) {
        snapshot_sender_free(hosts[i].sender);
        snapshot_receiver_free(hosts[i].receiver);
        MUST(files_posix()->ops->remove(files_posix(), root[i], &err));
    }
    loopback_hub_free(hub);
    runtime_threads_free(runtime);
}

int main(void)
{
    struct loopback_hub *hub = loopback_hub_new(NULL);
    pthread_t threads[N_SHARDS];
    uint32_t n_sent = 0, n_arrived = 0;

    log_set_level(NH_LOG_ERROR);
    prepare(hub);
    for (uint32_t i = 0; i < N_SHARDS; i++)
        assert(pthread_create(&threads[i], NULL, run_shard, &shards[i]) == 0);
    for (uint32_t i = 0; i < N_SHARDS; i++)
        pthread_join(threads[i], NULL);
    finish(hub);
    for (uint32_t i = 0; i < N_SHARDS; i++) {
        const struct shard *s = &shards[i];

        assert(s->n_started == s->n_sent && s->n_ended == s->n_sent && s->n_released == s->n_producers && s->n_running == 0);
        n_sent += s->n_sent;
        n_arrived += s->n_arrived;
        free(s->image);
    }
    printf("%u streams, %u arrived\n", n_sent, n_arrived);
    return 0;
}
