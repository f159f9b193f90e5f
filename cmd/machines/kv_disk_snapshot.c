/* cmd/machines/kv_disk_snapshot.c - moments of a replica's data, images of them, and the way back.
 *
 * recover leaves, whenever it is interrupted, the old state or the new one: the image goes into the next generation, which nobody
 * reads; one synced write of the record makes it the present one; then the old one is deleted. What an interruption leaves over
 * is deleted when the replica is opened.
 */
#include "cmd/machines/kv_disk.h"

#include <inttypes.h>

#include "cmd/machines/kv_image.h"

#define BATCH_BYTES (1024u * 1024u)

/* ---- moments ---- */

int kv_disk_moment_init(struct kv_disk_moment *at, struct nh_machine *m, struct nh_error *err)
{
    rocksdb_t *db = kv_db_handle(m->db);
    int found;

    *at = (struct kv_disk_moment){.snapshot = rocksdb_create_snapshot(db), .read = rocksdb_readoptions_create()};
    rocksdb_readoptions_set_snapshot(at->read, at->snapshot);
    found = kv_db_get_record(db, at->read, m->id, &at->record, err);
    if (found > 0)
        return NH_OK;
    kv_disk_moment_deinit(at, m);
    return found < 0 ? found : kv_error(err, NH_ECORRUPT, "the replica's record has vanished from the database");
}

void kv_disk_moment_deinit(struct kv_disk_moment *at, struct nh_machine *m)
{
    rocksdb_readoptions_destroy(at->read);
    rocksdb_release_snapshot(kv_db_handle(m->db), at->snapshot);
}

static int each_pair(rocksdb_iterator_t *it, int (*each)(void *ctx, struct kv_slice key, struct kv_slice value), void *ctx)
{
    int r = 0;

    for (; rocksdb_iter_valid(it) && r == 0; rocksdb_iter_next(it)) {
        size_t key_size, size;
        const uint8_t *key = (const uint8_t *)rocksdb_iter_key(it, &key_size);
        const uint8_t *value = (const uint8_t *)rocksdb_iter_value(it, &size);

        r = each(ctx, (struct kv_slice){key + KV_DB_DATA_KEY_BYTES, (uint32_t)(key_size - KV_DB_DATA_KEY_BYTES)},
                 (struct kv_slice){value, (uint32_t)size});
    }
    return r;
}

int kv_disk_moment_each(const struct kv_disk_moment *at, struct nh_machine *m,
                        int (*each)(void *ctx, struct kv_slice key, struct kv_slice value), void *ctx, struct nh_error *err)
{
    struct kv_slice none = {(const uint8_t *)"", 0};
    rocksdb_readoptions_t *read = rocksdb_readoptions_create();
    rocksdb_iterator_t *it;
    struct kv_db_key begin, end;
    char *message = NULL;
    int r;

    kv_db_data_key(&begin, m->id, at->record.generation, none);
    kv_db_data_key(&end, m->id, at->record.generation + 1, none);
    rocksdb_readoptions_set_snapshot(read, at->snapshot);
    rocksdb_readoptions_set_fill_cache(read, 0);
    rocksdb_readoptions_set_iterate_upper_bound(read, end.data, end.size);
    it = rocksdb_create_iterator(kv_db_handle(m->db), read);
    rocksdb_iter_seek(it, begin.data, begin.size);
    r = each_pair(it, each, ctx);
    rocksdb_iter_get_error(it, &message);
    rocksdb_iter_destroy(it);
    rocksdb_readoptions_destroy(read);
    kv_db_key_deinit(&begin);
    kv_db_key_deinit(&end);
    return message ? kv_db_error(message, "read all keys", err) : r;
}

/* ---- hash ---- */

static int add_hash(void *ctx, struct kv_slice key, struct kv_slice value)
{
    uint64_t *sum = ctx;

    *sum += kv_pair_hash(key, value);
    return 0;
}

uint64_t kv_disk_hash(struct nh_machine *m)
{
    struct kv_disk_moment at;
    uint64_t sum;

    if (kv_disk_moment_init(&at, m, NULL) < 0)
        return 0;
    sum = at.record.n;
    if (kv_disk_moment_each(&at, m, add_hash, &sum, NULL) < 0)
        sum = 0;
    kv_disk_moment_deinit(&at, m);
    return sum;
}

