#include "tests/unit/engine/stream_hosts.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "raftio/codec.h"
#include "raftio/support/memory.h"

#define MS_NS 1000000ull

struct stream_test test;

/* ---- runtime ---- */

struct task {
    struct task *next;
    task_poll_fn poll;
    void *arg;
    bool woken, stopped, polled; /* polled: a producer may let time pass in the middle of its poll */
    uint64_t at_ns;
};
static struct task *tasks;

static uint64_t now_ns(struct runtime *rt)
{
    (void)rt;
    return test.now_ns;
}

static struct task *task_start(struct runtime *rt, const char *name, task_poll_fn poll, void *arg)
{
    struct task *t = xcalloc(1, sizeof *t), **at = &tasks;

    (void)rt;
    (void)name;
    t->poll = poll;
    t->arg = arg;
    t->woken = true;
    while (*at)
        at = &(*at)->next;
    *at = t;
    return t;
}

static void task_wake(struct task *t)
{
    t->woken = true;
}

static void task_stop(struct task *t)
{
    if (t)
        t->stopped = true;
}

/* Tasks may be freed while they are walked: in the middle of a poll a host may restart. Those that nobody walks any more go. */
static void sweep_tasks(void)
{
    struct task **at = &tasks;

    while (*at) {
        struct task *t = *at;

        if (t->arg) {
            at = &t->next;
            continue;
        }
        *at = t->next;
        free(t);
    }
}

static void task_free(struct task *t)
{
    if (t)
        t->arg = NULL;
}

static bool sleep_ns(struct runtime *rt, uint64_t ns)
{
    (void)rt;
    (void)ns;
    return false; /* one thread */
}

static const struct runtime_ops runtime_ops = {now_ns, now_ns, task_start, task_wake, NULL, task_stop, task_free, sleep_ns};
static struct runtime runtime = {&runtime_ops};

static bool poll_all(void)
{
    bool polled = false;

    for (struct task *t = tasks; t; t = t->next) {
        if (t->stopped || t->polled || !(t->woken || t->at_ns <= test.now_ns))
            continue;
        t->woken = false;
        t->polled = true;
        t->at_ns = t->poll(t->arg);
        t->polled = false;
        polled = true;
    }
    if (!test.n_paused)
        sweep_tasks();
    return polled;
}

static void settle(void)
{
    for (uint32_t i = 0; poll_all(); i++)
        cr_assert_lt(i, 100000, "the tasks never come to rest");
}

static uint64_t next_time(void)
{
    uint64_t next = UINT64_MAX;

    for (struct task *t = tasks; t; t = t->next)
        if (!t->stopped && !t->polled && t->at_ns < next)
            next = t->at_ns;
    return next;
}

void stream_run_until(uint64_t until_ns)
{
    for (;;) {
        uint64_t next;

        settle();
        next = next_time();
        if (next > until_ns)
            break;
        test.now_ns = next;
    }
    if (test.now_ns < until_ns)
        test.now_ns = until_ns;
    settle();
}

void stream_run_ms(uint64_t ms)
{
    stream_run_until(test.now_ns + ms * MS_NS);
}

void stream_run_ended(uint32_t host, uint32_t n)
{
    uint64_t last_ns = test.now_ns + 3600000 * MS_NS;

    for (settle(); test.hosts[host].n_ended < n; settle()) {
        uint64_t next = next_time();

        cr_assert_lt(next, last_ns, "the streams do not end: %u of %u", test.hosts[host].n_ended, n);
        test.now_ns = next;
    }
}

/* ---- network ---- */

struct nh_snapshot_connection {
    char target[NH_ADDRESS_BYTES];
    bool broken;
};

static struct stream_host *host_at(const char *address)
{
    for (uint32_t i = 0; i < STREAM_HOSTS; i++)
        if (strcmp(test.hosts[i].address, address) == 0)
            return &test.hosts[i];
    return NULL;
}

static bool fault_is(enum stream_fault fault)
{
    return test.net.fault == fault && test.net.n_faults < test.net.times;
}

