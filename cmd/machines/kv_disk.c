/* cmd/machines/kv_disk.c - the commands of kv over a database on disk: for maps that are larger than the memory, and for hosts
 * that must be back at once after a restart.
 *
 * Commands: kv_ops.h, so the answers are those of kv. The database, which all replicas of a host share: kv_db.h. Whose data
 * counts: kv_disk_mark.c. Snapshots: kv_disk_snapshot.c.
 *
 * An update works on a table of changes over the database: a key is read at most once, later entries see what earlier ones did,
 * and at the end one batch takes the changes and the applied index into the database. So a crash leaves all of an update or
 * nothing; but one whose values are more than HELD_BYTES_MAX is taken in parts, each of whole entries: a few bytes of commands
 * may touch values that are together larger than the memory, on every replica alike, and again at every start.
 */
#include "cmd/machines/kv_disk.h"

#include <inttypes.h>
#include <stdio.h>

/* Of keys and values in a table of changes; then it goes into the database. One entry may be more. */
#define HELD_BYTES_MAX ((size_t)16 * 1024 * 1024)

static const struct kv_slice nothing = {(const uint8_t *)"", 0};

/* ---- reading ---- */

/* NULL: there is none, or *message says why not. */
static rocksdb_pinnableslice_t *read_value(struct nh_machine *m, const rocksdb_readoptions_t *options, struct kv_slice key,
                                           char **message)
{
    rocksdb_pinnableslice_t *found;
    struct kv_db_key k;

    kv_db_data_key(&k, m->id, m->generation, key);
    found = rocksdb_get_pinned(kv_db_handle(m->db), options, k.data, k.size, message);
    kv_db_key_deinit(&k);
    return found;
}

static struct kv_slice slice_of(const rocksdb_pinnableslice_t *found)
{
    size_t size;
    const char *data = rocksdb_pinnableslice_value(found, &size);

    return (struct kv_slice){(const uint8_t *)data, (uint32_t)size};
}

/* ---- the store of an update: m->changes over the database ---- */

/* As it is in the database. After a failed read the answer does not matter: the update fails. */
static struct kv_item *look(struct nh_machine *m, struct kv_slice key, bool with_value)
{
    char *message = NULL;
    rocksdb_pinnableslice_t *found = NULL;
    struct kv_slice value = nothing;
    struct kv_item *i;

    if (m->failure.code == 0)
        found = read_value(m, kv_db_read_options(m->db), key, &message);
    if (message)
        kv_db_error(message, "read a key", &m->failure);
    if (found && with_value)
        value = slice_of(found);
    if (value.size > KV_VALUE_BYTES_MAX) {
        kv_error(&m->failure, NH_ECORRUPT, "a value in the database has %" PRIu32 " bytes", value.size);
        value = nothing;
    }
    i = kv_table_put(&m->changes, key, nothing, value);
    m->held_bytes += key.size + value.size;
    i->stored = found != NULL;
    i->absent = found == NULL;
    i->unread = found && !with_value;
    if (found)
        rocksdb_pinnableslice_destroy(found);
    return i;
}

static struct kv_item *known(struct nh_machine *m, struct kv_slice key)
{
    struct kv_item *i = kv_table_find(&m->changes, key);

    return i ? i : look(m, key, false);
}

static struct kv_item *find(struct nh_machine *m, struct kv_slice key)
{
    struct kv_item *i = kv_table_find(&m->changes, key);

    if (!i || i->unread)
        i = look(m, key, true);
    return i->absent ? NULL : i;
}

static bool has(struct nh_machine *m, struct kv_slice key)
{
    return !known(m, key)->absent;
}

static void change(struct nh_machine *m, struct kv_slice key, struct kv_slice head, struct kv_slice tail, bool absent)
{
    bool stored = known(m, key)->stored;
    struct kv_item *i = kv_table_put(&m->changes, key, head, tail);

    m->held_bytes += key.size + head.size + tail.size; /* though it may take the place of another */
    i->stored = stored;
    i->absent = absent;
    i->dirty = true;
}

static void put(struct nh_machine *m, struct kv_slice key, struct kv_slice head, struct kv_slice tail)
{
    change(m, key, head, tail, false);
}

static bool drop(struct nh_machine *m, struct kv_slice key)
{
    if (!has(m, key))
        return false;
    change(m, key, nothing, nothing, true);
    return true;
}

/* ---- update ---- */

