/* The table, and what entries and queries do. */
#include "tests/conformance/machine/kit.h"

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#define GARBAGE 200u

static const char deterministic[] = "\"update must be a function of the machine's state and the entries alone: no clock, no "
                                    "randomness, no addresses, no iteration order that depends on them\"";

/* ---- acceptance ---- */

static void need(bool there, const char *member, const char *kind)
{
    if (!there)
        kit_fail("raftio/machine.h: \"Required\" at the member; \"a required member that is NULL is refused\"",
                 "the table has no %s, which a %s machine needs", member, kind);
}

static void check_members(const struct nh_machine_ops *o)
{
    static const char *const kinds[] = {"regular", "concurrent", "on-disk"};
    const char *kind = kinds[o->kind];

    if (o->kind == NH_MACHINE_REGULAR) {
        if (o->save_snapshot || o->recover)
            need(o->save_snapshot && o->recover, "save_snapshot or no recover", "regular");
    } else {
        need(o->save_snapshot, "save_snapshot", kind);
        need(o->recover, "recover", kind);
        need(o->prepare_snapshot, "prepare_snapshot", kind);
    }
    need(!o->prepare_snapshot == !o->release_snapshot, "release_snapshot with its prepare_snapshot", kind);
    need(o->kind != NH_MACHINE_ON_DISK || o->sync, "sync", kind);
    need(!o->save_files || o->recover_files, "recover_files with its save_files", kind);
    need(o->kind != NH_MACHINE_ON_DISK || !o->save_files, "reason to have save_files", kind);
}

void check_acceptance(void)
{
    const struct nh_machine_ops *o = kit.ops;

    if (o->kind > NH_MACHINE_ON_DISK || (o->flags & ~(uint32_t)(NH_MACHINE_QUICK | NH_MACHINE_IN_PARTS)))
        kit_fail("kind is one of enum nh_machine_kind, flags are of enum nh_machine_flag", "kind %" PRIu32 ", flags %" PRIu32,
                 o->kind, o->flags);
    if (o->kind == NH_MACHINE_ON_DISK && (o->flags & NH_MACHINE_QUICK))
        kit_fail("an on-disk machine does not promise quick updates", "its files may make it wait");
    if (!o->version || !o->version[0] || strlen(o->version) > 63 || strlen(o->name) > 63)
        kit_fail("name and version are written to the bootstrap record and compared with those of other replicas",
                 "name and version must have 1 to 63 characters");
    check_members(o);
    kit.shared->kind = o->kind;
    kit.shared->has_snapshots = o->save_snapshot && o->recover && !o->save_files;
    if (o->save_files)
        kit_note("its snapshots have files of their own: this kit does not test snapshots of such machines");
    else if (!o->hash)
        kit_note("it has no hash, so differences show in results and images only");
    kit.shared->accepted = true;
}

/* ---- lifecycle: the one check whose process ends with all destructors, so that a leak is seen ---- */

static void live(struct kit_instance *i)
{
    struct kit_bytes image;

    kit_apply_to(i, 50);
    if (!kit.shared->has_snapshots)
        return;
    image = kit_image(i);
    kit_must_recover(i, image);
    free(image.data);
}

void check_lifecycle(void)
{
    struct kit_instance a, b;

    kit_open(&a, 1);
    kit_open(&b, 2);
    live(&a);
    live(&b);
    kit_close(&a);
    kit_apply_to(&b, 60);
    kit_close(&b);
    kit_open(&a, 3);
    kit_close(&a);
}

/* ---- entries ---- */

/* Their memory stays: whether it does is another check. */
void check_errors_are_results(void)
{
    struct kit_bytes cmds[GARBAGE];
    struct kit_instance i;

    kit_open(&i, 1);
    for (uint64_t k = 0; k < GARBAGE; k++) {
        struct nh_entry e = {.index = k + 1};

        cmds[k] = kit_random_bytes(k, k % 4 == 0 ? 3 : k % 50 == 1 ? 1000000 : 200);
        e.cmd = cmds[k].data;
        e.size_bytes = k == 0 ? 0 : cmds[k].size;
        kit_update(&i, &e, 1);
    }
    for (uint64_t k = 0; k < GARBAGE; k++)
        free(cmds[k].data);
    kit_close(&i);
}

void check_borrowed_memory(void)
{
    static const char contract[] = "nh_entry: \"cmd is borrowed for the call: a machine that keeps it must copy it\"";
    struct kit_instance kept, scribbled;

    kit_open(&kept, 1);
    kit_open(&scribbled, 1);
    scribbled.scribble = true;
    for (uint64_t to = 10; to <= kit.n_entries; to += 10) {
        kit_apply_to(&kept, to);
        kit_apply_to(&scribbled, to);
        kit_expect_outcomes(&kept, &scribbled, to - 10, to, contract, "one keeps the memory of its commands, one does not");
        if (to % 50 == 0)
            kit_expect_equal(&kept, &scribbled, contract, "one keeps the memory of its commands, one does not");
    }
    kit_close(&kept);
    kit_close(&scribbled);
}

