#include "cmd/machines/kv_db.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>

#define RECORD_BYTES 48u /* and the name */

static void store_be(char *p, uint64_t v)
{
    for (int i = 0; i < 8; i++)
        p[i] = (char)(uint8_t)(v >> (56 - 8 * i));
}

static uint64_t load_be(const char *p)
{
    uint64_t v = 0;

    for (int i = 0; i < 8; i++)
        v = v << 8 | (uint8_t)p[i];
    return v;
}

static void key_init(struct kv_db_key *k, struct kv_db_replica r, char kind, size_t size)
{
    k->size = size;
    k->data = size <= sizeof k->small ? k->small : kv_must(malloc(size));
    store_be(k->data, r.shard_id);
    store_be(k->data + 8, r.replica_id);
    k->data[KV_DB_PREFIX_BYTES] = kind;
}

void kv_db_record_key(struct kv_db_key *k, struct kv_db_replica r)
{
    key_init(k, r, 'A', KV_DB_PREFIX_BYTES + 1);
}

void kv_db_data_key(struct kv_db_key *k, struct kv_db_replica r, uint64_t generation, struct kv_slice key)
{
    key_init(k, r, 'D', KV_DB_DATA_KEY_BYTES + (size_t)key.size);
    store_be(k->data + KV_DB_PREFIX_BYTES + 1, generation);
    if (key.size)
        memcpy(k->data + KV_DB_DATA_KEY_BYTES, key.data, key.size);
}

void kv_db_key_deinit(struct kv_db_key *k)
{
    if (k->data != k->small)
        free(k->data);
}

/* ---- the record ---- */

static void count_key(struct kv_db_key *k, struct kv_db_replica r)
{
    key_init(k, r, 'B', KV_DB_PREFIX_BYTES + 1);
}

static void put_record(rocksdb_writebatch_t *batch, struct kv_db_replica r, const struct kv_db_record *record)
{
    uint8_t bytes[RECORD_BYTES + KV_DB_NAME_BYTES] = {KV_DB_RECORD_VERSION};
    size_t name_size = strlen(record->name);
    struct kv_db_key key;

    kv_store_u32(bytes + 4, (uint32_t)name_size);
    kv_store_u64(bytes + 8, record->generation);
    kv_store_u64(bytes + 16, record->applied);
    kv_store_u64(bytes + 24, record->n);
    kv_store_u64(bytes + 32, record->identity);
    kv_store_u64(bytes + 40, record->batches);
    memcpy(bytes + RECORD_BYTES, record->name, name_size);
    kv_db_record_key(&key, r);
    rocksdb_writebatch_put(batch, key.data, key.size, (const char *)bytes, RECORD_BYTES + name_size);
    kv_db_key_deinit(&key);
}

/* `put`: or merge, which adds. */
static void put_count(rocksdb_writebatch_t *batch, struct kv_db_replica r, uint64_t count,
                      void (*put)(rocksdb_writebatch_t *, const char *, size_t, const char *, size_t))
{
    uint8_t bytes[8];
    struct kv_db_key key;

    kv_store_u64(bytes, count);
    count_key(&key, r);
    put(batch, key.data, key.size, (const char *)bytes, sizeof bytes);
    kv_db_key_deinit(&key);
}

void kv_db_put_record(rocksdb_writebatch_t *batch, struct kv_db_replica r, const struct kv_db_record *record)
{
    put_record(batch, r, record);
    put_count(batch, r, 1, rocksdb_writebatch_merge);
}

void kv_db_put_first_record(rocksdb_writebatch_t *batch, struct kv_db_replica r, const struct kv_db_record *record)
{
    put_record(batch, r, record);
    put_count(batch, r, record->batches, rocksdb_writebatch_put);
}

static int decode_record(const uint8_t *p, size_t size, struct kv_db_record *ret, struct nh_error *err)
{
    uint32_t name_size;

    if (size > 0 && p[0] != KV_DB_RECORD_VERSION)
        return kv_error(err, NH_EUNSUPPORTED, "a replica's record has version %u, this machine reads version %u", p[0],
                        KV_DB_RECORD_VERSION);
    if (size < RECORD_BYTES)
        return kv_error(err, NH_ECORRUPT, "a replica's record has %zu bytes", size);
    name_size = kv_load_u32(p + 4);
    if (name_size != size - RECORD_BYTES || name_size >= KV_DB_NAME_BYTES)
        return kv_error(err, NH_ECORRUPT, "a replica's record has %zu bytes", size);
    *ret = (struct kv_db_record){.generation = kv_load_u64(p + 8),
                                 .applied = kv_load_u64(p + 16),
                                 .n = kv_load_u64(p + 24),
                                 .identity = kv_load_u64(p + 32),
                                 .batches = kv_load_u64(p + 40)};
    memcpy(ret->name, p + RECORD_BYTES, name_size);
    return 1;
}

/* 1: *ret is to be destroyed; 0: there is none; or a negative code. Takes the key. */
static int get(rocksdb_t *db, const rocksdb_readoptions_t *options, struct kv_db_key *key, rocksdb_pinnableslice_t **ret,
               struct nh_error *err)
{
    char *message = NULL;

    *ret = rocksdb_get_pinned(db, options, key->data, key->size, &message);
    kv_db_key_deinit(key);
    return message ? kv_db_error(message, "read a replica's record", err) : *ret != NULL;
}

int kv_db_get_record(rocksdb_t *db, const rocksdb_readoptions_t *options, struct kv_db_replica r, struct kv_db_record *ret,
                     struct nh_error *err)
{
    rocksdb_pinnableslice_t *found;
    struct kv_db_key key;
    const char *bytes;
    size_t size;
    int result;