static void add_change(struct nh_machine *m, rocksdb_writebatch_t *batch, const struct kv_item *i)
{
    struct kv_slice value = kv_value_of(i);
    struct kv_db_key k;

    kv_db_data_key(&k, m->id, m->generation, kv_key_of(i));
    if (i->absent)
        rocksdb_writebatch_delete(batch, k.data, k.size);
    else
        rocksdb_writebatch_put(batch, k.data, k.size, (const char *)value.data, value.size);
    kv_db_key_deinit(&k);
}

void kv_disk_record(const struct nh_machine *m, struct kv_db_record *ret)
{
    *ret = (struct kv_db_record){
        .generation = m->generation, .applied = m->applied, .n = m->n, .identity = m->identity, .batches = m->batches + 1};
    memcpy(ret->name, m->name, sizeof ret->name);
}

static int commit(struct nh_machine *m, uint64_t applied, struct nh_error *err)
{
    rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    struct kv_db_record record;
    int r;

    kv_disk_record(m, &record);
    record.applied = applied;
    for (const struct kv_item *i = kv_table_next(&m->changes, NULL); i; i = kv_table_next(&m->changes, i)) {
        if (!i->dirty || (i->absent && !i->stored))
            continue;
        add_change(m, batch, i);
        record.n += (uint64_t)!i->absent - i->stored;
    }
    kv_db_put_record(batch, m->id, &record);
    r = kv_db_write(m->db, batch, false, err);
    rocksdb_writebatch_destroy(batch);
    if (r < 0)
        return r;
    m->applied = applied;
    m->batches = record.batches;
    __atomic_store_n(&m->n, record.n, __ATOMIC_RELEASE);
    return NH_OK;
}

/* The answers keep what they need. */
static void clear_changes(struct nh_machine *m)
{
    kv_table_clear(&m->changes);
    m->held_bytes = 0;
}

static void commit_if_much(struct nh_machine *m, uint64_t index)
{
    if (m->failure.code || m->held_bytes <= HELD_BYTES_MAX)
        return;
    if (commit(m, index, &m->failure) == 0)
        clear_changes(m);
}

static const struct kv_store store = {find, has, put, drop, commit_if_much};

static int update(struct nh_machine *m, struct nh_entry *entries, size_t n, struct nh_error *err)
{
    size_t done = kv_update(&m->answers, &store, m, entries, n);
    int r;

    if (m->failure.code)
        r = kv_error(err, m->failure.code, "%s", m->failure.text);
    else
        r = commit(m, entries[done - 1].index, err);
    clear_changes(m);
    return r == NH_OK && done < n ? (int)done : r;
}

static int sync_all(struct nh_machine *m, struct nh_error *err)
{
    return kv_db_sync(m->db, err);
}

/* ---- lookup ---- */

struct lookup {
    struct nh_machine *m;
    const rocksdb_readoptions_t *read;
    rocksdb_pinnableslice_t *found;
    struct nh_error failure;
};

static int view_find(void *ctx, struct kv_slice key, struct kv_slice *ret)
{
    struct lookup *l = ctx;
    char *message = NULL;

    if (l->found)
        rocksdb_pinnableslice_destroy(l->found);
    l->found = read_value(l->m, l->read, key, &message);
    if (message)
        return kv_db_error(message, "read a key", &l->failure);
    if (l->found && ret)
        *ret = slice_of(l->found);
    return l->found != NULL;
}

static uint64_t view_count(void *ctx)
{
    const struct lookup *l = ctx;

    return __atomic_load_n(&l->m->n, __ATOMIC_ACQUIRE);
}

static int run_lookup(struct lookup *l, const void *query, size_t size_bytes, struct nh_writer *out, uint64_t *ret_value,
                      struct nh_error *err)
{
    const struct kv_view view = {view_find, view_count, l};
    int r = kv_lookup(&view, query, size_bytes, out, ret_value, err);

    if (l->found)
        rocksdb_pinnableslice_destroy(l->found);
    return r < 0 && l->failure.code ? kv_error(err, r, "%s", l->failure.text) : r;
}

/* A query of several keys sees them at one moment, as it does in memory, where no update is beside it. */
static int lookup(struct nh_machine *m, const void *query, size_t size_bytes, struct nh_writer *out, uint64_t *ret_value,
                  struct nh_error *err)
{
    struct lookup l = {.m = m, .read = kv_db_read_options(m->db)};
    struct kv_disk_moment at;
    struct kv_slice rest;
    uint32_t argc;
    int r;

    if (!kv_command_begin(query, size_bytes, &argc, &rest) || argc <= 2)
        return run_lookup(&l, query, size_bytes, out, ret_value, err);
    r = kv_disk_moment_init(&at, m, err);
    if (r < 0)
        return r;
    l.read = at.read;
    r = run_lookup(&l, query, size_bytes, out, ret_value, err);
    kv_disk_moment_deinit(&at, m);
    return r;
}

