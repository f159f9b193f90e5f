/* What must hold of what is applied and of who leads, whatever happens:
 *
 *   election safety        one leader per shard and term
 *   state machine safety   the same command at the same index on every host, in every life; nothing is left out
 *   snapshots              a state that comes from an image, or from a machine's own files, is the one that the history says
 *   durability             what is applied anywhere for the first time lies, synced, on a majority of disks (looked up there)
 *   exactly once           no command is applied at two indexes
 *   integrity              a command is, byte by byte, what its client sent
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "raftio/support/memory.h"
#include "tests/sim/sim.h"

struct shard_truth {
    uint64_t *ids; /* by index: which command was applied there; 0: none yet */
    size_t cap_ids;
    uint64_t *keys; /* by index: which register it wrote */
    size_t cap_keys;
    uint64_t max_applied, n_commands;
    uint64_t *leaders; /* by term */
    size_t cap_leaders;
};

static struct shard_truth truth[SIM_SHARDS_MAX + 1];
static uint64_t *index_of_id; /* ids are counted over all shards */
static size_t cap_index_of_id;
static uint64_t *number_of_id; /* among the commands of its shard */
static size_t cap_number_of_id;

void oracle_init(void)
{
    oracle_deinit();
}

void oracle_deinit(void)
{
    for (uint32_t s = 0; s <= SIM_SHARDS_MAX; s++) {
        free(truth[s].ids);
        free(truth[s].keys);
        free(truth[s].leaders);
    }
    memset(truth, 0, sizeof truth);
    free(index_of_id);
    free(number_of_id);
    index_of_id = number_of_id = NULL;
    cap_index_of_id = cap_number_of_id = 0;
}

/* A zeroed array that grows as needed. */
static uint64_t *at(uint64_t **array, size_t *cap, uint64_t i)
{
    size_t before = *cap;

    array_reserve((void **)array, cap, i + 1, sizeof **array);
    memset(*array + before, 0, (*cap - before) * sizeof **array);
    return *array + i;
}

uint64_t oracle_index_of(uint64_t id)
{
    return *at(&index_of_id, &cap_index_of_id, id);
}

uint64_t oracle_number_of(uint64_t id)
{
    return *at(&number_of_id, &cap_number_of_id, id);
}

/* ---- commands ---- */

static uint8_t pattern(const struct sim_command *c, size_t i)
{
    return (uint8_t)(c->id * 131 + i * 7);
}

void oracle_encode(const struct sim_command *c, uint8_t *ret)
{
    memcpy(ret, c, sizeof *c);
    for (size_t i = sizeof *c; i < c->size_bytes; i++)
        ret[i] = pattern(c, i);
}

static struct sim_command decode(uint64_t shard, uint64_t index, const uint8_t *entry, size_t size_bytes)
{
    struct sim_command c = {0};
    bool sound = size_bytes >= sizeof c;

    if (sound)
        memcpy(&c, entry, sizeof c);
    sound &= c.size_bytes == size_bytes && c.shard == shard && c.key < SIM_KEYS && c.id > 0;
    for (size_t i = sizeof c; sound && i < size_bytes; i++)
        sound = entry[i] == pattern(&c, i);
    if (!sound)
        sim_fail("shard %" PRIu64 " index %" PRIu64 ": an entry of %zu bytes is not what a client sent", shard, index,
                 size_bytes);
    return c;
}

/* ---- applied ---- */

static bool is_command(const uint8_t *record, const void *ctx)
{
    struct nh_entry_view e;
    struct sim_command c = {0};

    nh_record_view(record, &e);
    if (e.payload_bytes >= sizeof c)
        memcpy(&c, e.payload, sizeof c);
    return c.id == *(const uint64_t *)ctx;
}