/* ---- saving ---- */

int kv_disk_prepare(struct nh_machine *m, void **ret_ctx, struct nh_error *err)
{
    struct kv_disk_moment *at = kv_must(malloc(sizeof *at));
    int r = kv_disk_moment_init(at, m, err);

    if (r < 0)
        free(at);
    else
        *ret_ctx = at;
    return r;
}

void kv_disk_release(struct nh_machine *m, void *ctx)
{
    kv_disk_moment_deinit(ctx, m);
    free(ctx);
}

struct saver {
    struct kv_image_writer image;
    uint64_t n;
};

static int save_pair(void *ctx, struct kv_slice key, struct kv_slice value)
{
    struct saver *s = ctx;

    s->n++;
    return kv_image_put(&s->image, key, value);
}

int kv_disk_save(struct nh_machine *m, void *ctx, struct nh_writer *out, const volatile bool *stop, struct nh_error *err)
{
    const struct kv_disk_moment *at = ctx;
    struct saver s = {.n = 0};
    int r;

    kv_image_begin(&s.image, out, stop, at->record.applied, at->record.n);
    r = kv_disk_moment_each(at, m, save_pair, &s, err);
    if (r == NH_OK && s.n != at->record.n)
        r = kv_error(err, NH_ECORRUPT, "the database has %" PRIu64 " keys of this replica and counted %" PRIu64, s.n,
                     at->record.n);
    if (r < 0 && !s.image.failed) { /* not the fault of who takes the image */
        kv_image_end(&s.image, NULL);
        return r;
    }
    return kv_image_end(&s.image, err);
}

/* ---- recovering ---- */

static int write_out(struct nh_machine *m, rocksdb_writebatch_t *batch, struct nh_error *err)
{
    int r = kv_db_write(m->db, batch, false, err);

    rocksdb_writebatch_clear(batch);
    return r;
}

/* Puts all pairs of the image into generation `to`. */
static int read_pairs(struct nh_machine *m, struct kv_image_reader *in, uint64_t to, struct nh_error *err)
{
    rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    struct kv_slice key, value;
    size_t bytes = 0;
    int r;

    while ((r = kv_image_next(in, &key, &value, err)) > 0) {
        struct kv_db_key k;

        kv_db_data_key(&k, m->id, to, key);
        rocksdb_writebatch_put(batch, k.data, k.size, (const char *)value.data, value.size);
        bytes += k.size + value.size;
        kv_db_key_deinit(&k);
        if (bytes >= BATCH_BYTES) {
            r = write_out(m, batch, err);
            bytes = 0;
        }
        if (r < 0)
            break;
    }
    if (r == NH_OK)
        r = write_out(m, batch, err);
    rocksdb_writebatch_destroy(batch);
    return r;
}

static int switch_to(struct nh_machine *m, uint64_t generation, const struct kv_image_reader *in, struct nh_error *err)
{
    rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    struct kv_db_record record;
    int r;

    kv_disk_record(m, &record);
    record.generation = generation;
    record.applied = in->applied;
    record.n = in->n;
    kv_db_put_record(batch, m->id, &record);
    r = kv_db_write(m->db, batch, true, err);
    rocksdb_writebatch_destroy(batch);
    if (r < 0)
        return r;
    m->generation = generation;
    m->applied = in->applied;
    m->batches = record.batches;
    m->n = in->n;
    return NH_OK;
}

int kv_disk_recover(struct nh_machine *m, struct nh_reader *in, const volatile bool *stop, struct nh_error *err)
{
    uint64_t next = m->generation + 1;
    struct kv_image_reader image;
    struct nh_error ignored;
    int r = kv_image_open(&image, in, stop, err);

    if (r == NH_OK)
        r = read_pairs(m, &image, next, err);
    if (r == NH_OK)
        r = switch_to(m, next, &image, err);
    kv_image_close(&image);
    /* The old data, or the beginning of the new: what fails here is found when the replica is opened. */
    kv_db_clean(m->db, m->id, m->generation, &ignored);
    return r;
}