static int get_connection(struct nh_transport *t, const char *target, struct nh_snapshot_connection **ret, struct nh_error *err)
{
    struct nh_snapshot_connection *c;

    (void)t;
    if (test.net.connections_max && test.net.n_connections >= test.net.connections_max)
        return nh_error_set(err, NH_EBUSY, "no more connections are allowed");
    test.net.n_connections++;
    c = xcalloc(1, sizeof *c);
    strncpy(c->target, target, sizeof c->target - 1);
    c->broken = fault_is(FAULT_UNREACHABLE) && test.net.n_faults > 0;
    test.net.n_faults += c->broken;
    *ret = c;
    return NH_OK;
}

static void close_connection(struct nh_snapshot_connection *c)
{
    test.net.n_connections--;
    free(c);
}

/* Encoded, decoded, and perhaps not what was sent. */
static bool deliver(const char *target, const struct nh_chunk *chunk, bool corrupt)
{
    size_t size = chunk_encode(chunk, NULL, 0);
    uint8_t *bytes = xmalloc(size);
    struct nh_chunk got;
    bool taken;

    cr_assert_eq(chunk_encode(chunk, bytes, size), size);
    if (corrupt)
        bytes[size - 1 - chunk->size_bytes / 2] ^= 1;
    cr_assert_eq(chunk_decode(bytes, size, &got, NULL), NH_OK);
    taken = snapshot_receiver_chunk(host_at(target)->receiver, &got);
    test.net.overrun |= !taken && !corrupt;
    free(bytes);
    return taken;
}

static void note_sent(const struct nh_chunk *chunk)
{
    cr_assert_lt(chunk->chunk_id, CHUNKS_MAX);
    test.net.n_sent[chunk->chunk_id]++;
    if (chunk->chunk_id == 0)
        return;
    test.net.bytes += chunk->size_bytes;
    if (test.net.n_faults && !test.net.first_after_fault)
        test.net.first_after_fault = chunk->chunk_id;
    if (test.net.n_order < sizeof test.net.order - 1)
        test.net.order[test.net.n_order++] = (char)('0' + chunk->replica_id);
}

/* What the fault does to this chunk. 1: it goes on its way; 0: it does not, and nobody knows; otherwise the code of send_chunk.
 */
static int strike(struct nh_snapshot_connection *c, struct stream_host *target)
{
    test.net.n_faults++;
    switch (test.net.fault) {
    case FAULT_BROKEN:
    case FAULT_UNREACHABLE: c->broken = true; return NH_EIO;
    case FAULT_LOST: return 0;
    case FAULT_RESTART:
    case FAULT_CRASH: stream_host_restart((uint32_t)(target - test.hosts), test.net.fault == FAULT_CRASH); return 1;
    case FAULT_DISK_FULL: memory_files_fail_at(target->disk, 1, NH_ENOSPC); return 1;
    case FAULT_DISK_BROKEN: memory_files_fail_at(target->disk, 1, NH_EIO); return 1;
    case FAULT_NONE:
    case FAULT_TWICE:
    case FAULT_CORRUPT:
    case FAULT_ANSWER_LOST:
    case FAULT_ANSWERS_TWICE: return 1;
    }
    return 1;
}

static int send_chunk(struct nh_snapshot_connection *c, const struct nh_chunk *chunk, struct nh_error *err)
{
    bool struck = test.net.fault && chunk->chunk_id == test.net.chunk && test.net.n_faults < test.net.times;
    int r = 1;

    if (c->broken)
        return nh_error_set(err, NH_EIO, "the connection is broken");
    if (test.net.dead && host_at(c->target) == &test.hosts[test.net.dead - 1]) {
        test.net.n_waited++;
        test.now_ns += DEAD_MS * MS_NS;
        return nh_error_set(err, NH_EIO, "nobody answers");
    }
    note_sent(chunk);
    if (struck)
        r = strike(c, host_at(c->target));
    if (r < 0)
        return nh_error_set(err, r, "the connection broke");
    if (r == 0)
        return NH_OK;
    if (!deliver(c->target, chunk, struck && test.net.fault == FAULT_CORRUPT))
        c->broken = true;
    if (struck && test.net.fault == FAULT_TWICE && !c->broken)
        deliver(c->target, chunk, false);
    return NH_OK; /* that it was cut is noticed with the next one */
}

