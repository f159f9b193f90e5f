/* Instances of the machine under test: every call goes through here, is announced, and is looked at when it fails. */
#include "tests/conformance/machine/kit.h"

#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>

#define SHARD         7u
#define OTHER_ENTRIES 1000000u /* numbers from here on are not part of the log */
#define SCRIBBLE      0xdb

struct nh_error kit_err;
static const volatile bool never = false;

static const char update_must_work[] =
    "\"An error that belongs to a command is a result, not a failure\"; a failed update puts the replica in quarantine";
static const char snapshot_must_work[] =
    "a snapshot of any state can be saved, and recovered by every replica of the same version";

const char *kit_error_text(int code)
{
    static char text[KIT_TEXT_BYTES];

    snprintf(text, sizeof text, "%s (%s)", nh_status_name(code), kit_err.text[0] ? kit_err.text : "without a text");
    return text;
}

/* ---- opening and closing ---- */

static void open_in(struct kit_instance *i, uint64_t replica)
{
    struct nh_machine_args args = {.struct_size = sizeof args,
                                   .shard_id = SHARD,
                                   .replica_id = replica,
                                   .services = nh_plugin_services()};
    int r;

    args.data_dir = kit.ops->kind == NH_MACHINE_ON_DISK ? i->dir : NULL;
    i->applied = UINT64_MAX;
    kit_err = (struct nh_error){0};
    kit_enter("open");
    r = kit.ops->open(&args, &i->m, &i->applied, &kit_err);
    kit_leave();
    if (r != NH_OK || !i->m)
        kit_fail("open gives an instance, or the replica does not start", "open returns %s", kit_error_text(r));
    if (i->applied == UINT64_MAX)
        kit_fail("open: *ret_applied is the last applied index of an on-disk machine, else 0", "open does not set *ret_applied");
    i->outcomes = calloc(kit.n_entries + 1, sizeof *i->outcomes);
}

void kit_open(struct kit_instance *i, uint64_t batches)
{
    uint64_t number = __atomic_add_fetch(&kit.shared->n_instances, 1, __ATOMIC_ACQ_REL);

    *i = (struct kit_instance){.batches = kit_mix(kit.seed, batches)};
    snprintf(i->dir, sizeof i->dir, "%s/%u-%" PRIu64, kit.dir, SHARD, number);
    mkdir(i->dir, 0700);
    open_in(i, number);
    if (i->applied != 0)
        kit_fail("open: *ret_applied is 0 for an empty machine, and for all that live in memory",
                 "a new instance tells that it has applied %" PRIu64, i->applied);
}

void kit_open_again(struct kit_instance *i, const char *dir, uint64_t batches)
{
    char path[sizeof i->dir];

    snprintf(path, sizeof path, "%s", dir);
    *i = (struct kit_instance){.batches = kit_mix(kit.seed, batches)};
    memcpy(i->dir, path, sizeof path);
    open_in(i, strtoull(strrchr(path, '-') + 1, NULL, 10));
    i->count = kit_count_to(i->applied);
}

void kit_close(struct kit_instance *i)
{
    kit_enter("close");
    kit.ops->close(i->m);
    kit_leave();
    for (size_t k = 0; k < i->n_kept; k++)
        free(i->kept[k]);
    free(i->kept);
    free(i->outcomes);
    *i = (struct kit_instance){0};
}

/* ---- entries ---- */

size_t kit_update_some(struct kit_instance *i, struct nh_entry *entries, size_t n)
{
    int r;

    kit_err = (struct nh_error){0};
    kit_enter("update");
    r = kit.ops->update(i->m, entries, n, &kit_err);
    kit_leave();
    if (r < 0)
        kit_fail(update_must_work, "update of %zu entries from index %" PRIu64 " returns %s", n, entries[0].index,
                 kit_error_text(r));
    if (r > 0 && !(kit.ops->flags & NH_MACHINE_IN_PARTS))
        kit_fail(update_must_work, "update of %zu entries from index %" PRIu64 " returns %d, and NH_MACHINE_IN_PARTS is not set",
                 n, entries[0].index, r);
    if ((size_t)r > n)
        kit_fail(update_must_work, "update of %zu entries from index %" PRIu64 " says that it has applied %d", n,
                 entries[0].index, r);
    return r > 0 ? (size_t)r : n;
}