    kv_db_record_key(&key, r);
    result = get(db, options, &key, &found, err);
    if (result <= 0)
        return result;
    bytes = rocksdb_pinnableslice_value(found, &size);
    result = decode_record((const uint8_t *)bytes, size, ret, err);
    rocksdb_pinnableslice_destroy(found);
    return result;
}

int kv_db_is_whole(rocksdb_t *db, const rocksdb_readoptions_t *options, struct kv_db_replica r, const struct kv_db_record *record,
                   struct nh_error *err)
{
    rocksdb_pinnableslice_t *found;
    struct kv_db_key key;
    const char *bytes;
    size_t size;
    int result;

    count_key(&key, r);
    result = get(db, options, &key, &found, err);
    if (result <= 0)
        return result;
    bytes = rocksdb_pinnableslice_value(found, &size);
    result = size == 8 && kv_load_u64((const uint8_t *)bytes) == record->batches;
    rocksdb_pinnableslice_destroy(found);
    return result;
}

/* ---- what nobody needs any more ---- */

void kv_db_delete_replica(rocksdb_writebatch_t *batch, struct kv_db_replica r)
{
    struct kv_db_key begin, end;

    key_init(&begin, r, 0, KV_DB_PREFIX_BYTES + 1);
    key_init(&end, r, (char)0xff, KV_DB_PREFIX_BYTES + 1);
    rocksdb_writebatch_delete_range(batch, begin.data, begin.size, end.data, end.size);
    kv_db_key_deinit(&begin);
    kv_db_key_deinit(&end);
}

void kv_db_delete_generations(rocksdb_writebatch_t *batch, struct kv_db_replica r, uint64_t from, uint64_t to)
{
    struct kv_slice none = {(const uint8_t *)"", 0};
    struct kv_db_key a, b;

    kv_db_data_key(&a, r, from, none);
    kv_db_data_key(&b, r, to, none);
    rocksdb_writebatch_delete_range(batch, a.data, a.size, b.data, b.size);
    kv_db_key_deinit(&a);
    kv_db_key_deinit(&b);
}

/* The generation of the first data at or after generation `from`; false: there is none. */
static bool find_generation(rocksdb_iterator_t *it, struct kv_db_replica r, uint64_t from, uint64_t *ret)
{
    struct kv_db_key key;
    const char *found;
    size_t size;
    bool ours;

    kv_db_data_key(&key, r, from, (struct kv_slice){(const uint8_t *)"", 0});
    rocksdb_iter_seek(it, key.data, key.size);
    found = rocksdb_iter_valid(it) ? rocksdb_iter_key(it, &size) : NULL;
    ours = found && size >= KV_DB_DATA_KEY_BYTES && memcmp(found, key.data, KV_DB_PREFIX_BYTES + 1) == 0;
    if (ours)
        *ret = load_be(found + KV_DB_PREFIX_BYTES + 1);
    kv_db_key_deinit(&key);
    return ours;
}

static int finish(struct kv_db *db, rocksdb_iterator_t *it, rocksdb_writebatch_t *batch, struct nh_error *err)
{
    char *message = NULL;
    int r = NH_OK;

    rocksdb_iter_get_error(it, &message);
    rocksdb_iter_destroy(it);
    if (message)
        r = kv_db_error(message, "look for leftovers", err);
    else if (rocksdb_writebatch_count(batch) > 0)
        r = kv_db_write(db, batch, false, err);
    rocksdb_writebatch_destroy(batch);
    return r;
}

int kv_db_clean(struct kv_db *db, struct kv_db_replica r, uint64_t keep, struct nh_error *err)
{
    rocksdb_iterator_t *it = rocksdb_create_iterator(kv_db_handle(db), kv_db_read_options(db));
    rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    uint64_t found;

    if (find_generation(it, r, 0, &found) && found < keep)
        kv_db_delete_generations(batch, r, 0, keep);
    if (find_generation(it, r, keep + 1, &found))
        kv_db_delete_generations(batch, r, keep + 1, UINT64_MAX);
    return finish(db, it, batch, err);
}

static bool has_directory(const char *parent, const char *name)
{
    char path[PATH_MAX + KV_DB_NAME_BYTES];
    struct stat st;

    snprintf(path, sizeof path, "%s/%s", parent, name);
    return stat(path, &st) == 0 || errno != ENOENT; /* in doubt it is there */
}

/* Goes from replica to replica: the first key of each is its record. */
int kv_db_sweep(struct kv_db *db, const char *parent, struct nh_error *err)
{
    rocksdb_iterator_t *it = rocksdb_create_iterator(kv_db_handle(db), kv_db_read_options(db));
    rocksdb_writebatch_t *batch = rocksdb_writebatch_create();

    rocksdb_iter_seek_to_first(it);
    while (rocksdb_iter_valid(it)) {
        struct kv_db_record record;
        struct kv_db_replica r;
        struct kv_db_key end;
        size_t key_size, size;
        const char *key = rocksdb_iter_key(it, &key_size), *value = rocksdb_iter_value(it, &size);

        if (key_size <= KV_DB_PREFIX_BYTES)
            break; /* not ours */
        r = (struct kv_db_replica){load_be(key), load_be(key + 8)};
        if (key[KV_DB_PREFIX_BYTES] == 'A' && decode_record((const uint8_t *)value, size, &record, NULL) == 1 &&
            !has_directory(parent, record.name))
            kv_db_delete_replica(batch, r);
        key_init(&end, r, (char)0xff, KV_DB_PREFIX_BYTES + 1);
        rocksdb_iter_seek(it, end.data, end.size);
        kv_db_key_deinit(&end);
    }
    return finish(db, it, batch, err);
}