static const struct nh_transport_ops transport_ops = {
    .name = "calls",
    .get_snapshot_connection = get_connection,
    .send_chunk = send_chunk,
    .close_snapshot_connection = close_connection,
};

/* ---- callbacks ---- */

static void on_started(void *ctx, const struct stream_id *id)
{
    struct stream_host *h = ctx;

    (void)id;
    h->n_started++;
}

static void on_ended(void *ctx, const struct stream_id *id, bool failed, const char *reason)
{
    struct stream_host *h = ctx;

    (void)id;
    h->n_ended++;
    h->n_failed += failed;
    cr_assert(failed == (reason[0] != 0), "'%s'", reason);
    snprintf(h->reason, sizeof h->reason, "%s", reason);
    cr_assert_leq(h->n_ended, h->n_started);
}

static int on_admit(void *ctx, uint64_t shard_id, uint64_t replica_id, const struct nh_snapshot *record, struct snapshot_dir *ret)
{
    struct stream_host *h = ctx;

    if (shard_id != 1 || replica_id != (uint64_t)(h - test.hosts) + 1)
        return NH_ENOTFOUND;
    if (h->has_image && record->index <= h->received.snapshot->index)
        return NH_EEXIST;
    *ret = h->dir;
    return h->admits;
}

/* Answers that come after the fault are lost, or all are given twice. */
static void on_answer(void *ctx, const char *address, const struct nh_message *m)
{
    struct nh_message_batch batch = {.deployment_id = 1,
                                     .source_address = ((struct stream_host *)ctx)->address,
                                     .n_messages = 1,
                                     .messages = (struct nh_message *)m},
                            *got;
    uint8_t bytes[512];
    size_t size = batch_encode(&batch, bytes, sizeof bytes);

    cr_assert_leq(size, sizeof bytes);
    cr_assert_leq(m->hint_high, SNAPSHOT_REFUSED);
    test.net.n_answers[m->hint_high]++;
    if (test.net.mute)
        return;
    if (test.net.fault == FAULT_ANSWER_LOST && test.net.n_faults > 0 && test.net.n_faults <= test.net.times) {
        test.net.n_faults++;
        return;
    }
    cr_assert_eq(batch_decode(bytes, size, &got, NULL), NH_OK);
    for (int i = 0; i < 1 + (test.net.fault == FAULT_ANSWERS_TWICE && test.net.n_faults > 0); i++)
        snapshot_sender_answer(host_at(address)->sender, &got->messages[0]);
    batch_free(got);
}

/* Its record is saved next, and must not outlive it. */
static void check_durable(const struct stream_host *h, uint64_t index)
{
    char dir[FILES_PATH_BYTES], path[FILES_PATH_BYTES];

    cr_assert_eq(snapshot_dir_image(&h->dir, index, dir, NULL), NH_OK);
    cr_assert_eq(files_path(path, NULL, "%s/image", dir), NH_OK);
    cr_assert(memory_files_is_durable(h->disk, path), "%s", path);
}

static void on_received(void *ctx, struct nh_message *install)
{
    struct stream_host *h = ctx;

    check_durable(h, install->snapshot->index);
    nh_message_deinit(&h->received);
    h->received = *install;
    h->n_received++;
    h->has_image = true;
}

/* ---- hosts ---- */

static void open_host(struct stream_host *h)
{
    struct snapshot_sender_config sc = {
        .runtime = &runtime,
        .files = memory_files_base(h->disk),
        .transport_ops = &transport_ops,
        .transport = (struct nh_transport *)h,
        .deployment_id = 1,
        .address = h->address,
        .bytes_per_s = test.bytes_per_s,
        .sending_max = test.sending_max,
        .ctx = h,
        .started = on_started,
        .ended = on_ended,
    };
    struct snapshot_receiver_config rc = {
        .runtime = &runtime,
        .files = sc.files,
        .receiving_max = test.receiving_max,
        .disk_budget_bytes = test.disk_budget_bytes,
        .ctx = h,
        .admit = on_admit,
        .answer = on_answer,
        .received = on_received,
    };

    cr_assert_eq(snapshot_dir_init(&h->dir, sc.files, "", 1, (uint64_t)(h - test.hosts) + 1, NULL), NH_OK);
    cr_assert_eq(snapshot_sender_new(&sc, &h->sender, NULL), NH_OK);
    cr_assert_eq(snapshot_receiver_new(&rc, &h->receiver, NULL), NH_OK);
    snapshot_sender_start(h->sender);
    snapshot_receiver_start(h->receiver);
}

