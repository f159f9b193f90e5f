/* Applying entries around a machine that writes down what it is told. */
#include "engine/rsm/rsm.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/rsm/sessions.h"
#include "raftio/codec.h"
#include "raftio/support/memory.h"

struct nh_machine {
    uint64_t indexes[4096];
    size_t n;
};

static void (*inside)(void); /* called from the machine's functions */
static size_t n_updates, n_closed;
static uint64_t fail_at;
static size_t taken_max; /* of a batch; 0: all */
static int open_result, too_many;
static bool in_session; /* results may be of former entries */

static int open_machine(const struct nh_machine_args *args, struct nh_machine **ret, uint64_t *ret_applied, struct nh_error *err)
{
    cr_assert_eq(args->shard_id, 7);
    if (open_result < 0)
        return nh_error_set(err, open_result, "no disk");
    *ret = xcalloc(1, sizeof **ret);
    *ret_applied = 0;
    return NH_OK;
}

static int update(struct nh_machine *m, struct nh_entry *entries, size_t n, struct nh_error *err)
{
    n_updates++;
    if (inside)
        inside();
    cr_assert_leq(n, RSM_UPDATE_ENTRIES_MAX);
    if (too_many)
        return (int)n + 1;
    for (size_t i = 0; i < n; i++) {
        if (taken_max && i == taken_max)
            return (int)i;
        if (entries[i].index == fail_at)
            return nh_error_set(err, NH_EMACHINE, "out of beans");
        m->indexes[m->n++] = entries[i].index;
        entries[i].result.value = entries[i].index * 2;
    }
    return NH_OK;
}

static int lookup(struct nh_machine *m, const void *query, size_t size_bytes, struct nh_writer *out, uint64_t *ret_value,
                  struct nh_error *err)
{
    (void)err;
    if (inside)
        inside();
    *ret_value = m->n;
    return out->write(out->ctx, query, size_bytes);
}

static void close_machine(struct nh_machine *m)
{
    n_closed++;
    free(m);
}

static uint64_t hash(struct nh_machine *m)
{
    return m->n;
}

static struct nh_machine_ops ops = {.struct_size = sizeof ops,
                                    .name = "notes",
                                    .flags = NH_MACHINE_IN_PARTS,
                                    .open = open_machine,
                                    .update = update,
                                    .lookup = lookup,
                                    .close = close_machine,
                                    .hash = hash};
static struct rsm *s;
static struct block_builder b;
static uint64_t results[8192], values[8192], n_results, n_memberships, n_rejected;
static struct nh_error err;

static void on_results(void *ctx, const struct rsm_result *r, size_t n)
{
    (void)ctx;
    for (size_t i = 0; i < n; i++) {
        if (r[i].rejected)
            n_rejected++;
        else
            cr_assert(in_session || r[i].value.value == r[i].index * 2 || r[i].value.value == 0);
        values[n_results] = r[i].value.value;
        results[n_results++] = r[i].key;
    }
}

static void on_membership(void *ctx, uint64_t index, const struct nh_membership *m)
{
    (void)ctx;
    (void)index;
    n_memberships += m != NULL;
}

static struct rsm_sink sink = {NULL, NULL, on_results, on_membership};

static void setup(void)
{
    struct rsm_config c = {7, 1, &ops, NULL};

    inside = NULL;
    n_updates = n_closed = n_results = n_memberships = n_rejected = 0;
    fail_at = taken_max = 0;
    in_session = false;
    open_result = too_many = 0;
    s = rsm_new(&c);
    sink.batch = rsm_batch_new();
}

static void teardown(void)
{
    rsm_free(s);
    rsm_batch_free(sink.batch);
}

TestSuite(rsm, .init = setup, .fini = teardown);

static void add(uint64_t key, const char *payload)
{
    struct block_record rec = {.origin = 1, .key = key, .payload = payload, .payload_bytes = (uint32_t)strlen(payload)};

    cr_assert_eq(block_builder_add(&b, &rec), 0);
}

static void add_change_of(uint64_t key, const struct nh_config_change *c)
{
    uint8_t payload[512];
    struct block_record rec = {.type = NH_ENTRY_CONFIG_CHANGE, .origin = 1, .key = key, .payload = payload};

    rec.payload_bytes = (uint32_t)config_change_encode(c, payload, sizeof payload);
    cr_assert_eq(block_builder_add(&b, &rec), 0);
}

static void add_change(uint64_t key, uint32_t type, uint64_t replica_id)
{
    add_change_of(key, &(struct nh_config_change){.type = type, .member = {.replica_id = replica_id, .address = "a:1"}});
}

