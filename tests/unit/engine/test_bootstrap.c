/* What a replica starts from. */
#include "engine/bootstrap.h"

#include <criterion/criterion.h>
#include <string.h>

#include "tests/unit/engine/engine_host.h"

static struct engine_config engine;
static struct bootstrap_result result;
static struct nh_error err;
static struct nh_member members[3];
static struct nh_membership initial = {.n_members = 3, .members = members};

static void setup(void)
{
    struct nh_logdb_config lc = {.struct_size = sizeof lc, .dir = HOST_DIR, .n_workers = 1, .services = nh_plugin_services()};

    for (uint32_t i = 0; i < 3; i++) {
        members[i].replica_id = i + 1;
        strcpy(members[i].address, (const char *[]){"a:1", "b:1", "c:1"}[i]);
    }
    engine.logdb_ops = nh_logdb_memory();
    cr_assert_eq(engine.logdb_ops->open(&lc, &engine.logdb, NULL), 0);
}

static void teardown(void)
{
    bootstrap_result_deinit(&result);
    engine.logdb_ops->close(engine.logdb);
    host_forget_disk();
}

TestSuite(bootstrap, .init = setup, .fini = teardown);

static bool check_quorum = true;

static struct engine_replica_config config(const struct nh_membership *m, bool join)
{
    return (struct engine_replica_config){
        .shard_id = 4, .replica_id = 2, .machine = &host_machine, .initial = m, .join = join, .check_quorum = check_quorum};
}

static int run(const struct nh_membership *m, bool join)
{
    struct engine_replica_config c = config(m, join);

    bootstrap_result_deinit(&result);
    return bootstrap_replica(&engine, &c, &result, &err);
}

static void save(uint64_t first, uint64_t n, uint64_t term)
{
    struct block_builder b = {0};
    struct nh_block *block;
    struct nh_run run_of_block;
    struct nh_update u = {.shard_id = 4, .replica_id = 2, .has_state = true, .must_sync = true, .state = {term, 0, 1}};

    for (uint64_t i = 0; i < n; i++)
        block_builder_add(&b, &(struct block_record){.key = 1, .payload = "x", .payload_bytes = 1});
    block = block_seal(&b, term, first);
    run_of_block = (struct nh_run){block, 0, block->n};
    u.runs = &run_of_block;
    u.n_runs = 1;
    cr_assert_eq(engine.logdb_ops->save_raft_state(engine.logdb, &u, 1, 1, &err), 0, "%s", err.text);
    nh_block_unref(block);
}

Test(bootstrap, a_new_shard_begins_with_the_same_entry_everywhere)
{
    uint8_t first[512];
    size_t size;

    cr_assert_eq(run(&initial, false), 0, "%s", err.text);
    cr_assert(result.save_first);
    cr_assert_eq(result.boot.state.term, 1);
    cr_assert_eq(result.boot.state.commit, 1);
    cr_assert_eq(result.boot.last_index, 1);
    size = nh_run_size(&result.first.runs[0]);
    cr_assert_lt(size, sizeof first);
    memcpy(first, nh_run_data(&result.first.runs[0]), size);
    cr_assert_eq(run(NULL, false), 0, "a crash before the first save: the record is enough");
    cr_assert(result.save_first);
    cr_assert_eq(nh_run_size(&result.first.runs[0]), size);
    cr_assert_eq(memcmp(first, nh_run_data(&result.first.runs[0]), size), 0);
}

/* Shard 4 of three voters: the second. A witness is passed over. */
Test(bootstrap, one_voter_of_a_new_shard_stands_first)
{
    cr_assert_eq(run(&initial, false), 0, "%s", err.text);
    cr_assert(result.boot.stand_early);
    members[0].kind = NH_MEMBER_WITNESS;
    teardown();
    setup();
    cr_assert_eq(run(&initial, false), 0, "%s", err.text);
    cr_assert(result.boot.stand_early, "4 modulo 2 is the first of the voters 2 and 3");
    members[0].kind = NH_MEMBER_VOTER;
    members[2].kind = NH_MEMBER_NON_VOTING;
    teardown();
    setup();
    cr_assert_eq(run(&initial, false), 0, "%s", err.text);
    cr_assert(result.boot.stand_early == false, "of 1 and 2 it is the other");
    members[2].kind = NH_MEMBER_VOTER;
}

