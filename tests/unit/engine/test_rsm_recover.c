/* Taking over an image: what a machine lacks, and that nobody is answered from anything between two states. */
#include "engine/rsm/rsm.h"

#include <criterion/criterion.h>
#include <dlfcn.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>

#include "raftio/support/memory.h"
#include "tests/sim/memory_files.h"
#include "tests/unit/engine/image_fixture.h"

/* A machine that counts its entries, and puts the count into an image. */
struct nh_machine {
    uint64_t n;
};

static int recover_result;
static uint64_t opened_at; /* on-disk: what it holds */
static void (*in_recover)(void), (*in_recover_files)(void);

static int open_machine(const struct nh_machine_args *args, struct nh_machine **ret, uint64_t *ret_applied, struct nh_error *err)
{
    (void)args, (void)err;
    *ret = xcalloc(1, sizeof **ret);
    *ret_applied = opened_at;
    return NH_OK;
}

static int update(struct nh_machine *m, struct nh_entry *entries, size_t n, struct nh_error *err)
{
    (void)entries, (void)err;
    m->n += n;
    return NH_OK;
}

static int lookup(struct nh_machine *m, const void *query, size_t size_bytes, struct nh_writer *out, uint64_t *ret_value,
                  struct nh_error *err)
{
    (void)query, (void)size_bytes, (void)out, (void)err;
    *ret_value = m->n;
    return NH_OK;
}

static uint64_t hash(struct nh_machine *m)
{
    return m->n;
}

static void close_machine(struct nh_machine *m)
{
    free(m);
}

static int save(struct nh_machine *m, void *ctx, struct nh_writer *out, const volatile bool *stop, struct nh_error *err)
{
    (void)ctx, (void)stop, (void)err;
    return out->write(out->ctx, &m->n, sizeof m->n);
}

/* Clears its state before it fails. */
static int recover(struct nh_machine *m, struct nh_reader *in, const volatile bool *stop, struct nh_error *err)
{
    (void)stop;
    m->n = 0;
    if (in_recover)
        in_recover();
    if (recover_result < 0)
        return nh_error_set(err, recover_result, "out of beans");
    return in->read(in->ctx, &m->n, sizeof m->n) == sizeof m->n ? NH_OK : NH_ECORRUPT;
}

static int save_files(struct nh_machine *m, void *ctx, struct nh_file_sink *files, struct nh_error *err)
{
    (void)m, (void)ctx, (void)err;
    return files->add(files->ctx, 1, "beans", NULL, 0);
}

static int recover_files(struct nh_machine *m, const struct nh_snapshot_file *files, size_t n, struct nh_error *err)
{
    (void)m, (void)files, (void)err;
    cr_assert_eq(n, 1);
    if (in_recover_files)
        in_recover_files();
    return NH_OK;
}

static struct nh_machine_ops ops;
static struct memory_files *disk;
static struct rsm *s;
static struct nh_error err;
static struct memory_sink image;
static struct rsm_moment moment;
static const volatile bool stop;

static void on_results(void *ctx, const struct rsm_result *r, size_t n)
{
    (void)ctx, (void)r, (void)n;
}

static void apply(uint64_t first, uint64_t last)
{
    struct rsm_sink sink = {.batch = rsm_batch_new(), .on_results = on_results};
    struct block_builder b = {0};
    struct nh_run run;

    for (uint64_t i = first; i <= last; i++)
        cr_assert_eq(block_builder_add(&b, &(struct block_record){.payload = "x", .payload_bytes = 1}), 0);
    run = (struct nh_run){block_seal(&b, 1, first), 0, (uint32_t)(last - first + 1)};
    cr_assert_eq(rsm_apply(s, &run, 1, &sink, &err), 0, "%s", err.text);
    nh_block_unref(run.block);
    rsm_batch_free(sink.batch);
}

static void open_rsm(void)
{
    struct rsm_config c = {.shard_id = 7, .replica_id = 1, .machine = &ops, .last_index = 10, .files = memory_files_base(disk)};

    s = rsm_new(&c);
    cr_assert_eq(rsm_open(s, &err), 0);
}

/* An image of 5 entries; then a new instance that has applied 2. */
static void begin(void)
{
    struct image_sink sink = memory_sink(&image);
    uint64_t size;

    open_rsm();
    apply(1, 5);
    cr_assert_eq(rsm_capture(s, true, &moment, &err), 0, "%s", err.text);
    cr_assert_eq(rsm_save(s, &moment, IMAGE_STORED, &sink, &stop, &size, &err), 0, "%s", err.text);
    rsm_free(s);
    open_rsm();
    apply(1, 2);
}

