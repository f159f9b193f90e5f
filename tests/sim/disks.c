/* What must hold of what lies on the disks, synced, and of the cores that run:
 *
 *   hard state           a term never falls, a vote never changes within a term, nothing is committed beyond the log
 *   commit               what a replica takes for committed lies, synced, on a majority of disks; and it stays there
 *   leader completeness  a leader's log holds all that was committed in earlier terms
 *   agreement            no replica takes anything else for committed
 *   log matching         two logs with the same term at an index are the same up to it
 *   order of durability  no vote, acknowledgement or term leaves a host before it is synced there
 *   invariants           of every core, those included that are too dear to be asserted always (raft_check)
 *
 * Crashes happen between two looks; the synced image of a disk does not care.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "engine/raft/raft_internal.h"
#include "raftio/support/memory.h"
#include "tests/sim/sim.h"

struct log_entry {
    uint64_t term;
    uint32_t crc;
};
struct log_copy {
    struct log_entry *entries; /* by index - first */
    size_t n, cap;
    uint64_t first;
};
struct commit {
    uint64_t term;        /* of the entry */
    uint64_t commit_term; /* in which it was seen to be committed, or a later one */
};
struct shard_log {
    struct commit *commits; /* by index */
    size_t cap_commits;
    uint64_t committed;
};
/* Who votes, by half. */
struct config {
    uint64_t ids[2][NH_MEMBERS_MAX];
    uint32_t n[2];
    bool joint;
};
struct member_view {
    uint64_t term, vote; /* on its disk */
    uint64_t led_term;   /* as a leader of this term its log was looked at */
    bool quiet, lease;
    struct config config;   /* of its core at the last look */
    struct log_copy before; /* its log at the last look */
};

static struct shard_log shards[SIM_SHARDS_MAX + 1];
static struct member_view views[SIM_HOSTS_MAX][SIM_SHARDS_MAX + 1];

void disks_init(void)
{
    disks_deinit();
    for (uint32_t s = 1; s <= SIM_SHARDS_MAX; s++) {
        array_reserve((void **)&shards[s].commits, &shards[s].cap_commits, 2, sizeof *shards[s].commits);
        shards[s].commits[1] = (struct commit){1, 1}; /* the first entry is the members' agreement, not a leader's */
        shards[s].committed = 1;
    }
}

void disks_deinit(void)
{
    for (uint32_t s = 0; s <= SIM_SHARDS_MAX; s++) {
        free(shards[s].commits);
        for (uint32_t i = 0; i < SIM_HOSTS_MAX; i++)
            free(views[i][s].before.entries);
    }
    memset(shards, 0, sizeof shards);
    memset(views, 0, sizeof views);
    images_init();
}

void disks_forget(const struct sim_host *h, uint64_t shard)
{
    struct member_view *view = &views[h->id][shard];

    free(view->before.entries);
    *view = (struct member_view){0};
    images_forget(h, shard);
}

uint64_t disks_committed(uint64_t shard)
{
    return shards[shard].committed;
}

static uint32_t quorum(void)
{
    return sim.options.n_hosts / 2 + 1;
}

/* ---- one entry, on all disks ---- */

struct look {
    bool (*test)(const uint8_t *record, const void *ctx);
    const void *ctx;
    bool good;
};

/* The log has given way to a snapshot that holds this index: what is in it was committed. */
static bool is_compacted(const struct sim_host *h, uint64_t shard, uint64_t replica_id, uint64_t index)
{
    struct nh_raft_state state;

    return memory_disk_read_state(h->disk, shard, replica_id, &state, NULL) == NH_OK && index < state.first_index;
}

static int look_at(void *ctx, const uint8_t *records, size_t size_bytes, struct nh_error *err)
{
    struct look *l = ctx;

    (void)size_bytes;
    (void)err;
    l->good = l->test(records, l->ctx);
    return NH_OK;
}

