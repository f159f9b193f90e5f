/* Everything that is not a block: bootstrap, state, start and snapshot records, uses and horizon; removal and import. */
#include "logdb/rocksdb/store.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>

#include "raftio/support/memory.h"

static void put(rocksdb_writebatch_t *batch, uint64_t shard_id, uint64_t replica_id, enum layout_kind kind, const uint8_t *value,
                size_t size_bytes)
{
    struct layout_key key;

    layout_key(&key, shard_id, replica_id, kind);
    rocksdb_writebatch_put(batch, key.bytes, key.size_bytes, (const char *)value, size_bytes);
}

static void put_numbers(struct nh_logdb *db, rocksdb_writebatch_t *batch, const struct layout_key *key, const uint64_t *numbers,
                        size_t n)
{
    uint8_t value[LAYOUT_ENVELOPE_BYTES + 2 * sizeof *numbers];

    assert(n <= 2);
    memcpy(value + LAYOUT_ENVELOPE_BYTES, numbers, n * sizeof *numbers);
    layout_envelope_seal(value, n * sizeof *numbers, db->services->crc32c);
    rocksdb_writebatch_put(batch, key->bytes, key->size_bytes, (const char *)value, LAYOUT_ENVELOPE_BYTES + n * sizeof *numbers);
}

void record_put_bootstrap(struct nh_logdb *db, rocksdb_writebatch_t *batch, uint64_t shard_id, uint64_t replica_id,
                          const struct nh_bootstrap *bootstrap)
{
    size_t size = db->services->encode_bootstrap(bootstrap, NULL, 0);
    uint8_t *value = xmalloc(LAYOUT_ENVELOPE_BYTES + size);

    db->services->encode_bootstrap(bootstrap, value + LAYOUT_ENVELOPE_BYTES, size);
    layout_envelope_seal(value, size, db->services->crc32c);
    put(batch, shard_id, replica_id, LAYOUT_BOOTSTRAP, value, LAYOUT_ENVELOPE_BYTES + size);
    free(value);
}

void record_put_snapshot(struct nh_logdb *db, rocksdb_writebatch_t *batch, uint64_t shard_id, uint64_t replica_id,
                         const struct nh_snapshot *snapshot)
{
    size_t size = db->services->encode_snapshot(snapshot, NULL, 0);
    uint8_t *value = xmalloc(LAYOUT_ENVELOPE_BYTES + size);

    db->services->encode_snapshot(snapshot, value + LAYOUT_ENVELOPE_BYTES, size);
    layout_envelope_seal(value, size, db->services->crc32c);
    put(batch, shard_id, replica_id, LAYOUT_SNAPSHOT, value, LAYOUT_ENVELOPE_BYTES + size);
    free(value);
}

void record_put_start(struct nh_logdb *db, rocksdb_writebatch_t *batch, uint64_t shard_id, uint64_t replica_id,
                      uint64_t first_index)
{
    struct layout_key key;

    layout_key(&key, shard_id, replica_id, LAYOUT_START);
    put_numbers(db, batch, &key, &first_index, 1);
}

void record_put_use(struct nh_logdb *db, rocksdb_writebatch_t *batch, uint64_t shard_id, uint64_t replica_id, struct use use)
{
    struct layout_key key;

    layout_use_key(&key, shard_id, replica_id, use.segment_id);
    put_numbers(db, batch, &key, &use.from, 1);
}

void record_delete_use(rocksdb_writebatch_t *batch, uint64_t shard_id, uint64_t replica_id, uint64_t segment_id)
{
    struct layout_key key;

    layout_use_key(&key, shard_id, replica_id, segment_id);
    rocksdb_writebatch_delete(batch, key.bytes, key.size_bytes);
}

void record_put_horizon(struct nh_logdb *db, rocksdb_writebatch_t *batch, uint64_t horizon, uint64_t floor)
{
    const uint64_t numbers[2] = {horizon, floor};
    struct layout_key key;

    layout_key(&key, 0, 0, LAYOUT_HORIZON);
    put_numbers(db, batch, &key, numbers, 2);
}

void record_put_state(struct nh_logdb *db, rocksdb_writebatch_t *batch, uint64_t shard_id, uint64_t replica_id,
                      const struct nh_state *state, uint64_t number)
{
    const struct layout_header h = {.number = number, .state = *state};
    uint8_t value[LAYOUT_HEADER_BYTES];

    layout_header_encode(&h, db->services->crc32c, value);
    put(batch, shard_id, replica_id, LAYOUT_STATE, value, sizeof value);
}