static void close_host(struct stream_host *h)
{
    snapshot_sender_stop(h->sender);
    snapshot_receiver_stop(h->receiver);
    snapshot_sender_free(h->sender);
    snapshot_receiver_free(h->receiver);
}

static uint64_t random_number(void *ctx)
{
    uint64_t *state = ctx;

    *state = *state * 6364136223846793005ull + 1442695040888963407ull;
    return *state >> 16;
}

void stream_host_restart(uint32_t host, bool crash)
{
    struct stream_host *h = &test.hosts[host];
    uint64_t state = host;

    if (crash)
        memory_files_crash_at(h->disk, 1); /* what closing does to the disk never happens */
    close_host(h);
    if (crash)
        memory_files_crash(h->disk, random_number, &state);
    open_host(h);
    cr_assert_eq(snapshot_dir_clean(&h->dir, h->has_image ? h->received.snapshot->index : 0, 1, NULL), NH_OK);
}

/* ---- the image ---- */

static struct nh_member members[STREAM_HOSTS];

static struct nh_snapshot record_of(uint64_t index)
{
    return (struct nh_snapshot){
        .shard_id = 1,
        .index = index,
        .term = STREAM_TERM,
        .membership = {.config_change_id = 1, .n_members = STREAM_HOSTS, .members = members},
    };
}

static size_t image_cap;

static int keep(void *ctx, const void *data, size_t size_bytes, struct nh_error *err)
{
    (void)ctx;
    (void)err;
    array_reserve((void **)&test.image, &image_cap, test.image_bytes + size_bytes, 1);
    memcpy(test.image + test.image_bytes, data, size_bytes);
    test.image_bytes += size_bytes;
    return NH_OK;
}

/* The last one that was made is kept: most tests want the same again and again. */
static uint8_t *image_kept;
static size_t image_kept_bytes, image_kept_data;

static void write_image(size_t data_bytes)
{
    const struct image_sink sink = {keep, NULL};
    struct image_head head = {.record = record_of(STREAM_INDEX), .machine_name = "m", .machine_version = "1"};
    struct image_writer *w;
    uint64_t state = 7, size;

    cr_assert_eq(image_writer_new(&sink, &head, &w, NULL), NH_OK);
    cr_assert_eq(image_write_sessions(w, "", 0, NULL), NH_OK);
    for (size_t at = 0; at < data_bytes; at += 4096) {
        uint64_t piece[512];
        size_t n = data_bytes - at < sizeof piece ? data_bytes - at : sizeof piece;

        for (size_t i = 0; i < 512; i++)
            piece[i] = random_number(&state);
        cr_assert_eq(image_write_data(w, piece, n, NULL), NH_OK);
    }
    cr_assert_eq(image_writer_finish(w, &size, NULL), NH_OK);
    image_writer_free(w);
    cr_assert_eq(size, test.image_bytes);
}

static void make_image(size_t data_bytes)
{
    if (image_kept_bytes == 0 || image_kept_data != data_bytes) {
        write_image(data_bytes);
        free(image_kept);
        image_kept = xmemdup(test.image, test.image_bytes);
        image_kept_bytes = test.image_bytes;
        image_kept_data = data_bytes;
    } else {
        test.image = xmemdup(image_kept, image_kept_bytes);
        test.image_bytes = image_kept_bytes;
    }
}