Test(bootstrap, a_restart_finds_its_log_and_the_terms_in_it)
{
    cr_assert_eq(run(&initial, false), 0);
    save(1, 1, 1);
    save(2, 99, 3);
    save(101, 1, 4);
    save(102, 1000, 9);
    cr_assert_eq(run(&initial, false), 0, "%s", err.text);
    cr_assert_not(result.save_first);
    cr_assert_eq(result.boot.first_index, 1);
    cr_assert_eq(result.boot.last_index, 1101);
    cr_assert_eq(result.boot.n_spans, 4);
    for (uint32_t i = 0; i < 4; i++) {
        cr_assert_eq(result.spans[i].first_index, ((uint64_t[]){1, 2, 101, 102})[i]);
        cr_assert_eq(result.spans[i].term, ((uint64_t[]){1, 3, 4, 9})[i]);
    }
    cr_assert_eq(result.boot.state.term, 9);
    cr_assert_eq(result.members.n_members, 3);
}

static void save_change(uint64_t index, uint64_t term, uint64_t commit)
{
    struct nh_update u = {.shard_id = 4, .replica_id = 2, .has_state = true, .must_sync = true, .state = {term, 1, commit}};
    struct block_builder b = {0};
    struct nh_run run_of_block;

    block_builder_add(&b, &(struct block_record){.type = NH_ENTRY_CONFIG_CHANGE, .payload = "x", .payload_bytes = 1});
    run_of_block = (struct nh_run){block_seal(&b, term, index), 0, 1};
    u.runs = &run_of_block;
    u.n_runs = 1;
    cr_assert_eq(engine.logdb_ops->save_raft_state(engine.logdb, &u, 1, 1, &err), 0, "%s", err.text);
    nh_block_unref(run_of_block.block);
}

static void expect_bound(uint64_t bound)
{
    cr_assert_eq(run(&initial, false), 0, "%s", err.text);
    cr_assert_eq(result.boot.config_bound, bound);
}

/* A voter and a witness alone can commit what is no change, so it is looked for; what is too much may hold any. */
Test(bootstrap, changes_are_looked_for_above_the_commit_index)
{
    cr_assert_eq(run(&initial, false), 0);
    save(1, 1, 1);
    expect_bound(1);
    save(2, 50, 1);
    expect_bound(1);
    save_change(52, 1, 1);
    save(53, 20, 1);
    expect_bound(52);
    save_change(73, 1, 60);
    save(74, 3, 1);
    expect_bound(73);
    save(77, 100000, 1);
    expect_bound(100076);
}

static const struct nh_logdb_ops *real_ops;
static uint32_t n_reads;

static int counted_iterate(struct nh_logdb *db, uint64_t shard_id, uint64_t replica_id, uint64_t low, uint64_t high,
                           size_t max_bytes, const struct nh_entry_sink *sink, struct nh_error *e)
{
    n_reads++;
    return real_ops->iterate_entries(db, shard_id, replica_id, low, high, max_bytes, sink, e);
}