uint32_t disks_count(uint64_t shard, uint64_t index, bool (*test)(const uint8_t *record, const void *ctx), const void *ctx)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < sim.options.n_hosts; i++) {
        struct look l = {test, ctx, false};
        struct nh_entry_sink sink = {look_at, &l};

        if (memory_disk_iterate(sim.hosts[i]->disk, shard, sim.hosts[i]->replica[shard], index, index + 1, &sink, NULL) == NH_OK)
            n += l.good;
        else
            n += is_compacted(sim.hosts[i], shard, sim.hosts[i]->replica[shard], index);
    }
    return n;
}

static bool has_term(const uint8_t *record, const void *ctx)
{
    return nh_record_term(record) == *(const uint64_t *)ctx;
}

/* ---- before a message leaves ---- */

/* Messages that carry a term nobody is in, or that speak for others. */
static bool is_free(enum nh_message_type type)
{
    return type == NH_MSG_REQUEST_PRE_VOTE || type == NH_MSG_REQUEST_PRE_VOTE_RESP || type == NH_MSG_PROPOSE ||
           type == NH_MSG_READ_INDEX || type == NH_MSG_LEADER_TRANSFER;
}

void disks_check_message(const struct sim_host *h, const struct nh_message *m)
{
    struct nh_raft_state disk = {0};
    const char *what = NULL;

    memory_disk_read_state(h->disk, m->shard_id, m->from, &disk, NULL);
    if (is_free((enum nh_message_type)m->type) || disk.state.term > m->term)
        return;
    if (disk.state.term < m->term)
        what = "its term";
    else if (m->type == NH_MSG_REQUEST_VOTE && disk.state.vote != m->from)
        what = "the own vote";
    else if (m->type == NH_MSG_REQUEST_VOTE_RESP && !m->reject && disk.state.vote != m->to)
        what = "the vote";
    else if (m->type == NH_MSG_REPLICATE_RESP && !m->reject && disk.last_index < m->log_index)
        what = "the last entry";
    if (what)
        sim_fail("shard %" PRIu64 ": a message of type %u leaves host %u in term %" PRIu64 " before %s is synced", m->shard_id,
                 m->type, h->id + 1, m->term, what);
    sim.coverage.promises++;
}

/* ---- after each poll ---- */

static void check_hard_state(const struct sim_host *h, uint64_t shard)
{
    struct member_view *view = &views[h->id][shard];
    struct nh_raft_state now;

    if (memory_disk_read_state(h->disk, shard, h->replica[shard], &now, NULL) < 0)
        return; /* nothing yet */
    images_check(h, shard, &now);
    if (now.state.term < view->term)
        sim_fail("shard %" PRIu64 ": the disk of host %u goes from term %" PRIu64 " back to %" PRIu64, shard, h->id + 1,
                 view->term, now.state.term);
    if (now.state.term == view->term && view->vote && now.state.vote != view->vote)
        sim_fail("shard %" PRIu64 ": host %u votes for %" PRIu64 " in term %" PRIu64 ", and then for %" PRIu64, shard, h->id + 1,
                 view->vote, view->term, now.state.vote);
    if (now.state.commit > now.last_index)
        sim_fail("shard %" PRIu64 ": the disk of host %u has commit index %" PRIu64 " and last entry %" PRIu64, shard, h->id + 1,
                 now.state.commit, now.last_index);
    view->term = now.state.term;
    view->vote = now.state.vote;
}

static void config_of(const struct raft *core, struct config *ret)
{
    *ret = (struct config){.joint = core->joint};
    for (uint32_t i = 0; i < core->n_members; i++) {
        const struct raft_member *m = &core->members[i];

        if (m->kind == NH_MEMBER_VOTER || m->kind == NH_MEMBER_WITNESS)
            ret->ids[0][ret->n[0]++] = m->id;
        if (m->outgoing)
            ret->ids[1][ret->n[1]++] = m->id;
    }
}