static void add_member(uint64_t key, uint32_t kind, uint64_t replica_id)
{
    struct nh_config_change c = {.type = NH_CONFIG_ADD_MEMBER, .member = {.replica_id = replica_id, .kind = kind}};

    snprintf(c.member.address, sizeof c.member.address, "a:%u", (unsigned)replica_id);
    add_change_of(key, &c);
}

static int apply(uint64_t first)
{
    struct nh_block *block = block_seal(&b, 1, first);
    struct nh_run run = {block, 0, block->n};
    int r = rsm_apply(s, &run, 1, &sink, &err);

    nh_block_unref(block);
    return r;
}

static int write_nothing(void *ctx, const void *data, size_t size_bytes)
{
    (void)ctx;
    (void)data;
    (void)size_bytes;
    return 0;
}

static int ask(uint64_t *ret)
{
    struct nh_writer out = {write_nothing, NULL};

    return rsm_lookup(s, "q", 1, &out, ret, &err);
}

Test(rsm, entries_reach_the_machine_in_batches_and_results_their_keys)
{
    cr_assert_eq(rsm_open(s, &err), 0);
    for (uint64_t i = 1; i <= 2500; i++)
        add(i, "x");
    cr_assert_eq(apply(1), 0);
    cr_assert_eq(n_updates, 3);
    cr_assert_eq(n_results, 2500);
    cr_assert_eq(results[2499], 2500);
    cr_assert_eq(rsm_applied(s), 2500);
}

Test(rsm, a_machine_may_take_a_batch_in_parts)
{
    cr_assert_eq(rsm_open(s, &err), 0);
    taken_max = 3;
    for (uint64_t i = 1; i <= 10; i++)
        add(i, "x");
    cr_assert_eq(apply(1), 0, "%s", err.text);
    cr_assert_eq(n_updates, 4);
    cr_assert_eq(n_results, 10);
    for (uint64_t i = 0; i < 10; i++)
        cr_assert_eq(results[i], i + 1);
    cr_assert_eq(rsm_applied(s), 10);
}

/* Their keys may be those of requests that are pending here. */
Test(rsm, results_of_what_others_have_proposed_are_left_out)
{
    cr_assert_eq(rsm_open(s, &err), 0);
    for (uint32_t origin = 1; origin <= 3; origin++) {
        struct block_record plain = {.origin = origin, .key = 10 + origin, .payload = "x", .payload_bytes = 1};
        struct block_record barrier = {.origin = origin, .key = 20 + origin, .type = NH_ENTRY_METADATA};
        struct block_record session = {.origin = origin, .key = 30 + origin, .client_id = 9, .series_id = 1};

        cr_assert_eq(block_builder_add(&b, &plain), 0);
        cr_assert_eq(block_builder_add(&b, &barrier), 0);
        cr_assert_eq(block_builder_add(&b, &session), 0);
    }
    cr_assert_eq(apply(1), 0, "%s", err.text);
    cr_assert_eq(rsm_applied(s), 9);
    cr_assert_eq(n_results, 3);
    cr_assert_eq(results[0], 11);
    cr_assert_eq(results[1], 21);
    cr_assert_eq(results[2], 31);
}

static void add_of_session(uint64_t key, uint64_t series_id)
{
    uint32_t sessions_max = 4;
    struct block_record rec = {.origin = 1, .key = key, .client_id = 9, .series_id = series_id};

    if (series_id == SESSION_OPEN) {
        rec.payload = &sessions_max;
        rec.payload_bytes = sizeof sessions_max;
    }
    cr_assert_eq(block_builder_add(&b, &rec), 0);
}

/* Not every entry of a batch has a result to give or to keep: each finds its own, in whatever part it is. */
Test(rsm, a_session_keeps_the_results_of_its_own_entries)
{
    cr_assert_eq(rsm_open(s, &err), 0);
    taken_max = 2;
    in_session = true;
    add_of_session(1, SESSION_OPEN);
    for (uint64_t i = 0; i < 4; i++) {
        add(0, "x");
        add_of_session(10 + i, 1 + i);
        add(20 + i, "x");
    }
    cr_assert_eq(apply(1), 0, "%s", err.text);
    cr_assert_eq(n_results, 9);
    for (uint64_t i = 0; i < 4; i++) {
        cr_assert_eq(results[1 + 2 * i], 10 + i);
        cr_assert_eq(results[2 + 2 * i], 20 + i);
    }
    n_results = 0;
    for (uint64_t i = 0; i < 4; i++)
        add_of_session(30 + i, 1 + i);
    cr_assert_eq(apply(14), 0, "%s", err.text);
    cr_assert_eq(n_results, 4);
    for (uint64_t i = 0; i < 4; i++)
        cr_assert_eq(values[i], 2 * (3 + 3 * i), "as it was when it was applied");
}