/* ---- opening and closing ---- */

static void machine_close(struct nh_machine *m)
{
    kv_table_deinit(&m->changes);
    kv_answers_deinit(&m->answers);
    kv_db_release(m->db);
    free(m);
}

static int set_name(struct nh_machine *m, const char *data_dir, struct nh_error *err)
{
    char *path = realpath(data_dir, NULL);
    const char *name = path ? strrchr(path, '/') + 1 : "";
    int size = snprintf(m->name, sizeof m->name, "%s", name);

    free(path);
    return size > 0 && (size_t)size < sizeof m->name ? NH_OK : kv_error(err, NH_EINVAL, "%s: not a usable directory", data_dir);
}

/* In the same batch goes whatever lies there, of another directory that the replica once had or with a hole. The count begins at
 * a random number: without this batch, what follows it would not fit to what is there. */
static int begin_empty(struct nh_machine *m, struct nh_error *err)
{
    rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    struct kv_db_record record;
    int r;

    m->generation = 1;
    r = kv_disk_random(&m->batches, err);
    kv_disk_record(m, &record);
    kv_db_delete_replica(batch, m->id);
    kv_db_put_first_record(batch, m->id, &record);
    if (r == NH_OK)
        r = kv_db_write(m->db, batch, false, err);
    rocksdb_writebatch_destroy(batch);
    m->batches = record.batches;
    return r;
}

/* A replica that is not in the database, or with another directory, begins empty. What is in it may not be synced yet, if the
 * database was open all the time: the host relies on what it is told. */
static int load(struct nh_machine *m, const struct nh_plugin_services *services, struct nh_error *err)
{
    struct kv_db_record record;
    int r = kv_db_get_record(kv_db_handle(m->db), kv_db_read_options(m->db), m->id, &record, err);

    if (r == 0 || (r > 0 && record.identity != m->identity))
        return begin_empty(m, err);
    if (r > 0)
        r = kv_db_is_whole(kv_db_handle(m->db), kv_db_read_options(m->db), m->id, &record, err);
    if (r < 0)
        return r;
    if (r == 0) {
        services->log(NH_LOG_WARN, "kv-disk",
                      "%s: begins empty: a power failure took earlier writes than that of entry %" PRIu64 ", which is there",
                      m->name, record.applied);
        return begin_empty(m, err);
    }
    m->generation = record.generation;
    m->applied = record.applied;
    m->batches = record.batches;
    m->n = record.n;
    r = kv_db_clean(m->db, m->id, m->generation, err);
    return r < 0 ? r : kv_db_sync(m->db, err);
}

static int machine_open(const struct nh_machine_args *args, struct nh_machine **ret, uint64_t *ret_applied, struct nh_error *err)
{
    struct nh_machine *m;
    int r;

    if (!args->data_dir)
        return kv_error(err, NH_EINVAL, "kv-disk needs a directory");
    m = kv_must(calloc(1, sizeof *m));
    m->id = (struct kv_db_replica){args->shard_id, args->replica_id};
    r = set_name(m, args->data_dir, err);
    if (r == NH_OK)
        r = kv_disk_mark(args->data_dir, &m->identity, err);
    if (r == NH_OK)
        r = kv_db_acquire(args->data_dir, &m->db, err);
    if (r < 0) {
        free(m);
        return r;
    }
    kv_table_init(&m->changes);
    r = load(m, args->services, err);
    if (r < 0) {
        machine_close(m);
        return r;
    }
    *ret = m;
    *ret_applied = m->applied;
    return NH_OK;
}

static const struct nh_machine_ops ops = {
    .abi_version = NH_MACHINE_ABI,
    .struct_size = sizeof(struct nh_machine_ops),
    .name = "kv-disk",
    .version = "1",
    .kind = NH_MACHINE_ON_DISK,
    .flags = NH_MACHINE_IN_PARTS,
    .open = machine_open,
    .update = update,
    .lookup = lookup,
    .close = machine_close,
    .hash = kv_disk_hash,
    .prepare_snapshot = kv_disk_prepare,
    .save_snapshot = kv_disk_save,
    .recover = kv_disk_recover,
    .sync = sync_all,
    .release_snapshot = kv_disk_release,
};

NH_API const struct nh_machine_ops *nh_machine_plugin(void);

const struct nh_machine_ops *nh_machine_plugin(void)
{
    return &ops;
}