/* Reads an enveloped record. NH_ENOTFOUND without text if there is none; else *ret is to be freed. */
static int get(struct nh_logdb *db, uint64_t shard_id, uint64_t replica_id, enum layout_kind kind, rocksdb_pinnableslice_t **ret,
               const uint8_t **ret_content, size_t *ret_bytes, struct nh_error *err)
{
    rocksdb_pinnableslice_t *slice;
    struct layout_key key;
    char *message = NULL;
    const char *value;
    size_t size;
    int r;

    layout_key(&key, shard_id, replica_id, kind);
    slice = rocksdb_get_pinned(db->db, db->read, key.bytes, key.size_bytes, &message);
    if (message)
        return store_error(message, "read", err);
    if (!slice)
        return NH_ENOTFOUND;
    value = rocksdb_pinnableslice_value(slice, &size);
    r = layout_envelope_check(value, size, db->services->crc32c, err);
    if (r < 0) {
        rocksdb_pinnableslice_destroy(slice);
        return r;
    }
    *ret = slice;
    *ret_content = (const uint8_t *)value + LAYOUT_ENVELOPE_BYTES;
    *ret_bytes = size - LAYOUT_ENVELOPE_BYTES;
    return NH_OK;
}

int record_get_start(struct nh_logdb *db, uint64_t shard_id, uint64_t replica_id, uint64_t *ret_first, struct nh_error *err)
{
    rocksdb_pinnableslice_t *slice = NULL;
    const uint8_t *content = NULL;
    size_t size = 0;
    int r = get(db, shard_id, replica_id, LAYOUT_START, &slice, &content, &size, err);

    *ret_first = 1;
    if (r == NH_ENOTFOUND)
        return NH_OK;
    if (r < 0)
        return nh_error_wrap(err, r, "start of the log");
    if (size == sizeof *ret_first)
        *ret_first = nh_load_u64(content);
    else
        r = nh_error_set(err, NH_ECORRUPT, "start of the log: %zu bytes", size);
    rocksdb_pinnableslice_destroy(slice);
    return r;
}

int store_save_bootstrap(struct nh_logdb *db, uint64_t shard_id, uint64_t replica_id, const struct nh_bootstrap *bootstrap,
                         struct nh_error *err)
{
    rocksdb_writebatch_t *batch;
    struct replica *replica;
    int r = store_check_fence(db, err);

    if (r < 0)
        return r;
    if (!shard_id || !replica_id)
        return nh_error_set(err, NH_EINVAL, "shard or replica id is 0");
    batch = rocksdb_writebatch_create();
    record_put_bootstrap(db, batch, shard_id, replica_id, bootstrap);
    replica = replica_hold(db, shard_id, replica_id); /* the journal and RocksDB get it in one order with a removal */
    r = store_write_batch(db, batch, true, err);
    replica_release(db, replica);
    rocksdb_writebatch_destroy(batch);
    return r;
}

int store_get_bootstrap(struct nh_logdb *db, uint64_t shard_id, uint64_t replica_id, struct nh_bootstrap *ret,
                        struct nh_error *err)
{
    rocksdb_pinnableslice_t *slice = NULL;
    const uint8_t *content = NULL;
    size_t size = 0;
    int r = get(db, shard_id, replica_id, LAYOUT_BOOTSTRAP, &slice, &content, &size, err);

    if (r == NH_ENOTFOUND)
        return nh_error_set(err, r, "shard %" PRIu64 " replica %" PRIu64 " has no bootstrap record", shard_id, replica_id);
    if (r == NH_OK) {
        r = db->services->decode_bootstrap(content, size, ret, err);
        rocksdb_pinnableslice_destroy(slice);
    }
    return r < 0 ? nh_error_wrap(err, r, "bootstrap of shard %" PRIu64 " replica %" PRIu64, shard_id, replica_id) : NH_OK;
}

int store_get_snapshot(struct nh_logdb *db, uint64_t shard_id, uint64_t replica_id, struct nh_snapshot *ret, struct nh_error *err)
{
    rocksdb_pinnableslice_t *slice = NULL;
    const uint8_t *content = NULL;
    size_t size = 0;
    int r = get(db, shard_id, replica_id, LAYOUT_SNAPSHOT, &slice, &content, &size, err);

    if (r == NH_ENOTFOUND) {
        *ret = (struct nh_snapshot){0};
        return NH_OK;
    }
    if (r == NH_OK) {
        r = db->services->decode_snapshot(content, size, ret, err);
        rocksdb_pinnableslice_destroy(slice);
    }
    return r < 0 ? nh_error_wrap(err, r, "snapshot of shard %" PRIu64 " replica %" PRIu64, shard_id, replica_id) : NH_OK;
}