void kit_update(struct kit_instance *i, struct nh_entry *entries, size_t n)
{
    for (size_t at = 0; at < n;)
        at += kit_update_some(i, entries + at, n - at);
}

static void let_go(struct kit_instance *i, struct kit_bytes cmd)
{
    if (i->scribble) {
        memset(cmd.data, SCRIBBLE, cmd.size);
        free(cmd.data);
        return;
    }
    i->kept = realloc(i->kept, (i->n_kept + 1) * sizeof *i->kept);
    i->kept[i->n_kept++] = cmd.data;
}

static void apply_batch(struct kit_instance *i, uint64_t first, size_t n, struct kit_outcome *outcomes)
{
    struct nh_entry entries[KIT_BATCH_MAX] = {0};
    struct kit_bytes cmds[KIT_BATCH_MAX];

    for (size_t k = 0; k < n; k++) {
        cmds[k] = kit_entry(first + k);
        entries[k] = (struct nh_entry){.index = kit_index(first + k), .cmd = cmds[k].data, .size_bytes = cmds[k].size};
    }
    for (size_t at = 0; at < n;) {
        size_t to = at + kit_update_some(i, entries + at, n - at);

        for (; at < to; at++) {
            const struct nh_result *r = &entries[at].result;

            if (outcomes)
                outcomes[at] = (struct kit_outcome){r->value, kit_digest(r->data, r->size_bytes), r->size_bytes};
        }
    }
    for (size_t k = 0; k < n; k++)
        let_go(i, cmds[k]);
}

void kit_apply_to(struct kit_instance *i, uint64_t to)
{
    while (i->count < to) {
        size_t n = 1 + kit_random(&i->batches) % KIT_BATCH_MAX;

        if (n > to - i->count)
            n = to - i->count;
        apply_batch(i, i->count, n, i->outcomes + i->count);
        i->count += n;
    }
}

void kit_apply_others(struct kit_instance *i, uint32_t n)
{
    for (uint32_t k = 0; k < n; k++)
        apply_batch(i, OTHER_ENTRIES + i->batches % 1000 + k, 1, NULL);
}

/* ---- looking ---- */

uint64_t kit_hash(struct kit_instance *i)
{
    uint64_t hash;

    if (!kit.ops->hash)
        return 0;
    kit_enter("hash");
    hash = kit.ops->hash(i->m);
    kit_leave();
    return hash;
}

static size_t cap_for(size_t size)
{
    size_t cap = 64;

    while (cap < size)
        cap *= 2;
    return cap;
}

static int collect(void *ctx, const void *data, size_t size_bytes)
{
    struct kit_bytes *to = ctx;
    size_t cap = cap_for(to->size + size_bytes);

    if (!to->data || cap != cap_for(to->size))
        to->data = realloc(to->data, cap);
    if (size_bytes)
        memcpy(to->data + to->size, data, size_bytes);
    to->size += size_bytes;
    return 0;
}

int kit_lookup(struct kit_instance *i, const struct kit_bytes *query, struct kit_bytes *ret_answer, uint64_t *ret_value)
{
    struct nh_writer out = {collect, ret_answer};
    struct nh_error err = {0}; /* several threads */
    int r;

    *ret_answer = (struct kit_bytes){0};
    *ret_value = 0;
    kit_enter("lookup");
    r = kit.ops->lookup(i->m, query->data, query->size, &out, ret_value, &err);
    kit_leave();
    return r;
}

/* ---- snapshots ---- */

void *kit_prepare(struct kit_instance *i)
{
    void *ctx = NULL;
    int r = NH_OK;

    if (!kit.ops->prepare_snapshot)
        return NULL;
    kit_err = (struct nh_error){0};
    kit_enter("prepare_snapshot");
    r = kit.ops->prepare_snapshot(i->m, &ctx, &kit_err);
    kit_leave();
    if (r != NH_OK)
        kit_fail(snapshot_must_work, "prepare_snapshot returns %s", kit_error_text(r));
    return ctx;
}