static void store_image(struct stream_host *h, uint64_t index)
{
    struct nh_snapshot record = record_of(index);
    struct snapshot_temp t;

    record.file_size_bytes = test.image_bytes;
    cr_assert_eq(snapshot_temp_begin(&t, &h->dir, index, 0, NULL), NH_OK);
    cr_assert_eq(snapshot_temp_write(&t, test.image, test.image_bytes, NULL), NH_OK);
    cr_assert_eq(snapshot_temp_commit(&t, &record, NULL), NH_OK);
    snapshot_temp_abort(&t);
}

uint32_t stream_chunks(void)
{
    return (uint32_t)((test.image_bytes + STREAM_CHUNK_BYTES - 1) / STREAM_CHUNK_BYTES);
}

void stream_hosts_open(size_t data_bytes)
{
    test.now_ns = 1000 * MS_NS;
    for (uint32_t i = 0; i < STREAM_HOSTS; i++) {
        struct stream_host *h = &test.hosts[i];

        snprintf(h->address, sizeof h->address, "host%u:1", i);
        members[i].replica_id = i + 1;
        memcpy(members[i].address, h->address, sizeof h->address);
        h->disk = memory_files_new();
        open_host(h);
    }
    make_image(data_bytes);
    store_image(&test.hosts[0], STREAM_INDEX);
    if (test.two_sources)
        store_image(&test.hosts[2], STREAM_INDEX);
}

void stream_hosts_close(void)
{
    for (uint32_t i = 0; i < STREAM_HOSTS; i++) {
        struct stream_host *h = &test.hosts[i];

        close_host(h);
        cr_assert_eq(h->n_started, h->n_ended);
        nh_message_deinit(&h->received);
        memory_files_free(h->disk);
    }
    sweep_tasks();
    free(test.image);
    image_cap = 0;
    test = (struct stream_test){0};
}

/* ---- sending ---- */

#define PIECE_BYTES 100003u

/* The machine writes nothing for a while: until it is told to stop, if it listens. */
static void take_a_pause(const volatile bool *stop)
{
    uint64_t until_ns = test.now_ns + test.pause_ms * MS_NS;

    test.n_pauses--;
    test.n_paused++;
    while (test.now_ns < until_ns && (test.deaf || !*stop)) {
        stream_run_ms(1000);
        if (!test.again || test.hosts[0].n_ended < 2)
            continue;
        test.again = false;
        stream_send(0, 2, true);
    }
    test.n_paused--;
    test.n_ended_in_pause = test.hosts[0].n_ended;
}

static int produce(void *ctx, const struct image_sink *sink, const volatile bool *stop, struct nh_error *err)
{
    (void)ctx;
    test.n_produced++;
    for (size_t at = 0; at < test.image_bytes; at += PIECE_BYTES) {
        size_t n = test.image_bytes - at < PIECE_BYTES ? test.image_bytes - at : PIECE_BYTES;
        int r;

        if (test.n_pauses > 0 && at >= test.pause_at)
            take_a_pause(stop);
        if (*stop)
            return nh_error_set(err, NH_ECLOSED, "told to stop");
        if (test.produce_fails_at && at >= test.produce_fails_at)
            return nh_error_set(err, NH_EMACHINE, "the machine broke");
        r = sink->write(sink->ctx, test.image + at, n, err);
        if (r < 0)
            return r;
    }
    return NH_OK;
}

static void on_release(void *ctx)
{
    ((struct stream_host *)ctx)->n_released++;
}

static void send_image(uint32_t host, struct stream_id id, bool produced)
{
    struct stream_host *h = &test.hosts[host];
    struct nh_snapshot record = record_of(id.index);
    const struct nh_message install = {.type = NH_MSG_INSTALL_SNAPSHOT,
                                       .shard_id = id.shard_id,
                                       .to = id.to,
                                       .from = id.from,
                                       .term = STREAM_TERM + 1,
                                       .snapshot = &record};
    const struct stream_producer producer = {produce, on_release, h};
    struct stream_request request = {.id = id, .install = &install, .dir = h->dir, .producer = produced ? &producer : NULL};

    record.shard_id = id.shard_id;
    memcpy(request.address, test.hosts[id.to - 1].address, sizeof test.hosts[0].address);
    snapshot_sender_send(h->sender, &request);
}