static void use_otherwise(struct kit_instance *i, uint64_t k)
{
    struct kit_bytes query = kit_query(k), answer;
    uint64_t value;

    kit_lookup(i, &query, &answer, &value);
    free(query.data);
    free(answer.data);
    kit_hash(i);
    if (kit.shared->has_snapshots) {
        answer = kit_image(i);
        free(answer.data);
    }
}

void check_results_stay(void)
{
    struct kit_instance i;

    kit_open(&i, 1);
    for (uint64_t at = 0; at + KIT_BATCH_MAX <= kit.n_entries; at += KIT_BATCH_MAX) {
        struct nh_entry entries[KIT_BATCH_MAX] = {0};
        uint64_t digests[KIT_BATCH_MAX];
        size_t n;

        for (uint64_t k = 0; k < KIT_BATCH_MAX; k++) {
            struct kit_bytes cmd = kit_entry(at + k);

            entries[k] = (struct nh_entry){.index = kit_index(at + k), .cmd = cmd.data, .size_bytes = cmd.size};
        }
        n = kit_update_some(&i, entries, KIT_BATCH_MAX);
        for (uint64_t k = 0; k < n; k++) {
            free((void *)(uintptr_t)entries[k].cmd);
            digests[k] = kit_digest(entries[k].result.data, entries[k].result.size_bytes);
        }
        use_otherwise(&i, at);
        for (uint64_t k = 0; k < n; k++)
            if (digests[k] != kit_digest(entries[k].result.data, entries[k].result.size_bytes))
                kit_fail("nh_result: \"data belongs to the machine and stays valid until its next update or close\"",
                         "the result of entry %" PRIu64 " has changed before the next update", at + k);
        kit_update(&i, entries + n, KIT_BATCH_MAX - n);
        for (uint64_t k = n; k < KIT_BATCH_MAX; k++)
            free((void *)(uintptr_t)entries[k].cmd);
    }
    kit_close(&i);
}

void check_determinism(void)
{
    struct kit_instance a, b;

    kit_open(&a, 1);
    kit_open(&b, 2);
    kit_apply_to(&a, kit.n_entries / 2);
    usleep(1100000); /* so that a clock tells another second */
    kit_apply_to(&b, kit.n_entries / 2);
    kit_expect_outcomes(&a, &b, 0, kit.n_entries / 2, deterministic, "the same entries in other batches");
    kit_expect_equal(&a, &b, deterministic, "the same entries in other batches");
    for (uint64_t to = kit.n_entries / 2; to <= kit.n_entries; to += 10) {
        kit_apply_to(&b, to);
        kit_apply_to(&a, to);
        kit_expect_equal(&a, &b, deterministic, "the same entries in other batches");
    }
    kit_expect_outcomes(&a, &b, 0, a.count, deterministic, "the same entries in other batches");
    kit_close(&a);
    kit_close(&b);
}

/* ---- lookups ---- */

static int refuse(void *ctx, const void *data, size_t size_bytes)
{
    int *n_calls = ctx;

    (void)data, (void)size_bytes;
    ++*n_calls;
    return NH_ETOOBIG;
}

static void check_refused_answer(struct kit_instance *i, const struct kit_bytes *query)
{
    int n_calls = 0, r;
    struct nh_writer out = {refuse, &n_calls};
    uint64_t value;

    kit_enter("lookup");
    r = kit.ops->lookup(i->m, query->data, query->size, &out, &value, NULL);
    kit_leave();
    if (n_calls > 1 || (n_calls == 1 && r != NH_ETOOBIG))
        kit_fail("nh_writer: \"Returns 0 or a negative code, on which the caller stops and which it returns\"",
                 "lookup wrote %d times after its writer had failed and returned %d instead of %d", n_calls - 1, r, NH_ETOOBIG);
}

void check_lookups(void)
{
    struct kit_instance i;
    uint64_t hash;

    kit_open(&i, 1);
    kit_apply_to(&i, kit.n_entries / 2);
    hash = kit_hash(&i);
    for (uint64_t k = 0; k < 200; k++) {
        struct kit_bytes query = kit_query(k), first, second;
        uint64_t first_value, second_value;
        int first_code = kit_lookup(&i, &query, &first, &first_value),
            second_code = kit_lookup(&i, &query, &second, &second_value);

        if (first_code > 0)
            kit_fail("a code is 0 or negative", "lookup returns %d", first_code);
        if (first_code != second_code || (first_code == 0 && (first_value != second_value || first.size != second.size ||
                                                              (first.size && memcmp(first.data, second.data, first.size) != 0))))
            kit_fail("lookup answers a read-only query", "the same query has two answers, and there was no update between");
        check_refused_answer(&i, &query);
        free(query.data);
        free(first.data);
        free(second.data);
    }
    if (kit_hash(&i) != hash)
        kit_fail("lookup answers a read-only query", "the hash is another after 200 queries");
    kit_close(&i);
}