void kit_release(struct kit_instance *i, void *ctx)
{
    if (!kit.ops->release_snapshot)
        return;
    kit_enter("release_snapshot");
    kit.ops->release_snapshot(i->m, ctx);
    kit_leave();
}

struct kit_bytes kit_save(struct kit_instance *i, void *ctx)
{
    struct kit_bytes image = {0};
    struct nh_writer out = {collect, &image};
    struct nh_error err = {0};
    int r;

    kit_enter("save_snapshot");
    r = kit.ops->save_snapshot(i->m, ctx, &out, &never, &err);
    kit_leave();
    if (r != NH_OK) {
        kit_err = err;
        kit_fail(snapshot_must_work, "save_snapshot returns %s", kit_error_text(r));
    }
    return image;
}

struct kit_bytes kit_image(struct kit_instance *i)
{
    void *ctx = kit_prepare(i);
    struct kit_bytes image = kit_save(i, ctx);

    kit_release(i, ctx);
    return image;
}

struct source {
    struct kit_bytes image;
    size_t at;
    uint64_t random;
};

/* Pieces of many sizes, as they come out of a network. */
static int64_t give(void *ctx, void *data, size_t cap_bytes)
{
    struct source *s = ctx;
    size_t n = s->image.size - s->at, piece = 1 + kit_random(&s->random) % 3000;

    n = n < cap_bytes ? n : cap_bytes;
    n = n < piece ? n : piece;
    if (n)
        memcpy(data, s->image.data + s->at, n);
    s->at += n;
    return (int64_t)n;
}

int kit_recover(struct kit_instance *i, struct kit_bytes image)
{
    struct source s = {image, 0, kit.seed};
    struct nh_reader in = {give, &s};
    int r;

    kit_err = (struct nh_error){0};
    kit_enter("recover");
    r = kit.ops->recover(i->m, &in, &never, &kit_err);
    kit_leave();
    return r;
}

void kit_must_recover(struct kit_instance *i, struct kit_bytes image)
{
    int r = kit_recover(i, image);

    if (r != NH_OK)
        kit_fail(snapshot_must_work, "recover of an image of %zu bytes returns %s", image.size, kit_error_text(r));
}

/* ---- comparing ---- */

void kit_expect_images(struct kit_bytes a, struct kit_bytes b, const char *contract, const char *what)
{
    size_t at = 0, n = a.size < b.size ? a.size : b.size;

    while (at < n && a.data[at] == b.data[at])
        at++;
    if (at < n || a.size != b.size)
        kit_fail(contract, "%s: the images differ (%zu and %zu bytes, first at byte %zu)", what, a.size, b.size, at);
}

/* Both contexts live at once, or the second could lie where the first was, and an address in an image would not be seen. */
void kit_expect_equal(struct kit_instance *a, struct kit_instance *b, const char *contract, const char *what)
{
    struct kit_bytes image_a, image_b;
    void *ctx_a, *ctx_b;

    if (kit_hash(a) != kit_hash(b))
        kit_fail(contract, "%s: the hashes differ after entry %" PRIu64, what, a->count);
    if (!kit.shared->has_snapshots)
        return;
    ctx_a = kit_prepare(a);
    ctx_b = kit_prepare(b);
    image_a = kit_save(a, ctx_a);
    image_b = kit_save(b, ctx_b);
    kit_release(a, ctx_a);
    kit_release(b, ctx_b);
    kit_expect_images(image_a, image_b, contract, what);
    free(image_a.data);
    free(image_b.data);
}

void kit_expect_outcomes(struct kit_instance *a, struct kit_instance *b, uint64_t from, uint64_t to, const char *contract,
                         const char *what)
{
    for (uint64_t k = from; k < to; k++) {
        const struct kit_outcome *x = &a->outcomes[k], *y = &b->outcomes[k];

        if (x->value != y->value)
            kit_fail(contract, "%s: entry %" PRIu64 " has the result values %" PRIu64 " and %" PRIu64, what, k, x->value,
                     y->value);
        if (x->size != y->size || x->digest != y->digest)
            kit_fail(contract, "%s: entry %" PRIu64 " has results of other bytes (%zu and %zu of them)", what, k, x->size,
                     y->size);
    }
}
