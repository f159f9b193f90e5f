/* cmd/machines/kv.c - a map from strings to strings with the semantics of Redis, in memory: the machine behind SET and GET.
 *
 * Commands: kv_ops.h. The map: kv_table.h. Snapshots: kv_image.h; a regular machine is not updated while it saves one, so the
 * table itself is what is saved.
 */
#include "cmd/machines/kv_image.h"

struct nh_machine {
    struct kv_table table;
    struct kv_answers answers;
};

static struct kv_item *find(struct nh_machine *m, struct kv_slice key)
{
    return kv_table_find(&m->table, key);
}

static bool has(struct nh_machine *m, struct kv_slice key)
{
    return kv_table_find(&m->table, key) != NULL;
}

static void put(struct nh_machine *m, struct kv_slice key, struct kv_slice head, struct kv_slice tail)
{
    kv_table_put(&m->table, key, head, tail);
}

static bool drop(struct nh_machine *m, struct kv_slice key)
{
    return kv_table_drop(&m->table, key);
}

static const struct kv_store store = {find, has, put, drop, NULL};

static int machine_open(const struct nh_machine_args *args, struct nh_machine **ret, uint64_t *ret_applied, struct nh_error *err)
{
    struct nh_machine *m = kv_must(calloc(1, sizeof *m));

    (void)args;
    (void)err;
    kv_table_init(&m->table);
    *ret = m;
    *ret_applied = 0;
    return NH_OK;
}

static void machine_close(struct nh_machine *m)
{
    kv_table_deinit(&m->table);
    kv_answers_deinit(&m->answers);
    free(m);
}

static int update(struct nh_machine *m, struct nh_entry *entries, size_t n, struct nh_error *err)
{
    size_t done = kv_update(&m->answers, &store, m, entries, n);

    (void)err;
    return done < n ? (int)done : NH_OK;
}

static int view_find(void *ctx, struct kv_slice key, struct kv_slice *ret)
{
    struct nh_machine *m = ctx;
    const struct kv_item *i = kv_table_find(&m->table, key);

    if (i && ret)
        *ret = kv_value_of(i);
    return i != NULL;
}

static uint64_t view_count(void *ctx)
{
    struct nh_machine *m = ctx;

    return m->table.n;
}

static int lookup(struct nh_machine *m, const void *query, size_t size_bytes, struct nh_writer *out, uint64_t *ret_value,
                  struct nh_error *err)
{
    const struct kv_view view = {view_find, view_count, m};

    return kv_lookup(&view, query, size_bytes, out, ret_value, err);
}

static uint64_t hash(struct nh_machine *m)
{
    uint64_t sum = m->table.n;

    for (const struct kv_item *i = kv_table_next(&m->table, NULL); i; i = kv_table_next(&m->table, i))
        sum += kv_pair_hash(kv_key_of(i), kv_value_of(i));
    return sum;
}

/* ---- snapshots ---- */

static int compare_items(const void *a, const void *b)
{
    const struct kv_item *const *x = a, *const *y = b;

    return kv_key_compare(kv_key_of(*x), kv_key_of(*y));
}

/* Sorted, because the order in the table depends on its seed and on its history. */
static const struct kv_item **sorted_items(const struct kv_table *t)
{
    const struct kv_item **items = kv_must(malloc((t->n + 1) * sizeof(const struct kv_item *)));
    size_t n = 0;

    for (const struct kv_item *i = kv_table_next(t, NULL); i; i = kv_table_next(t, i))
        items[n++] = i;
    qsort(items, n, sizeof(const struct kv_item *), compare_items);
    return items;
}

static int save_snapshot(struct nh_machine *m, void *snapshot_ctx, struct nh_writer *out, const volatile bool *stop,
                         struct nh_error *err)
{
    const struct kv_item **items = sorted_items(&m->table);
    struct kv_image_writer w;

    (void)snapshot_ctx;
    kv_image_begin(&w, out, stop, 0, m->table.n);
    for (size_t i = 0; i < m->table.n; i++)
        if (kv_image_put(&w, kv_key_of(items[i]), kv_value_of(items[i])) < 0)
            break;
    free(items);
    return kv_image_end(&w, err);
}

static int read_image(struct kv_table *t, struct nh_reader *in, const volatile bool *stop, struct nh_error *err)
{
    struct kv_slice key, value;
    struct kv_image_reader r;
    int found = kv_image_open(&r, in, stop, err);

    if (found == NH_OK)
        while ((found = kv_image_next(&r, &key, &value, err)) > 0)
            kv_table_put(t, key, (struct kv_slice){key.data, 0}, value);
    kv_image_close(&r);
    return found;
}

static int recover(struct nh_machine *m, struct nh_reader *in, const volatile bool *stop, struct nh_error *err)
{
    struct kv_table fresh;
    int failed;

    kv_table_init(&fresh);
    failed = read_image(&fresh, in, stop, err);
    kv_table_deinit(failed ? &fresh : &m->table);
    if (!failed)
        m->table = fresh;
    return failed;
}

static const struct nh_machine_ops ops = {
    .abi_version = NH_MACHINE_ABI,
    .struct_size = sizeof(struct nh_machine_ops),
    .name = "kv",
    .version = "1",
    .kind = NH_MACHINE_REGULAR,
    /* Quick: an entry's work grows with its bytes, and with the value that APPEND copies. */
    .flags = NH_MACHINE_QUICK | NH_MACHINE_IN_PARTS,
    .open = machine_open,
    .update = update,
    .lookup = lookup,
    .close = machine_close,
    .hash = hash,
    .save_snapshot = save_snapshot,
    .recover = recover,
};

NH_API const struct nh_machine_ops *nh_machine_plugin(void);

const struct nh_machine_ops *nh_machine_plugin(void)
{
    return &ops;
}