static void first_applied(uint64_t shard, uint64_t index, uint64_t id)
{
    uint64_t *known = at(&index_of_id, &cap_index_of_id, id);
    uint32_t n = disks_count(shard, index, is_command, &id);

    if (*known)
        sim_fail("shard %" PRIu64 ": write %" PRIu64 " is applied at index %" PRIu64 " and at %" PRIu64, shard, id, *known,
                 index);
    if (index < truth[shard].max_applied)
        sim_fail("shard %" PRIu64 ": write %" PRIu64 " is applied at index %" PRIu64 ", which others left out", shard, id, index);
    if (sim.options.churn && (n == 0 || index > disks_committed(shard)))
        sim_fail("shard %" PRIu64 ": write %" PRIu64 " at index %" PRIu64 " is applied, but not seen to be committed", shard, id,
                 index);
    if (!sim.options.churn && n < sim.options.n_hosts / 2 + 1)
        sim_fail("shard %" PRIu64 ": write %" PRIu64 " at index %" PRIu64 " is applied, but synced on %u disks of %u only", shard,
                 id, index, n, sim.options.n_hosts);
    *known = index;
    truth[shard].max_applied = index;
    *at(&number_of_id, &cap_number_of_id, id) = ++truth[shard].n_commands;
}

/* What all registers are after the entry at `index`. */
static void state_at(uint64_t shard, uint64_t index, struct registers *ret)
{
    struct shard_truth *t = &truth[shard];

    *ret = (struct registers){0};
    for (uint64_t i = 1; i <= index && i < t->cap_ids; i++) {
        if (!t->ids[i])
            continue;
        ret->values[t->keys[i]] = t->ids[i];
        ret->n_applied++;
        ret->applied = i;
    }
}

void oracle_check_state(const struct sim_host *h, uint64_t shard, const struct registers *state, const char *how)
{
    struct registers truth_then;

    state_at(shard, state->applied, &truth_then);
    if (state->applied > truth[shard].max_applied || truth_then.applied != state->applied)
        sim_fail("shard %" PRIu64 ": host %u %s a state of index %" PRIu64 ", where nothing was applied", shard, h->id + 1, how,
                 state->applied);
    if (memcmp(&truth_then, state, sizeof *state) != 0)
        sim_fail("shard %" PRIu64 ": host %u %s a state of index %" PRIu64 " with %" PRIu64 " commands, the history has %" PRIu64
                 " and other values",
                 shard, h->id + 1, how, state->applied, state->n_applied, truth_then.n_applied);
}

void oracle_check_image(const struct sim_host *h, uint64_t shard, const struct registers *state, uint64_t index)
{
    struct registers truth_then;

    state_at(shard, index, &truth_then);
    if (memcmp(&truth_then, state, sizeof *state) != 0)
        sim_fail("shard %" PRIu64 ": host %u has an image of index %" PRIu64 " with the state of index %" PRIu64
                 ", the history has that of %" PRIu64,
                 shard, h->id + 1, index, state->applied, truth_then.applied);
}

struct sim_command oracle_applied(const struct sim_host *h, uint64_t shard, uint64_t previous, uint64_t index,
                                  const uint8_t *entry, size_t size_bytes)
{
    struct sim_command c = decode(shard, index, entry, size_bytes);
    uint64_t *id = at(&truth[shard].ids, &truth[shard].cap_ids, index);

    if (index <= previous)
        sim_fail("shard %" PRIu64 ": host %u applies index %" PRIu64 " after %" PRIu64, shard, h->id + 1, index, previous);
    for (uint64_t i = previous + 1; i < index; i++)
        if (truth[shard].ids[i])
            sim_fail("shard %" PRIu64 ": host %u leaves out index %" PRIu64, shard, h->id + 1, i);
    if (*id && *id != c.id)
        sim_fail("shard %" PRIu64 " index %" PRIu64 ": host %u applies write %" PRIu64 ", others applied %" PRIu64, shard, index,
                 h->id + 1, c.id, *id);
    if (!*id) {
        first_applied(shard, index, c.id);
        *id = c.id;
        *at(&truth[shard].keys, &truth[shard].cap_keys, index) = c.key;
        sim.coverage.applied++;
    } else {
        sim.coverage.applied_again++;
    }
    sim_note(index * 31 + c.id);
    return c;
}

/* ---- leaders ---- */