/* A restart reads the log of each of thousands of replicas. In most a leader was elected once, or not for long before. */
Test(bootstrap, a_long_term_costs_few_reads)
{
    static struct nh_logdb_ops counted;

    real_ops = engine.logdb_ops;
    counted = *real_ops;
    counted.iterate_entries = counted_iterate;
    engine.logdb_ops = &counted;
    cr_assert_eq(run(&initial, false), 0);
    save(1, 1, 1);
    save(2, 100000, 2);
    cr_assert_eq(run(&initial, false), 0, "%s", err.text);
    cr_assert_eq(result.boot.n_spans, 2);
    cr_assert_eq(n_reads, 3, "%u reads: of the last entry, of the first ones, and of those that may not be committed", n_reads);
    save(100002, 1, 3);
    save(100003, 100000, 5);
    n_reads = 0;
    cr_assert_eq(run(&initial, false), 0, "%s", err.text);
    cr_assert_eq(result.boot.n_spans, 4);
    for (uint32_t i = 0; i < 4; i++) {
        cr_assert_eq(result.spans[i].first_index, ((uint64_t[]){1, 2, 100002, 100003})[i]);
        cr_assert_eq(result.spans[i].term, ((uint64_t[]){1, 2, 3, 5})[i]);
    }
    cr_assert_lt(n_reads, 2 * 17 + 5, "%u reads for a term of 100,000 entries", n_reads);
    engine.logdb_ops = real_ops;
}

/* No log has that: whoever wrote it, nothing is built on it. Beside one another, and where only the search meets them. */
Test(bootstrap, terms_that_fall_are_refused)
{
    const uint64_t longs[] = {1, 300};

    for (size_t i = 0; i < 2; i++) {
        cr_assert_eq(run(&initial, false), 0);
        save(1, longs[i], 7);
        save(longs[i] + 1, 100, 3);
        save(longs[i] + 101, 1, 9);
        cr_assert_eq(run(&initial, false), NH_ECORRUPT);
        cr_assert(strstr(err.text, "below an earlier one"), "%s", err.text);
        teardown();
        setup();
    }
}

static void save_vote(uint64_t term, uint64_t vote)
{
    struct nh_update u = {.shard_id = 4, .replica_id = 2, .has_state = true, .must_sync = true, .state = {term, vote, 1}};

    cr_assert_eq(engine.logdb_ops->save_raft_state(engine.logdb, &u, 1, 1, &err), 0, "%s", err.text);
}

/* When all hosts were down, no shard has a leader: one of its voters need not wait for one, and most likely has what is newest.
 */
Test(bootstrap, who_led_last_stands_first)
{
    cr_assert_eq(run(&initial, false), 0, "%s", err.text);
    save(1, 1, 1);
    cr_assert_eq(run(&initial, false), 0, "%s", err.text);
    cr_assert_not(result.boot.stand_early, "it is the one of a new shard, but voted for nobody since");
    save_vote(5, 2);
    cr_assert_eq(run(&initial, false), 0, "%s", err.text);
    cr_assert_not(result.boot.stand_early, "it stood, and nobody has led in that term");
    save(2, 1, 5);
    save_vote(5, 2);
    cr_assert_eq(run(&initial, false), 0, "%s", err.text);
    cr_assert(result.boot.stand_early);
    check_quorum = false;
    cr_assert_eq(run(&initial, false), 0, "%s", err.text);
    cr_assert_not(result.boot.stand_early, "followers of a leader would help it");
    check_quorum = true;
    save(3, 1, 6);
    save_vote(6, 3);
    cr_assert_eq(run(&initial, false), 0, "%s", err.text);
    cr_assert_not(result.boot.stand_early, "another one led");
}

/* Its log may all have gone into a snapshot. */
Test(bootstrap, who_led_last_stands_first_with_a_snapshot_only)
{
    struct nh_snapshot s = {.shard_id = 4, .index = 7, .term = 5, .membership = initial};
    struct nh_update u = {
        .shard_id = 4, .replica_id = 2, .has_state = true, .must_sync = true, .state = {5, 2, 7}, .snapshot = &s};

    cr_assert_eq(run(&initial, false), 0, "%s", err.text);
    save(1, 1, 1);
    cr_assert_eq(engine.logdb_ops->save_raft_state(engine.logdb, &u, 1, 1, &err), 0, "%s", err.text);
    cr_assert_eq(run(&initial, false), 0, "%s", err.text);
    cr_assert_eq(result.boot.n_spans, 0);
    cr_assert(result.boot.stand_early);
    save_vote(6, 2);
    cr_assert_eq(run(&initial, false), 0, "%s", err.text);
    cr_assert_not(result.boot.stand_early, "nobody has led in that term");
}