static bool disk_has(uint64_t shard, uint64_t replica_id, uint64_t index, uint64_t term)
{
    const struct sim_host *h = sim.hosts[sim_host_of(replica_id)];
    struct look l = {has_term, &term, false};
    struct nh_entry_sink sink = {look_at, &l};

    if (memory_disk_iterate(h->disk, shard, replica_id, index, index + 1, &sink, NULL) == NH_OK)
        return l.good;
    return is_compacted(h, shard, replica_id, index);
}

static bool majority_has(const struct config *c, uint64_t shard, uint64_t index, uint64_t term)
{
    for (int half = 0; half < (c->joint ? 2 : 1); half++) {
        uint32_t n = 0;

        for (uint32_t i = 0; i < c->n[half]; i++)
            n += disk_has(shard, c->ids[half][i], index, term);
        if (n < c->n[half] / 2 + 1)
            return false;
    }
    return true;
}

/* By the configuration that the core has now, or had when its poll began: it may have changed after the commit. */
static bool is_committed_by(const struct sim_host *h, uint64_t shard, const struct raft *core)
{
    uint64_t term = raft_log_term(&core->log, core->log.commit);
    struct config now;

    config_of(core, &now);
    return majority_has(&now, shard, core->log.commit, term) ||
           majority_has(&views[h->id][shard].config, shard, core->log.commit, term);
}

/* `term_at` is what the replica that says so has in its log. */
static void committed(const struct sim_host *h, uint64_t shard, uint64_t index, uint64_t commit_term,
                      uint64_t (*term_at)(const void *log, uint64_t index), const void *log)
{
    struct shard_log *s = &shards[shard];
    uint64_t term = term_at(log, index);
    uint32_t n = disks_count(shard, index, has_term, &term);

    if (!sim.options.churn && n < quorum())
        sim_fail("shard %" PRIu64 ": host %u takes index %" PRIu64 " (term %" PRIu64 ") for committed, but it is synced on %u "
                 "disks of %u only",
                 shard, h->id + 1, index, term, n, sim.options.n_hosts);
    array_reserve((void **)&s->commits, &s->cap_commits, index + 1, sizeof *s->commits);
    for (uint64_t i = s->committed + 1; i <= index; i++)
        s->commits[i] = (struct commit){term_at(log, i), commit_term};
    s->committed = index;
    sim.coverage.commits++;
}

/* The log from `first` on. */
static void complete(const struct sim_host *h, uint64_t shard, uint64_t leader_term, uint64_t first,
                     uint64_t (*term_at)(const void *log, uint64_t index), const void *log)
{
    const struct shard_log *s = &shards[shard];

    for (uint64_t i = 1; i <= s->committed; i++)
        if (i >= first && s->commits[i].commit_term < leader_term && term_at(log, i) != s->commits[i].term)
            sim_fail("shard %" PRIu64 ": replica %u leads term %" PRIu64 " without index %" PRIu64 ", committed by term %" PRIu64,
                     shard, h->id + 1, leader_term, i, s->commits[i].commit_term);
}

static uint64_t core_term_at(const void *log, uint64_t index)
{
    return raft_log_term(log, index);
}

static void check_core(const struct sim_host *h, uint64_t shard, const struct raft *core)
{
    struct member_view *view = &views[h->id][shard];
    const char *clause;

    if (!raft_check(core, &clause))
        sim_fail("shard %" PRIu64 " host %u: the core breaks its invariant: %s", shard, h->id + 1, clause);
    if (core->log.commit > shards[shard].committed) {
        if (core->role == RAFT_LEADER && !is_committed_by(h, shard, core))
            sim_fail("shard %" PRIu64 ": host %u commits index %" PRIu64 " without a majority of its configuration", shard,
                     h->id + 1, core->log.commit);
        committed(h, shard, core->log.commit, core->term, core_term_at, &core->log);
    }
    if (core->role == RAFT_LEADER && view->led_term != core->term) {
        view->led_term = core->term;
        oracle_leader(shard, core->term, core->options.replica_id);
        complete(h, shard, core->term, core->log.first, core_term_at, &core->log);
    }
    sim.coverage.quiet += core->quiesced && !view->quiet;
    sim.coverage.woken += !core->quiesced && view->quiet;
    view->quiet = core->quiesced;
    sim.coverage.leases += raft_holds_lease(core) && !view->lease;
    view->lease = raft_holds_lease(core);
    sim.coverage.joint_entered += core->joint && !view->config.joint;
    sim.coverage.joint_left += !core->joint && view->config.joint;
    config_of(core, &view->config);
}