static void setup(void)
{
    struct files *fs;
    struct file *f;

    ops = (struct nh_machine_ops){.struct_size = sizeof ops,
                                  .name = "beans",
                                  .open = open_machine,
                                  .update = update,
                                  .lookup = lookup,
                                  .close = close_machine,
                                  .hash = hash,
                                  .save_snapshot = save,
                                  .recover = recover};
    disk = memory_files_new();
    fs = memory_files_base(disk);
    cr_assert_eq(fs->ops->create(fs, "beans", &f, &err), 0);
    cr_assert_eq(fs->ops->write(f, "b", 1, &err), 0);
    cr_assert_eq(fs->ops->close(f, &err), 0);
}

static void teardown(void)
{
    rsm_free(s);
    nh_snapshot_deinit(&moment.record);
    free(moment.sessions);
    bytes_free(&image.out);
    memory_files_free(disk);
}

TestSuite(rsm_recover, .init = setup, .fini = teardown, .timeout = 30);

static void rewind_image(void *ctx, struct image_source *ret)
{
    *ret = memory_source(ctx, &image.out);
}

static int take_over(void)
{
    struct memory_source source;
    struct rsm_image from = {.rewind = rewind_image, .ctx = &source, .scratch_dir = "scratch"};

    return rsm_recover(s, &moment.record, &from, &stop, &err);
}

static int ask(uint64_t *ret)
{
    struct nh_writer out = {0};

    return rsm_lookup(s, "?", 1, &out, ret, &err);
}

Test(rsm_recover, an_image_is_taken_over)
{
    uint64_t n = 0, applied = 0;

    ops.save_files = save_files;
    ops.recover_files = recover_files;
    begin();
    cr_assert_eq(take_over(), 0, "%s", err.text);
    cr_assert_eq(ask(&n), 0);
    cr_assert_eq(n, 5);
    cr_assert_eq(rsm_get_hash(s, &n, &applied, &err), 0);
    cr_assert(n == 5 && applied == 5);
}

static int prepare(struct nh_machine *m, void **ret_ctx, struct nh_error *e)
{
    (void)m, (void)e;
    *ret_ctx = NULL;
    return NH_OK;
}

static void release(struct nh_machine *m, void *ctx)
{
    (void)m, (void)ctx;
}

/* It would hold later entries than its record and its sessions say. */
Test(rsm_recover, no_image_is_made_of_a_machine_that_is_ahead_of_what_is_applied)
{
    ops.kind = NH_MACHINE_ON_DISK;
    ops.prepare_snapshot = prepare;
    ops.release_snapshot = release;
    opened_at = 5;
    open_rsm();
    apply(1, 4);
    cr_assert_eq(rsm_capture(s, true, &moment, &err), NH_ENOTREADY);
    cr_assert(strstr(err.text, "ahead of what is applied"), "%s", err.text);
    apply(5, 5);
    cr_assert_eq(rsm_capture(s, true, &moment, &err), 0, "%s", err.text);
    rsm_release(s, &moment);
}

/* It crashed the host: a rebuilt machine of the same name that has no snapshots any more. */
Test(rsm_recover, a_machine_without_recover_refuses_it)
{
    uint64_t n;

    begin();
    ops.save_snapshot = NULL;
    ops.recover = NULL;
    cr_assert_eq(take_over(), NH_EUNSUPPORTED);
    cr_assert(strstr(err.text, "machine beans has no recover"), "%s", err.text);
    cr_assert_eq(ask(&n), NH_EQUARANTINED);
}

Test(rsm_recover, a_machine_without_recover_files_refuses_extra_files)
{
    ops.save_files = save_files;
    ops.recover_files = recover_files;
    begin();
    ops.save_files = NULL;
    ops.recover_files = NULL;
    cr_assert_eq(take_over(), NH_EUNSUPPORTED);
    cr_assert(strstr(err.text, "has no recover_files"), "%s", err.text);
}

/* ---- others ask meanwhile ---- */

static struct asker {
    int code, code_of_hash;
    uint64_t n_asked;
} asker;

static void *ask_meanwhile(void *arg)
{
    struct nh_writer out = {0};
    uint64_t n, applied;

    (void)arg;
    asker.code = rsm_lookup(s, "?", 1, &out, &n, NULL);
    asker.code_of_hash = rsm_get_hash(s, &n, &applied, NULL);
    asker.n_asked++;
    return NULL;
}

/* From a thread of its own: who is inside the machine is refused for that. */
static void let_ask(void)
{
    pthread_t thread;

    cr_assert_eq(pthread_create(&thread, NULL, ask_meanwhile, NULL), 0);
    pthread_join(thread, NULL);
    cr_assert_eq(asker.code, NH_ENOTREADY, "%d in the middle", asker.code);
    cr_assert_eq(asker.code_of_hash, NH_ENOTREADY, "%d in the middle", asker.code_of_hash);
}