Test(rsm, a_later_part_that_fails_leaves_the_former_ones_applied)
{
    cr_assert_eq(rsm_open(s, &err), 0);
    taken_max = 3;
    fail_at = 5;
    for (uint64_t i = 1; i <= 10; i++)
        add(i, "x");
    cr_assert_eq(apply(1), NH_EMACHINE);
    cr_assert(strstr(err.text, "update at index 4"), "%s", err.text);
    cr_assert_eq(n_results, 3);
    cr_assert_eq(rsm_applied(s), 3);
}

Test(rsm, a_machine_that_takes_more_than_it_got_has_failed)
{
    uint64_t n;

    cr_assert_eq(rsm_open(s, &err), 0);
    too_many = 1;
    add(1, "x");
    cr_assert_eq(apply(1), NH_EABI);
    cr_assert(strstr(err.text, "2 of 1"), "%s", err.text);
    cr_assert_eq(n_results, 0);
    cr_assert_eq(ask(&n), NH_EQUARANTINED);
}

Test(rsm, no_ops_do_not_reach_the_machine_but_empty_proposals_do)
{
    uint64_t n;

    cr_assert_eq(rsm_open(s, &err), 0);
    add(0, "");
    add(5, "");
    add(0, "x"); /* nobody waits for it here */
    cr_assert_eq(apply(1), 0);
    cr_assert_eq(ask(&n), 0);
    cr_assert_eq(n, 2);
    cr_assert_eq(n_results, 1);
    cr_assert_eq(rsm_applied(s), 3);
}

Test(rsm, what_is_applied_already_is_skipped_and_a_hole_is_refused)
{
    uint64_t n;

    cr_assert_eq(rsm_open(s, &err), 0);
    add(1, "x");
    add(2, "x");
    cr_assert_eq(apply(1), 0);
    add(2, "x");
    add(3, "x");
    cr_assert_eq(apply(2), 0);
    cr_assert_eq(ask(&n), 0);
    cr_assert_eq(n, 3);
    add(9, "x");
    cr_assert_eq(apply(5), NH_ECORRUPT);
    cr_assert(strstr(err.text, "entry 5 follows entry 3"), "%s", err.text);
}

Test(rsm, configuration_changes_split_batches_and_keep_the_order)
{
    struct nh_membership m;

    cr_assert_eq(rsm_open(s, &err), 0);
    add(1, "x");
    add_change(2, NH_CONFIG_ADD_MEMBER, 4);
    add(3, "x");
    add_change(4, NH_CONFIG_REMOVE_MEMBER, 77);
    cr_assert_eq(apply(1), 0);
    cr_assert_eq(n_updates, 2);
    cr_assert_eq(n_memberships, 1);
    cr_assert_eq(n_rejected, 1);
    for (uint64_t i = 0; i < 4; i++)
        cr_assert_eq(results[i], i + 1);
    cr_assert_eq(rsm_get_membership(s, &m, &err), 0);
    cr_assert_eq(m.n_members, 1);
    cr_assert_eq(m.config_change_id, 2);
    nh_membership_deinit(&m);
}

/* Simulator seed 201024: it had an "image" of an empty machine, and answered reads from it. */
Test(rsm, a_removed_witness_still_has_no_data)
{
    struct rsm_moment moment;
    struct nh_snapshot record = {0};
    uint64_t n;

    cr_assert_eq(rsm_open(s, &err), 0);
    add_member(1, NH_MEMBER_VOTER, 2);
    add_member(2, NH_MEMBER_WITNESS, 1);
    add_change(3, NH_CONFIG_REMOVE_MEMBER, 1);
    add(4, "");
    cr_assert_eq(apply(1), 0);
    cr_assert_eq(n_rejected, 0);
    cr_assert_eq(ask(&n), NH_EUNSUPPORTED);
    cr_assert_eq(rsm_capture(s, true, &moment, &err), 0);
    cr_assert(moment.record.witness);
    cr_assert(moment.record.dummy);
    nh_snapshot_copy(&record, &moment.record);
    rsm_release(s, &moment);

    /* And after a restart. */
    teardown();
    setup();
    cr_assert_eq(rsm_open(s, &err), 0);
    cr_assert_eq(rsm_recover(s, &record, NULL, NULL, &err), 0);
    cr_assert_eq(ask(&n), NH_EUNSUPPORTED);
    nh_snapshot_deinit(&record);
}