Test(bootstrap, a_joining_replica_has_no_members_and_no_log)
{
    cr_assert_eq(run(NULL, true), 0, "%s", err.text);
    cr_assert_eq(result.members.n_members, 0);
    cr_assert_eq(result.boot.last_index, 0);
    cr_assert_not(result.save_first);
    cr_assert_eq(run(NULL, false), 0, "it restarts without join too");
    cr_assert_eq(run(NULL, true), 0);
}

static void expect(int code, const char *text, const struct nh_membership *m, bool join)
{
    cr_assert_eq(run(m, join), code);
    cr_assert(strstr(err.text, text), "%s", err.text);
}

Test(bootstrap, what_contradicts_the_record_is_refused_with_the_remedy)
{
    struct engine_replica_config c = config(NULL, false);
    struct nh_machine_ops other = host_machine;

    cr_assert_eq(run(&initial, false), 0);
    strcpy(members[2].address, "z:1");
    expect(NH_EMISMATCH, "was started with members 1@a:1 2@b:1 3@c:1, is to start with 1@a:1 2@b:1 3@z:1", &initial, false);
    expect(NH_EMISMATCH, "was started with members, is to start joining", NULL, true);
    other.name = "other";
    c.machine = &other;
    cr_assert_eq(bootstrap_replica(&engine, &c, &result, &err), NH_EMISMATCH);
    cr_assert(strstr(err.text, "machine \"adder\", is to start with \"other\""), "%s", err.text);
}

Test(bootstrap, members_that_make_no_sense_are_refused)
{
    struct nh_membership empty = {0};

    expect(NH_EINVAL, "give the initial members, or join", NULL, false);
    expect(NH_EINVAL, "give the initial members, or join", &empty, false);
    expect(NH_EINVAL, "has no initial members", &initial, true);
    members[0].replica_id = 3;
    expect(NH_EINVAL, "not sorted", &initial, false);
    members[0].replica_id = 1;
    members[2].replica_id = ((uint64_t)1 << 32) + 2;
    expect(NH_EINVAL, "same low 32 bits", &initial, false);
    members[2].replica_id = 3;
    members[1].replica_id = 2;
    members[2].address[0] = 0;
    expect(NH_EINVAL, "has no address", &initial, false);
    memset(members[2].address, 'x', NH_ADDRESS_BYTES);
    expect(NH_EINVAL, "too long", &initial, false);
}

Test(bootstrap, a_stranger_to_the_members_is_refused)
{
    struct nh_member others[] = {{.replica_id = 5, .address = "q:1"}};
    struct nh_membership m = {.n_members = 1, .members = others};

    expect(NH_EINVAL, "replica 2 is not among the initial members", &m, false);
}

/* ---- the machine of the record ---- */

static struct nh_machine_ops machine;

static void setup_machine(void)
{
    setup();
    machine = host_machine;
    machine.version = "3";
}

TestSuite(bootstrap_machine, .init = setup_machine, .fini = teardown);

static int run_machine(const struct nh_machine_ops *m, uint64_t hash, bool pinned)
{
    struct engine_replica_config c = config(&initial, false);

    c.machine = m;
    c.machine_hash = hash;
    c.pin_machine = pinned;
    bootstrap_result_deinit(&result);
    return bootstrap_replica(&engine, &c, &result, &err);
}

static struct nh_bootstrap stored(void)
{
    struct nh_bootstrap b = {0};

    cr_assert_eq(engine.logdb_ops->get_bootstrap(engine.logdb, 4, 2, &b, &err), 0, "%s", err.text);
    nh_membership_deinit(&b.initial);
    return b;
}