void stream_send_index(uint32_t host, uint64_t to, uint64_t index, bool produced)
{
    send_image(host, (struct stream_id){1, host + 1, to, index}, produced);
}

void stream_send_shard(uint32_t host, uint64_t to, uint64_t shard_id)
{
    send_image(host, (struct stream_id){shard_id, host + 1, to, STREAM_INDEX}, false);
}

void stream_send(uint32_t host, uint64_t to, bool produced)
{
    stream_send_index(host, to, STREAM_INDEX, produced);
}

static uint8_t head_bytes[2048];

struct nh_chunk stream_chunk(uint64_t chunk_id)
{
    struct nh_snapshot record = record_of(STREAM_INDEX);
    struct nh_message install = {
        .type = NH_MSG_INSTALL_SNAPSHOT, .shard_id = 1, .to = 2, .from = 1, .term = STREAM_TERM + 1, .snapshot = &record};
    struct nh_message_batch batch = {.deployment_id = 1,
                                     .source_address = test.hosts[0].address,
                                     .n_messages = 1,
                                     .messages = &install};
    size_t at = chunk_id ? (chunk_id - 1) * STREAM_CHUNK_BYTES : 0, left = test.image_bytes - at;
    struct nh_chunk c = {.shard_id = 1,
                         .replica_id = 2,
                         .from = 1,
                         .chunk_id = chunk_id,
                         .chunk_count = stream_chunks() + 1,
                         .index = STREAM_INDEX,
                         .term = STREAM_TERM,
                         .file_size_bytes = test.image_bytes,
                         .deployment_id = 1,
                         .data = test.image + at,
                         .size_bytes = left < STREAM_CHUNK_BYTES ? left : STREAM_CHUNK_BYTES};

    record.file_size_bytes = test.image_bytes;
    if (chunk_id == 0) {
        c.data = head_bytes;
        c.size_bytes = batch_encode(&batch, head_bytes, sizeof head_bytes);
        cr_assert_leq(c.size_bytes, sizeof head_bytes);
    }
    return c;
}

bool stream_give(const struct nh_chunk *chunk)
{
    return snapshot_receiver_chunk(test.hosts[1].receiver, chunk);
}

/* ---- checks ---- */

struct names {
    uint32_t n;
    char last[64];
};

static int each_name(void *ctx, const char *name)
{
    struct names *names = ctx;

    names->n++;
    snprintf(names->last, sizeof names->last, "%s", name);
    return 0;
}

static struct names names_at(struct stream_host *h)
{
    struct files *files = memory_files_base(h->disk);
    struct names names = {0};

    cr_assert_eq(files->ops->list(files, h->dir.path, each_name, &names, NULL), NH_OK);
    return names;
}

void stream_check_arrived(uint32_t host)
{
    struct stream_host *h = &test.hosts[host];
    struct names names = names_at(h);
    struct file *f;
    uint64_t size;
    uint8_t *bytes;

    cr_assert(h->has_image, "nothing was handed over: %s", test.hosts[0].reason);
    cr_assert_eq(names.n, 1, "%u names, one is %s", names.n, names.last);
    cr_assert_eq(h->received.snapshot->file_size_bytes, test.image_bytes);
    cr_assert_eq(h->received.term, STREAM_TERM + 1);
    cr_assert_eq(snapshot_dir_open(&h->dir, STREAM_INDEX, &f, &size, NULL), NH_OK);
    cr_assert_eq(size, test.image_bytes);
    bytes = xmalloc(size);
    for (uint64_t at = 0; at < size;) {
        int64_t n = h->dir.files->ops->read_at(f, at, bytes + at, size - at, NULL);

        cr_assert_gt(n, 0);
        at += (uint64_t)n;
    }
    cr_assert_eq(memcmp(bytes, test.image, size), 0);
    h->dir.files->ops->close(f, NULL);
    free(bytes);
}

void stream_check_nothing(uint32_t host)
{
    struct names names = names_at(&test.hosts[host]);

    cr_assert_eq(names.n, 0, "%s is left", names.last);
    cr_assert_eq(test.hosts[host].n_received, 0);
}