static int save_snapshot(struct nh_logdb *db, const struct nh_update *u, rocksdb_writebatch_t *batch, struct nh_error *err)
{
    struct replica *replica = replica_hold(db, u->shard_id, u->replica_id);
    int r = replica_load(db, replica, err);

    if (r == NH_OK)
        r = stage_snapshot(db, batch, replica, u, 0, err);
    if (r == NH_OK)
        r = store_write_batch(db, batch, true, err);
    if (r == NH_OK) {
        replica_apply_uses(db, replica);
        replica->now = replica->next;
    }
    replica_release(db, replica);
    return r < 0 ? nh_error_wrap(err, r, "snapshot of shard %" PRIu64, u->shard_id) : NH_OK;
}

int store_save_snapshots(struct nh_logdb *db, const struct nh_update *updates, size_t n, struct nh_error *err)
{
    rocksdb_writebatch_t *batch;
    int r = store_check_fence(db, err);

    if (r == NH_OK)
        r = updates_check(updates, n, err);
    if (r < 0)
        return r;
    batch = rocksdb_writebatch_create();
    for (size_t i = 0; i < n && r == NH_OK; i++) {
        if (!updates[i].snapshot)
            continue;
        rocksdb_writebatch_clear(batch);
        r = save_snapshot(db, &updates[i], batch, err);
    }
    rocksdb_writebatch_destroy(batch);
    return r;
}

static void delete_all(rocksdb_writebatch_t *batch, uint64_t shard_id, uint64_t replica_id)
{
    struct layout_key low, end;

    layout_range_begin(&low, shard_id, replica_id);
    layout_key(&end, shard_id, replica_id, LAYOUT_END);
    rocksdb_writebatch_delete_range(batch, low.bytes, low.size_bytes, end.bytes, end.size_bytes);
}

/* Writes a batch that replaces all that is known of a replica; what is remembered of it goes too. Its tail is written out before:
 * the horizon may move past the saves there while this batch is not durable yet. If that fails all stays, and the store is
 * fenced. */
static int replace_all(struct nh_logdb *db, rocksdb_writebatch_t *batch, uint64_t shard_id, uint64_t replica_id,
                       struct nh_error *err)
{
    struct replica *replica = replica_hold(db, shard_id, replica_id);
    struct nh_error uses;
    int r;

    if (!replica->loaded && replica_load_uses(db, replica, &uses) < 0)
        db->services->log(NH_LOG_WARN, "logdb",
                          "shard %" PRIu64 " replica %" PRIu64 ": its place in the journal stays until the next start: %s",
                          shard_id, replica_id, uses.text);
    r = tail_write(db, replica, err);
    if (r == NH_OK)
        r = store_write_batch(db, batch, true, err);
    if (r == NH_OK) {
        replica_forget_uses(db, replica, replica->n_uses);
        replica_forget(db, replica);
    } else {
        replica_release(db, replica);
    }
    return r < 0 ? nh_error_wrap(err, r, "shard %" PRIu64 " replica %" PRIu64, shard_id, replica_id) : NH_OK;
}

int store_remove_replica_data(struct nh_logdb *db, uint64_t shard_id, uint64_t replica_id, struct nh_error *err)
{
    rocksdb_writebatch_t *batch;
    int r = store_check_fence(db, err);

    if (r < 0)
        return r;
    batch = rocksdb_writebatch_create();
    delete_all(batch, shard_id, replica_id);
    r = replace_all(db, batch, shard_id, replica_id, err);
    rocksdb_writebatch_destroy(batch);
    return r;
}

int store_import_snapshot(struct nh_logdb *db, const struct nh_snapshot *snapshot, uint64_t replica_id, struct nh_error *err)
{
    const struct nh_bootstrap bootstrap = {.join = true};
    const struct nh_state state = {.term = snapshot->term, .commit = snapshot->index};
    uint64_t shard_id = snapshot->shard_id;
    rocksdb_writebatch_t *batch;
    int r = store_check_fence(db, err);

    if (r < 0)
        return r;
    if (!shard_id || !replica_id || !snapshot->index)
        return nh_error_set(err, NH_EINVAL, "import needs a shard id, a replica id and an index");
    batch = rocksdb_writebatch_create();
    delete_all(batch, shard_id, replica_id);
    record_put_bootstrap(db, batch, shard_id, replica_id, &bootstrap);
    record_put_state(db, batch, shard_id, replica_id, &state, 1);
    record_put_start(db, batch, shard_id, replica_id, snapshot->index + 1);
    record_put_snapshot(db, batch, shard_id, replica_id, snapshot);
    r = replace_all(db, batch, shard_id, replica_id, err);
    rocksdb_writebatch_destroy(batch);
    return r;
}