void disks_after_poll(const struct sim_host *h)
{
    for (uint64_t shard = 1; shard <= sim.options.n_shards; shard++) {
        const struct raft *core = host_core(h, shard);

        check_hard_state(h, shard);
        if (core)
            check_core(h, shard, core);
        else
            views[h->id][shard].quiet = false;
    }
}

/* A step worker that applies itself does so before its poll is over. */
void disks_before_update(const struct sim_host *h, uint64_t shard)
{
    const struct raft *core = host_core(h, shard);

    if (core && core->log.commit > shards[shard].committed)
        check_core(h, shard, core);
}

/* ---- whole logs ---- */

static int copy_records(void *ctx, const uint8_t *records, size_t size_bytes, struct nh_error *err)
{
    struct log_copy *l = ctx;

    (void)err;
    for (const uint8_t *p = records; p < records + size_bytes; p += nh_record_bytes(p)) {
        array_reserve((void **)&l->entries, &l->cap, l->n + 1, sizeof *l->entries);
        if (l->n == 0)
            l->first = nh_record_index(p);
        /* A witness has the entry without its payload. */
        l->entries[l->n++] = (struct log_entry){nh_record_term(p), nh_record_type(p) == NH_ENTRY_METADATA ? 0 : nh_load_u32(p)};
    }
    return NH_OK;
}

static void copy_log(uint32_t host, uint64_t shard, struct log_copy *ret)
{
    struct nh_entry_sink sink = {copy_records, ret};
    struct nh_raft_state state = {.first_index = 1};

    *ret = (struct log_copy){.first = 1};
    if (memory_disk_read_state(sim.hosts[host]->disk, shard, sim.hosts[host]->replica[shard], &state, NULL) < 0 ||
        state.last_index < state.first_index) {
        ret->first = state.first_index;
        return;
    }
    memory_disk_iterate(sim.hosts[host]->disk, shard, sim.hosts[host]->replica[shard], state.first_index, state.last_index + 1,
                        &sink, NULL);
}

/* NULL: it is not there. */
static const struct log_entry *entry_of(const struct log_copy *l, uint64_t index)
{
    return index >= l->first && index - l->first < l->n ? &l->entries[index - l->first] : NULL;
}

/* 0, or the index at which two logs differ below an index where their terms agree. */
static uint64_t find_mismatch(const struct log_copy *a, const struct log_copy *b)
{
    uint64_t last = a->first + a->n < b->first + b->n ? a->first + a->n - 1 : b->first + b->n - 1,
             first = a->first > b->first ? a->first : b->first;

    while (last >= first && entry_of(a, last)->term != entry_of(b, last)->term)
        last--;
    for (uint64_t i = first; i <= last; i++) {
        const struct log_entry *x = entry_of(a, i), *y = entry_of(b, i);

        if (x->term != y->term || (x->crc != y->crc && x->crc && y->crc))
            return i;
    }
    return 0;
}

static void check_matching(uint64_t shard, const struct log_copy *logs)
{
    for (uint32_t i = 0; i < sim.options.n_hosts; i++) {
        for (uint32_t k = 0; k < i; k++) {
            uint64_t index = find_mismatch(&logs[i], &logs[k]);

            if (index)
                sim_fail("shard %" PRIu64 ": the logs of hosts %u and %u differ at index %" PRIu64 " and agree later", shard,
                         k + 1, i + 1, index);
        }
    }
}