/* Simulator seed 71338. */
Test(rsm, a_witness_has_no_data_before_it_is_a_member)
{
    struct block_record stripped = {.type = NH_ENTRY_METADATA}, barrier = {.type = NH_ENTRY_METADATA, .key = 9, .origin = 1};
    struct rsm_moment moment;
    uint64_t n;

    cr_assert_eq(rsm_open(s, &err), 0);
    cr_assert_eq(block_builder_add(&b, &barrier), 0);
    cr_assert_eq(apply(1), 0);
    cr_assert_eq(ask(&n), 0);
    cr_assert_eq(block_builder_add(&b, &stripped), 0);
    cr_assert_eq(apply(2), 0);
    cr_assert_eq(ask(&n), NH_EUNSUPPORTED);
    cr_assert_eq(rsm_capture(s, true, &moment, &err), 0);
    cr_assert(moment.record.witness);
    rsm_release(s, &moment);
}

Test(rsm, a_failing_machine_is_not_asked_again)
{
    uint64_t n, applied;

    cr_assert_eq(rsm_open(s, &err), 0);
    fail_at = 2;
    add(1, "x");
    cr_assert_eq(apply(1), 0);
    add(2, "x");
    cr_assert_eq(apply(2), NH_EMACHINE);
    cr_assert(strstr(err.text, "machine notes: update at index 2: out of beans"), "%s", err.text);
    fail_at = 0;
    add(2, "x");
    cr_assert_eq(apply(2), NH_EQUARANTINED);
    cr_assert_eq(ask(&n), NH_EQUARANTINED);
    cr_assert_eq(rsm_get_hash(s, &n, &applied, &err), NH_EQUARANTINED);
    cr_assert_eq(rsm_applied(s), 1);
}

Test(rsm, a_damaged_configuration_change_is_corruption)
{
    struct block_record rec = {.type = NH_ENTRY_CONFIG_CHANGE, .payload = "\xff\xff\xff", .payload_bytes = 3};

    cr_assert_eq(rsm_open(s, &err), 0);
    cr_assert_eq(block_builder_add(&b, &rec), 0);
    cr_assert_eq(apply(1), NH_ECORRUPT);
}

Test(rsm, lookups_say_why_they_cannot_answer)
{
    uint64_t n;

    cr_assert_eq(ask(&n), NH_ENOTREADY);
    cr_assert_eq(rsm_open(s, &err), 0);
    cr_assert_eq(ask(&n), 0);
    rsm_close(s);
    cr_assert_eq(ask(&n), NH_ECLOSED);
    cr_assert_eq(n_closed, 1);
    rsm_close(s);
    cr_assert_eq(n_closed, 1);
}

Test(rsm, a_machine_that_does_not_open_is_never_used)
{
    uint64_t n;

    open_result = NH_EIO;
    cr_assert_eq(rsm_open(s, &err), NH_EIO);
    cr_assert_str_eq(err.text, "open machine notes: no disk");
    cr_assert_eq(ask(&n), NH_EQUARANTINED);
}

static uint32_t n_refused;

static void ask_host(void)
{
    struct nh_membership m = {0};
    uint64_t n, applied;

    inside = NULL; /* if it is not refused, let the test fail rather than recurse */
    cr_assert_eq(ask(&n), NH_EDEADLOCK);
    cr_assert_eq(rsm_get_hash(s, &n, &applied, &err), NH_EDEADLOCK);
    cr_assert_eq(rsm_get_membership(s, &m, &err), NH_EDEADLOCK);
    cr_assert(strstr(err.text, "must not ask its host"), "%s", err.text);
    n_refused++;
}

/* It used to hang the apply worker, and with it every replica on it. */
Test(rsm, a_machine_that_asks_its_host_is_refused, .timeout = 10)
{
    uint64_t n;

    cr_assert_eq(rsm_open(s, &err), 0);
    add(1, "x");
    inside = ask_host;
    cr_assert_eq(apply(1), 0);
    inside = ask_host;
    cr_assert_eq(ask(&n), 0);
    cr_assert_eq(n_refused, 2);
    cr_assert_eq(ask(&n), 0, "afterwards all is as before");
}

static atomic_bool asking;

static void linger(void)
{
    usleep(1000);
}

static void *keep_asking(void *arg)
{
    uint64_t n;

    (void)arg;
    while (asking)
        ask(&n);
    return NULL;
}

/* There was always one of them inside: nothing was applied as long as they went on. */
Test(rsm, clients_that_keep_asking_do_not_hold_up_updates, .timeout = 30)
{
    pthread_t threads[4];

    cr_assert_eq(rsm_open(s, &err), 0);
    inside = linger;
    asking = true;
    for (size_t i = 0; i < 4; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, keep_asking, NULL), 0);
    for (uint64_t i = 1; i <= 20; i++) {
        add(i, "x");
        cr_assert_eq(apply(i), 0);
    }
    asking = false;
    for (size_t i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    inside = NULL;
}