void oracle_leader(uint64_t shard, uint64_t term, uint64_t leader_id)
{
    uint64_t *leader;

    if (leader_id == NH_NO_LEADER)
        return;
    leader = at(&truth[shard].leaders, &truth[shard].cap_leaders, term);
    if (*leader && *leader != leader_id)
        sim_fail("shard %" PRIu64 " term %" PRIu64 " has two leaders, replica %" PRIu64 " and replica %" PRIu64, shard, term,
                 *leader, leader_id);
    if (!*leader)
        sim_log("shard %" PRIu64 ": replica %" PRIu64 " leads term %" PRIu64, shard, leader_id, term);
    sim.coverage.leaders += *leader == 0;
    *leader = leader_id;
}

/* ---- self-test ---- */

static void two_leaders(void)
{
    oracle_leader(1, 2, 1);
    oracle_leader(1, 2, 3);
}

static void apply(uint32_t host, uint64_t previous, uint64_t index, uint64_t id)
{
    struct sim_command c = {.id = id, .shard = 1, .size_bytes = sizeof c + 9};
    uint8_t bytes[sizeof c + 9];

    oracle_encode(&c, bytes);
    oracle_applied(sim.hosts[host], 1, previous, index, bytes, sizeof bytes);
}

static void save(uint64_t index, uint64_t id)
{
    for (uint32_t host = 0; host < 2; host++)
        self_test_save(host, index, 1, id, (struct nh_state){.term = 1});
}

static void apply_unsynced(void)
{
    self_test_save(0, 1, 1, 7, (struct nh_state){.term = 1});
    apply(0, 0, 1, 7);
}

static void apply_twice(void)
{
    save(1, 7);
    apply(0, 0, 1, 7);
    save(2, 7);
    apply(0, 1, 2, 7);
}

static void apply_another(void)
{
    save(1, 7);
    apply(0, 0, 1, 7);
    apply(1, 0, 1, 8);
}

static void apply_with_a_gap(void)
{
    save(1, 7);
    save(2, 8);
    apply(0, 0, 1, 7);
    apply(0, 1, 2, 8);
    apply(1, 0, 2, 8);
}

static void apply_behind_a_gap(void)
{
    save(1, 7);
    save(2, 8);
    apply(0, 0, 2, 8);
    apply(1, 0, 1, 7);
}

static void apply_backwards(void)
{
    save(1, 7);
    apply(0, 0, 1, 7);
    apply(0, 1, 1, 7);
}

static void apply_damaged(void)
{
    struct sim_command c = {.id = 7, .shard = 1, .size_bytes = sizeof c + 9};
    uint8_t bytes[sizeof c + 9];

    oracle_encode(&c, bytes);
    bytes[sizeof c + 4] ^= 1;
    oracle_applied(sim.hosts[0], 1, 0, 1, bytes, sizeof bytes);
}

static void jump(struct registers state)
{
    save(1, 7);
    save(2, 8);
    apply(0, 0, 1, 7);
    apply(0, 1, 2, 8);
    oracle_check_state(sim.hosts[1], 1, &(struct registers){{8}, 2, 2}, "recovers"); /* nothing wrong */
    oracle_check_state(sim.hosts[1], 1, &state, "recovers");
}

static void jump_into_the_future(void)
{
    jump((struct registers){{8}, 2, 3});
}

static void jump_over_a_command(void)
{
    jump((struct registers){{8}, 1, 2});
}

static void jump_to_another_state(void)
{
    jump((struct registers){{7}, 2, 2});
}

void oracle_self_test(void)
{
    self_test_begin(3);
    self_test_expect("has two leaders", two_leaders);
    self_test_expect("synced on 1 disks of 3 only", apply_unsynced);
    self_test_expect("is applied at index 1 and at 2", apply_twice);
    self_test_expect("others applied 7", apply_another);
    self_test_expect("leaves out index 1", apply_with_a_gap);
    self_test_expect("which others left out", apply_behind_a_gap);
    self_test_expect("applies index 1 after 1", apply_backwards);
    self_test_expect("is not what a client sent", apply_damaged);
    self_test_expect("of index 3, where nothing was applied", jump_into_the_future);
    self_test_expect("with 1 commands, the history has 2", jump_over_a_command);
    self_test_expect("and other values", jump_to_another_state);
    self_test_end();
}