static bool holds(const struct log_copy *l, uint64_t index, uint64_t term)
{
    const struct log_entry *e = entry_of(l, index);

    return index < l->first || (e && e->term == term);
}

static void check_kept(uint64_t shard, const struct log_copy *logs)
{
    const struct shard_log *s = &shards[shard];

    if (sim.options.churn) /* on a majority of those who were members then; leader completeness says what follows from it */
        return;
    for (uint64_t index = 2; index <= s->committed; index++) {
        uint32_t n = 0;

        for (uint32_t i = 0; i < sim.options.n_hosts; i++)
            n += holds(&logs[i], index, s->commits[index].term);
        if (n < quorum())
            sim_fail("shard %" PRIu64 ": index %" PRIu64 " was committed, and lies on %u disks of %u only", shard, index, n,
                     sim.options.n_hosts);
    }
}

static void check_agreement(uint64_t shard)
{
    const struct shard_log *s = &shards[shard];

    for (uint32_t i = 0; i < sim.options.n_hosts; i++) {
        const struct raft *core = host_core(sim.hosts[i], shard);

        for (uint64_t index = core ? core->log.first : 1; core && index <= core->log.commit && index <= s->committed; index++)
            if (raft_log_term(&core->log, index) != s->commits[index].term)
                sim_fail("shard %" PRIu64 ": host %u takes another entry for committed at index %" PRIu64, shard, i + 1, index);
    }
}

/* Keeps the copy; counts a tail that was replaced. */
static void remember_log(struct member_view *view, const struct log_copy *now)
{
    uint64_t last = view->before.first + view->before.n - 1, last_now = now->first + now->n - 1;
    const struct log_entry *before, *after;

    last = last < last_now ? last : last_now;
    before = entry_of(&view->before, last);
    after = entry_of(now, last);
    sim.coverage.truncations += before && after && before->term != after->term;
    free(view->before.entries);
    view->before = *now;
}

void disks_check_all(void)
{
    for (uint64_t shard = 1; shard <= sim.options.n_shards; shard++) {
        struct log_copy logs[SIM_HOSTS_MAX];

        for (uint32_t i = 0; i < sim.options.n_hosts; i++)
            copy_log(i, shard, &logs[i]);
        check_matching(shard, logs);
        check_kept(shard, logs);
        check_agreement(shard);
        for (uint32_t i = 0; i < sim.options.n_hosts; i++)
            remember_log(&views[i][shard], &logs[i]);
    }
}

/* ---- self-test ---- */

static uint64_t always_one(const void *log, uint64_t index)
{
    (void)log;
    (void)index;
    return 1;
}

static uint64_t always_two(const void *log, uint64_t index)
{
    (void)log;
    (void)index;
    return 2;
}

static void save_all(uint64_t index, uint64_t term, uint32_t n_hosts)
{
    for (uint32_t i = 0; i < n_hosts; i++)
        self_test_save(i, index, term, index, (struct nh_state){.term = term});
}

static void term_falls(void)
{
    self_test_save(0, 1, 1, 1, (struct nh_state){.term = 5});
    disks_after_poll(sim.hosts[0]);
    self_test_save(0, 2, 1, 2, (struct nh_state){.term = 4});
    disks_after_poll(sim.hosts[0]);
}

static void vote_changes(void)
{
    self_test_save(0, 1, 1, 1, (struct nh_state){.term = 5, .vote = 2});
    disks_after_poll(sim.hosts[0]);
    self_test_save(0, 2, 1, 2, (struct nh_state){.term = 5, .vote = 3});
    disks_after_poll(sim.hosts[0]);
}

static void commit_beyond_the_log(void)
{
    self_test_save(0, 1, 1, 1, (struct nh_state){.term = 5, .commit = 2});
    disks_after_poll(sim.hosts[0]);
}