Test(rsm_recover, nobody_is_answered_from_a_half_that_failed)
{
    begin();
    recover_result = NH_ECLOSED;
    in_recover = let_ask;
    cr_assert_eq(take_over(), NH_ECLOSED);
    cr_assert_eq(asker.n_asked, 1);
    ask_meanwhile(NULL);
    cr_assert(asker.code == NH_EQUARANTINED && asker.code_of_hash == NH_EQUARANTINED);
}

/* ---- one who came before, and has not got the lock ---- */

static void (*before_rdlock)(void); /* once */

int pthread_rwlock_rdlock(pthread_rwlock_t *lock)
{
    static int (*real)(pthread_rwlock_t *);
    void (*before)(void) = before_rdlock;

    before_rdlock = NULL;
    if (before)
        before();
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "pthread_rwlock_rdlock");
    return real(lock);
}

static sem_t is_recovering, has_answer;

static void await_answer(void)
{
    sem_post(&is_recovering);
    sem_wait(&has_answer);
}

static void *recover_beside(void *arg)
{
    (void)arg;
    cr_assert_eq(take_over(), 0, "%s", err.text);
    return NULL;
}

static pthread_t recovery;

static void begin_recovery(void)
{
    cr_assert_eq(pthread_create(&recovery, NULL, recover_beside, NULL), 0);
    sem_wait(&is_recovering);
}

/* Else this hangs: the recovery waits for who waits for it. */
Test(rsm_recover, who_is_about_to_ask_does_not_wait_either, .timeout = 60)
{
    begin();
    sem_init(&is_recovering, 0, 0);
    sem_init(&has_answer, 0, 0);
    in_recover = await_answer;
    before_rdlock = begin_recovery;
    cr_assert_eq(rsm_lookup(s, "?", 1, &(struct nh_writer){0}, &asker.n_asked, NULL), NH_ENOTREADY);
    sem_post(&has_answer);
    pthread_join(recovery, NULL);
    cr_assert_eq(rsm_lookup(s, "?", 1, &(struct nh_writer){0}, &asker.n_asked, NULL), 0);
}

static void *ask_for_members(void *arg)
{
    struct nh_membership m = {0};

    cr_assert_eq(rsm_get_membership(s, &m, arg), 0);
    nh_membership_deinit(&m);
    return NULL;
}

static void await_members(void)
{
    pthread_t thread;

    cr_assert_eq(pthread_create(&thread, NULL, ask_for_members, NULL), 0);
    pthread_join(thread, NULL);
}

/* A recovery may take minutes, and a server asks for members on the thread that serves all. */
Test(rsm_recover, who_asks_for_members_does_not_wait)
{
    begin();
    in_recover = await_members;
    cr_assert_eq(take_over(), 0, "%s", err.text);
}

Test(rsm_recover, nobody_is_answered_while_files_are_recovered)
{
    ops.save_files = save_files;
    ops.recover_files = recover_files;
    begin();
    in_recover_files = let_ask;
    cr_assert_eq(take_over(), 0, "%s", err.text);
    cr_assert_eq(asker.n_asked, 1);
}

static int64_t (*read_on)(void *ctx, void *data, size_t cap_bytes, struct nh_error *err);
static bool has_recovered, has_asked;

static void note_recovered(void)
{
    has_recovered = true;
}

/* Called for what lies behind the machine's data too. */
static int64_t read_and_ask(void *ctx, void *data, size_t cap_bytes, struct nh_error *e)
{
    if (has_recovered && !has_asked) {
        has_asked = true;
        let_ask();
    }
    return read_on(ctx, data, cap_bytes, e);
}

static void rewind_and_ask(void *ctx, struct image_source *ret)
{
    struct memory_source *source = ctx;

    *ret = memory_source(source, &image.out);
    source->step = 1;
    read_on = ret->read;
    ret->read = read_and_ask;
}

Test(rsm_recover, a_hash_belongs_to_its_index)
{
    struct memory_source source;
    struct rsm_image from = {.rewind = rewind_and_ask, .ctx = &source, .scratch_dir = "scratch"};
    uint64_t n = 0, applied = 0;

    begin();
    in_recover = note_recovered;
    cr_assert_eq(rsm_recover(s, &moment.record, &from, &stop, &err), 0, "%s", err.text);
    cr_assert_eq(asker.n_asked, 1);
    cr_assert_eq(rsm_get_hash(s, &n, &applied, &err), 0);
    cr_assert(n == 5 && applied == 5);
}