Test(bootstrap_machine, the_record_names_the_machine)
{
    struct nh_bootstrap b;

    cr_assert_eq(run_machine(&machine, 77, false), 0, "%s", err.text);
    b = stored();
    cr_assert_str_eq(b.machine_type, machine.name);
    cr_assert_str_eq(b.machine_version, machine.version);
    cr_assert_eq(b.machine_kind, machine.kind);
    cr_assert_eq(b.machine_hash, 77);
}

Test(bootstrap_machine, another_kind_or_version_of_the_machine_is_refused)
{
    struct nh_machine_ops other = machine;

    cr_assert_eq(run_machine(&machine, 77, false), 0, "%s", err.text);
    other.kind = NH_MACHINE_ON_DISK;
    cr_assert_eq(run_machine(&other, 77, false), NH_EMISMATCH);
    cr_assert(strstr(err.text, "as a regular one, now it is on-disk: give the former"), "%s", err.text);
    other = machine;
    other.version = "other";
    cr_assert_eq(run_machine(&other, 77, false), NH_EMISMATCH);
    cr_assert(strstr(err.text, "is to start with version \"other\""), "%s", err.text);
    other.version = NULL;
    cr_assert_eq(run_machine(&other, 77, false), NH_EMISMATCH);
}

Test(bootstrap_machine, a_machine_that_was_built_anew_is_refused_only_if_it_is_pinned)
{
    cr_assert_eq(run_machine(&machine, 77, true), 0, "%s", err.text);
    cr_assert_eq(run_machine(&machine, 78, true), NH_EMISMATCH);
    cr_assert(strstr(err.text, "hash 000000000000004d, is to start with 000000000000004e"), "%s", err.text);
    cr_assert_eq(run_machine(&machine, 0, true), NH_EMISMATCH, "linked in is something else, too");
    cr_assert_eq(run_machine(&machine, 78, false), 0, "%s", err.text);
    cr_assert_eq(stored().machine_hash, 78, "the record says what ran last");
    cr_assert_eq(run_machine(&machine, 78, true), 0, "%s", err.text);
}

Test(bootstrap_machine, a_record_that_knows_less_is_accepted_and_completed)
{
    struct nh_bootstrap old = {.machine_type = "adder"}, imported = {.join = true};

    nh_membership_copy(&old.initial, &initial);
    cr_assert_eq(engine.logdb_ops->save_bootstrap(engine.logdb, 4, 2, &old, &err), 0);
    nh_membership_deinit(&old.initial);
    cr_assert_eq(run_machine(&machine, 77, true), 0, "%s", err.text);
    cr_assert_str_eq(stored().machine_version, machine.version);
    cr_assert_eq(stored().machine_hash, 77);
    cr_assert_eq(result.members.n_members, 3);
    cr_assert_eq(engine.logdb_ops->save_bootstrap(engine.logdb, 4, 2, &imported, &err), 0);
    cr_assert_eq(run(NULL, true), 0, "%s", err.text);
    cr_assert_str_eq(stored().machine_type, "adder");
}

Test(bootstrap_machine, a_machine_whose_name_cannot_be_stored_is_refused)
{
    struct nh_machine_ops other = machine;
    char text[65];

    memset(text, 'm', 64);
    text[64] = 0;
    other.name = text;
    cr_assert_eq(run_machine(&other, 0, false), NH_EINVAL);
    cr_assert(strstr(err.text, "name is longer than 63"), "%s", err.text);
    other.name = "a\nb";
    cr_assert_eq(run_machine(&other, 0, false), NH_EINVAL);
    cr_assert(strstr(err.text, "not printable"), "%s", err.text);
    other.name = "adder";
    other.version = text;
    cr_assert_eq(run_machine(&other, 0, false), NH_EINVAL);
    cr_assert(strstr(err.text, "version is longer than 63"), "%s", err.text);
    text[63] = 0;
    cr_assert_eq(run_machine(&other, 0, false), 0, "%s", err.text);
}