static void commit_on_a_minority(void)
{
    save_all(1, 1, 3);
    save_all(2, 1, 1);
    committed(sim.hosts[0], 1, 2, 1, always_one, NULL);
}

static void commit_of_another_term(void)
{
    save_all(1, 1, 3);
    save_all(2, 1, 3);
    committed(sim.hosts[0], 1, 2, 2, always_two, NULL);
}

static void commit_is_lost(void)
{
    save_all(1, 1, 3);
    save_all(2, 1, 2);
    committed(sim.hosts[0], 1, 2, 1, always_one, NULL);
    self_test_save(0, 2, 2, 9, (struct nh_state){.term = 2});
    disks_check_all();
}

static void leader_without_commit(void)
{
    save_all(1, 1, 3);
    save_all(2, 1, 3);
    committed(sim.hosts[0], 1, 2, 1, always_one, NULL);
    complete(sim.hosts[1], 1, 1, 1, always_two, NULL); /* the same term: nothing to say */
    complete(sim.hosts[1], 1, 3, 1, always_two, NULL);
}

static void logs_differ(void)
{
    save_all(1, 1, 3);
    self_test_save(0, 2, 1, 5, (struct nh_state){.term = 1});
    self_test_save(1, 2, 1, 6, (struct nh_state){.term = 1});
    disks_check_all();
}

static void send(uint32_t type, uint64_t term, uint64_t log_index)
{
    struct nh_message m = {.type = type, .shard_id = 1, .from = 1, .to = 3, .term = term, .log_index = log_index};

    self_test_save(0, 1, 1, 1, (struct nh_state){.term = 5, .vote = 2});
    disks_check_message(sim.hosts[0], &m);
}

static void send_unsaved_term(void)
{
    send(NH_MSG_REPLICATE_RESP, 5, 1); /* nothing wrong */
    send(NH_MSG_HEARTBEAT_RESP, 6, 0);
}

static void send_unsaved_vote(void)
{
    send(NH_MSG_REQUEST_VOTE_RESP, 4, 0); /* an old one, on its way since */
    send(NH_MSG_REQUEST_VOTE_RESP, 5, 0);
}

static void send_unsaved_candidacy(void)
{
    send(NH_MSG_REQUEST_VOTE, 5, 0);
}

static void send_unsaved_entries(void)
{
    send(NH_MSG_REPLICATE_RESP, 5, 2);
}

void disks_self_test(void)
{
    struct log_entry x[] = {{1, 10}, {2, 20}, {2, 30}}, y[] = {{1, 10}, {1, 21}, {2, 30}}, z[] = {{1, 10}, {1, 21}};
    struct log_copy a = {x, 3, 3, 1}, b = {y, 3, 3, 1}, c = {z, 2, 2, 1};

    if (find_mismatch(&a, &b) != 2 || find_mismatch(&a, &c) != 0 || find_mismatch(&a, &a) != 0)
        sim_fail("self-test: log matching");
    self_test_begin(3);
    self_test_expect("goes from term 5 back to 4", term_falls);
    self_test_expect("votes for 2 in term 5, and then for 3", vote_changes);
    self_test_expect("has commit index 2 and last entry 1", commit_beyond_the_log);
    self_test_expect("synced on 1 disks of 3 only", commit_on_a_minority);
    self_test_expect("synced on 0 disks of 3 only", commit_of_another_term);
    self_test_expect("was committed, and lies on 1 disks of 3 only", commit_is_lost);
    self_test_expect("leads term 3 without index 1", leader_without_commit);
    self_test_expect("differ at index 2 and agree later", logs_differ);
    self_test_expect("before its term is synced", send_unsaved_term);
    self_test_expect("before the vote is synced", send_unsaved_vote);
    self_test_expect("before the own vote is synced", send_unsaved_candidacy);
    self_test_expect("before the last entry is synced", send_unsaved_entries);
    self_test_end();
}
