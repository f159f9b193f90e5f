#include "engine/bootstrap.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/rsm/membership.h"
#include "raftio/codec.h"
#include "raftio/support/log.h"
#include "raftio/support/memory.h"
#include "raftio/support/plugin_status.h"

#define LOG_COMPONENT "bootstrap"

void bootstrap_result_deinit(struct bootstrap_result *b)
{
    nh_membership_deinit(&b->members);
    nh_snapshot_deinit(&b->snapshot);
    run_list_deinit(&b->first);
    free(b->spans);
    *b = (struct bootstrap_result){0};
}

/* ---- the bootstrap record ---- */

static int check_members(const struct engine_replica_config *c, struct nh_error *err)
{
    const struct nh_membership *m = c->initial;
    bool is_member = false;

    if (c->join && m && m->n_members > 0)
        return nh_error_set(err, NH_EINVAL, "a joining replica has no initial members");
    for (uint32_t i = 0; m && i < m->n_members; i++) {
        if (m->members[i].replica_id <= (i > 0 ? m->members[i - 1].replica_id : 0))
            return nh_error_set(err, NH_EINVAL, "members are not sorted by replica id, or one is 0 or doubled");
        if (m->members[i].address[0] == 0 || !memchr(m->members[i].address, 0, NH_ADDRESS_BYTES))
            return nh_error_set(err, NH_EINVAL, "member %" PRIu64 " has no address, or one that is too long",
                                m->members[i].replica_id);
        for (uint32_t j = 0; j < i; j++)
            if ((uint32_t)m->members[j].replica_id == (uint32_t)m->members[i].replica_id)
                return nh_error_set(err, NH_EINVAL, "members %" PRIu64 " and %" PRIu64 " have the same low 32 bits",
                                    m->members[j].replica_id, m->members[i].replica_id);
        is_member |= m->members[i].replica_id == c->replica_id;
    }
    if (m && m->n_members > NH_MEMBERS_MAX)
        return nh_error_set(err, NH_EINVAL, "%" PRIu32 " members, the limit is %u", m->n_members, NH_MEMBERS_MAX);
    if (m && m->n_members > 0 && !is_member)
        return nh_error_set(err, NH_EINVAL, "replica %" PRIu64 " is not among the initial members", c->replica_id);
    if (m && m->n_members > 0 && membership_refuse(m))
        return nh_error_set(err, NH_EINVAL, "initial members: %s", membership_refuse(m));
    return NH_OK;
}

/* "1@a:7101 2@b:7101", cut to fit. */
static const char *describe(const struct nh_membership *m, char *text, size_t cap)
{
    size_t at = 0;

    text[0] = 0;
    for (uint32_t i = 0; m && i < m->n_members && at < cap; i++)
        at += (size_t)snprintf(text + at, cap - at, "%s%" PRIu64 "@%s", i > 0 ? " " : "", m->members[i].replica_id,
                               m->members[i].address);
    return m && m->n_members > 0 ? text : "(none)";
}

/* ---- the machine in it ---- */

static const char *kind_name(uint32_t kind)
{
    static const char *const names[] = {"regular", "concurrent", "on-disk"};

    return kind < sizeof names / sizeof *names ? names[kind] : "unknown";
}

static const char *version_of(const struct nh_machine_ops *m)
{
    return m->version ? m->version : "";
}

/* The text of a record is read back strictly (raftio/codec.c), so nothing else may get there. */
static int check_machine_text(const char *what, const char *text, size_t cap, struct nh_error *err)
{
    if (strlen(text) >= cap)
        return nh_error_set(err, NH_EINVAL, "the machine's %s is longer than %zu characters", what, cap - 1);
    for (const char *p = text; *p; p++)
        if (*p < ' ' || *p > '~')
            return nh_error_set(err, NH_EINVAL, "the machine's %s has a character that is not printable ASCII", what);
    return NH_OK;
}

static int describe_machine(const struct engine_replica_config *c, struct nh_bootstrap *ret, struct nh_error *err)
{
    int r = check_machine_text("name", c->machine->name, sizeof ret->machine_type, err);

    if (r == NH_OK)
        r = check_machine_text("version", version_of(c->machine), sizeof ret->machine_version, err);
    if (r < 0)
        return r;
    strcpy(ret->machine_type, c->machine->name);
    strcpy(ret->machine_version, version_of(c->machine));
    ret->machine_kind = c->machine->kind;
    ret->machine_hash = c->machine_hash;
    return NH_OK;
}

/* Once per object and process: a host has thousands of replicas of one machine. */
static void warn_rebuilt(const struct engine_replica_config *c)
{
    static uint64_t warned = UINT64_MAX;

    if (__atomic_exchange_n(&warned, c->machine_hash, __ATOMIC_RELAXED) != c->machine_hash)
        LOG_WARN("machine \"%s\" %s is not the same shared object as at the last start (shard %" PRIu64
                 ", perhaps others): replicas that run different objects must compute the same",
                 c->machine->name, version_of(c->machine), c->shard_id);
}

/* A library that was built anew with the same version has another hash, and must be able to restart a host: that its results are
 * the same is what its author says by the version. So a hash alone stops only who asked for it. */
static int check_hash(const struct nh_bootstrap *stored, const struct engine_replica_config *c, struct nh_error *err)
{
    if (stored->machine_hash == 0 || stored->machine_hash == c->machine_hash)
        return NH_OK;
    if (!c->pin_machine) {
        warn_rebuilt(c);
        return NH_OK;
    }
    return nh_error_set(err, NH_EMISMATCH,
                        "ran machine \"%s\" %s with the hash %016" PRIx64 ", is to start with %016" PRIx64
                        ": give the former shared object, or do not pin the machine",
                        c->machine->name, version_of(c->machine), stored->machine_hash, c->machine_hash);
}

static int check_machine(const struct nh_bootstrap *stored, const struct engine_replica_config *c, struct nh_error *err)
{
    if (stored->machine_type[0] == 0)
        return NH_OK; /* an import was cut short */
    if (strcmp(stored->machine_type, c->machine->name) != 0)
        return nh_error_set(err, NH_EMISMATCH,
                            "was started with machine \"%s\", is to start with \"%s\": give the former, or use a new shard id",
                            stored->machine_type, c->machine->name);
    if (stored->machine_kind != NH_MACHINE_KIND_UNKNOWN && stored->machine_kind != c->machine->kind)
        return nh_error_set(err, NH_EMISMATCH,
                            "was started with machine \"%s\" as a %s one, now it is %s: give the former, or use a new shard id",
                            c->machine->name, kind_name(stored->machine_kind), kind_name(c->machine->kind));
    if (stored->machine_version[0] && strcmp(stored->machine_version, version_of(c->machine)) != 0)
        return nh_error_set(
            err, NH_EMISMATCH,
            "was started with version \"%s\" of machine \"%s\", is to start with version \"%s\", which applies its "
            "entries differently: give the former, or use a new shard id",
            stored->machine_version, c->machine->name, version_of(c->machine));
    return check_hash(stored, c, err);
}

/* ---- a record that is there ---- */

static int check_record(const struct nh_bootstrap *stored, const struct engine_replica_config *c, struct nh_error *err)
{
    char was[96], is[96];
    int r = check_machine(stored, c, err);

    if (r < 0)
        return r;
    if (stored->join != c->join && (c->join || (c->initial && c->initial->n_members > 0)))
        return nh_error_set(err, NH_EMISMATCH, "was started %s, is to start %s: restart it without members and without join",
                            stored->join ? "joining" : "with members", c->join ? "joining" : "with members");
    if (c->initial && c->initial->n_members > 0 && !nh_membership_equal(c->initial, &stored->initial))
        return nh_error_set(err, NH_EMISMATCH,
                            "was started with members %s, is to start with %s: give the former, or none at a restart",
                            describe(&stored->initial, was, sizeof was), describe(c->initial, is, sizeof is));
    return NH_OK;
}

static int save_record(const struct engine_config *e, const struct engine_replica_config *c, struct bootstrap_result *ret,
                       struct nh_error *err)
{
    struct nh_bootstrap b = {.join = c->join};
    int r;

    if (!c->join && (!c->initial || c->initial->n_members == 0))
        return nh_error_set(err, NH_EINVAL, "nothing is stored for it here: give the initial members, or join");
    r = describe_machine(c, &b, err);
    if (r < 0)
        return r;
    if (!c->join)
        nh_membership_copy(&b.initial, c->initial);
    r = e->logdb_ops->save_bootstrap(e->logdb, c->shard_id, c->replica_id, &b, err);
    r = plugin_status(r, "save_bootstrap", err);
    ret->members = b.initial;
    return r;
}

/* The record names the machine that runs here now: one of an earlier version of this library did not say as much. */
static int update_record(const struct engine_config *e, const struct engine_replica_config *c, struct nh_bootstrap *stored,
                         struct nh_error *err)
{
    struct nh_bootstrap now = *stored;
    int r = describe_machine(c, &now, err);

    if (r < 0 || (strcmp(now.machine_type, stored->machine_type) == 0 && now.machine_kind == stored->machine_kind &&
                  strcmp(now.machine_version, stored->machine_version) == 0 && now.machine_hash == stored->machine_hash))
        return r;
    r = e->logdb_ops->save_bootstrap(e->logdb, c->shard_id, c->replica_id, &now, err);
    return plugin_status(r, "save_bootstrap", err);
}

static int load_record(const struct engine_config *e, const struct engine_replica_config *c, struct bootstrap_result *ret,
                       struct nh_error *err)
{
    struct nh_bootstrap stored = {0};
    struct nh_error cause = {0};
    int r = e->logdb_ops->get_bootstrap(e->logdb, c->shard_id, c->replica_id, &stored, &cause);

    r = plugin_found(r, "get_bootstrap", &cause, err);
    if (r == NH_ENOTFOUND)
        return save_record(e, c, ret, err);
    if (r < 0)
        return r;
    r = check_record(&stored, c, err);
    if (r == NH_OK)
        r = update_record(e, c, &stored, err);
    ret->members = stored.initial;
    return r;
}

/* ---- the first entry ---- */

/* The voters of a new shard agree without a word on who stands first: leaders are there soon, and evenly spread over hosts. */
static bool stands_first(const struct nh_membership *m, const struct engine_replica_config *c)
{
    uint64_t n_voters = 0, place = 0;

    for (uint32_t i = 0; i < m->n_members; i++)
        n_voters += m->members[i].kind == NH_MEMBER_VOTER;
    for (uint32_t i = 0; i < m->n_members; i++)
        if (m->members[i].kind == NH_MEMBER_VOTER && place++ == c->shard_id % n_voters)
            return m->members[i].replica_id == c->replica_id;
    return false;
}

static void make_first_entry(struct bootstrap_result *b)
{
    struct nh_config_change change = {.type = NH_CONFIG_INITIALIZE, .initial = b->members};
    size_t size = config_change_encode(&change, NULL, 0);
    uint8_t *payload = xmalloc(size);
    struct block_builder builder = {0};
    struct nh_block *block;

    config_change_encode(&change, payload, size);
    block_builder_add(&builder, &(struct block_record){.type = NH_ENTRY_CONFIG_CHANGE,
                                                       .payload = payload,
                                                       .payload_bytes = (uint32_t)size});
    block = block_seal(&builder, 1, 1);
    run_list_add(&b->first, block, 0, 1);
    nh_block_unref(block);
    free(payload);
    b->boot.state = (struct nh_state){.term = 1, .commit = 1};
    b->boot.first_index = b->boot.last_index = 1;
    b->spans = xcalloc(1, sizeof *b->spans);
    b->spans[0] = (struct raft_term_span){.first_index = 1, .term = 1};
    b->boot.n_spans = 1;
    b->save_first = true;
}

/* ---- the stored log ---- */

/* Read at once where a term begins: what follows often has another one already. */
#define PROBE_BYTES 4096u

/* What was seen of the terms from `first` on. */
struct term_probe {
    uint64_t first, term; /* term 0: nothing was seen */
    uint64_t end;         /* [first, end] have that term */
    uint64_t next_term;   /* of end + 1; 0: not seen */
};

static int see_terms(void *ctx, const uint8_t *records, size_t size_bytes, struct nh_error *err)
{
    struct term_probe *probe = ctx;

    for (const uint8_t *p = records, *end = records + size_bytes; p < end && !probe->next_term; p += nh_record_bytes(p)) {
        uint64_t index = probe->term ? probe->end + 1 : probe->first;

        if ((size_t)(end - p) < NH_RECORD_HEADER_BYTES || nh_record_index(p) != index || nh_record_term(p) == 0)
            return nh_error_set(err, NH_ECORRUPT, "entry %" PRIu64 " is not what is stored there", index);
        if (probe->term && nh_record_term(p) != probe->term) {
            probe->next_term = nh_record_term(p);
            continue;
        }
        probe->term = nh_record_term(p);
        probe->end = index;
    }
    return NH_OK;
}

/* Reads from `first` on, up to `last` or as much as lies together. */
static int probe_terms(const struct engine_config *e, struct nh_replica_info id, uint64_t first, uint64_t last,
                       struct term_probe *ret, struct nh_error *err)
{
    struct nh_entry_sink sink = {.add = see_terms, .ctx = ret};
    int r;

    *ret = (struct term_probe){.first = first};
    r = e->logdb_ops->iterate_entries(e->logdb, id.shard_id, id.replica_id, first, last + 1, PROBE_BYTES, &sink, err);
    r = plugin_status(r, "iterate_entries", err);
    if (r == NH_OK && !ret->term)
        r = nh_error_set(err, NH_ECORRUPT, "entry %" PRIu64 " is missing", first);
    if (r == NH_OK && ret->next_term && ret->next_term < ret->term)
        r = nh_error_set(err, NH_ECORRUPT, "term %" PRIu64 " at index %" PRIu64 " is below an earlier one", ret->next_term,
                         ret->end + 1);
    return r;
}

/* Moves the probe's end to the last index of its term, which is below `last`: terms never fall, so it can be searched. In steps
 * that double first, as most terms are short or the last one. */
static int find_span_end(const struct engine_config *e, struct nh_replica_info id, struct term_probe *probe, uint64_t last,
                         struct nh_error *err)
{
    uint64_t high = last, step = probe->end - probe->first + 1; /* the end is in [probe->end, high] */

    while (probe->end < high && !probe->next_term) {
        uint64_t middle = high - (high - probe->end) / 2, at = middle - probe->end > step ? probe->end + step : middle;
        struct term_probe next;
        int r = probe_terms(e, id, at, last, &next, err);

        if (r < 0)
            return r;
        if (next.term < probe->term)
            return nh_error_set(err, NH_ECORRUPT, "term %" PRIu64 " at index %" PRIu64 " is below an earlier one", next.term, at);
        if (next.term == probe->term) {
            probe->end = next.end;
            probe->next_term = next.next_term;
            step *= 2;
        } else {
            high = at - 1;
        }
    }
    return NH_OK;
}

static int find_spans(const struct engine_config *e, struct nh_replica_info id, struct bootstrap_result *b, struct nh_error *err)
{
    uint64_t first = b->boot.first_index, last = b->boot.last_index;
    struct term_probe probe = {0}, of_last = {0};
    size_t n = 0, cap = 0;
    int r = first <= last ? probe_terms(e, id, last, last, &of_last, err) : NH_OK;

    for (; r == NH_OK && first <= last; first = probe.end + 1, n++) {
        if (n >= BOOTSTRAP_SPANS_MAX)
            return nh_error_set(err, NH_ECORRUPT, "the log has more than %u terms", BOOTSTRAP_SPANS_MAX);
        if (probe.next_term == of_last.term)
            probe = of_last;
        else
            r = probe_terms(e, id, first, last, &probe, err);
        if (r == NH_OK && probe.term == of_last.term)
            probe.end = last;
        else if (r == NH_OK)
            r = find_span_end(e, id, &probe, last, err);
        if (r < 0)
            break;
        array_reserve((void **)&b->spans, &cap, n + 1, sizeof *b->spans);
        b->spans[n] = (struct raft_term_span){.first_index = first, .term = probe.term};
    }
    b->boot.n_spans = (uint32_t)n;
    return r;
}

/* Read at most, for configuration changes. A save holds the commit index with its entries, so what lies above it was under way.
 */
#define CHANGES_BYTES (4u << 20)

struct change_search {
    uint64_t next, found; /* found 0: none */
};

static int see_changes(void *ctx, const uint8_t *records, size_t size_bytes, struct nh_error *err)
{
    struct change_search *s = ctx;

    for (const uint8_t *p = records, *end = records + size_bytes; p < end; p += nh_record_bytes(p), s->next++) {
        if ((size_t)(end - p) < NH_RECORD_HEADER_BYTES || nh_record_index(p) != s->next)
            return nh_error_set(err, NH_ECORRUPT, "entry %" PRIu64 " is not what is stored there", s->next);
        if (nh_record_type(p) == NH_ENTRY_CONFIG_CHANGE)
            s->found = s->next;
    }
    return NH_OK;
}

/* Above which index no configuration change lies. A voter and a witness alone can commit all but changes, so the core should know
 * where there are none. What is too much to be read, or damaged (whoever applies it will say so), may hold any. */
static int find_config_bound(const struct engine_config *e, struct nh_replica_info id, struct bootstrap_result *b,
                             struct nh_error *err)
{
    uint64_t commit = b->boot.state.commit, last = b->boot.last_index;
    struct change_search search = {.next = commit + 1};
    struct nh_entry_sink sink = {.add = see_changes, .ctx = &search};
    int r;

    b->boot.config_bound = last;
    if (commit >= last)
        return NH_OK;
    r = e->logdb_ops->iterate_entries(e->logdb, id.shard_id, id.replica_id, commit + 1, last + 1, CHANGES_BYTES, &sink, err);
    r = plugin_status(r, "iterate_entries", err);
    if (r == NH_OK && search.next == last + 1)
        b->boot.config_bound = search.found ? search.found : commit;
    return r == NH_ECORRUPT ? NH_OK : r;
}

/* The log must begin where the snapshot ends, or before; and reach it (I13). */
static int check_gap(const struct bootstrap_result *b, struct nh_error *err)
{
    uint64_t index = b->snapshot.index, first = b->boot.first_index, last = b->boot.last_index;

    if (first <= index + 1 && last >= index)
        return NH_OK;
    return nh_error_set(err, NH_ECORRUPT,
                        "the snapshot ends at index %" PRIu64 ", the log holds %" PRIu64 " to %" PRIu64
                        ": something is missing between them; remove the data of this replica and let it join anew",
                        index, first, last);
}

/* It voted for itself in a term that has entries: a leader begins with one. Or it lost to who wrote them, and will hear of that.
 * Who only stood does not count: a host that dies whenever it is about to lead must not stand before all others each time. */
static bool led_last(const struct bootstrap_result *b, uint64_t replica_id)
{
    uint64_t n = b->boot.n_spans, last_term = n > 0 ? b->spans[n - 1].term : b->snapshot.term;

    return b->boot.state.vote == replica_id && b->boot.state.term == last_term;
}

static int load_log(const struct engine_config *e, const struct engine_replica_config *c, struct bootstrap_result *b,
                    struct nh_error *err)
{
    struct nh_replica_info id = {c->shard_id, c->replica_id};
    struct nh_error cause = {0};
    struct nh_raft_state stored;
    int r = e->logdb_ops->read_raft_state(e->logdb, c->shard_id, c->replica_id, &stored, &cause);

    r = plugin_found(r, "read_raft_state", &cause, err);
    if (r == NH_ENOTFOUND && b->snapshot.index > 0)
        return nh_error_set(err, NH_ECORRUPT, "there is a snapshot at index %" PRIu64 ", but no log", b->snapshot.index);
    if (r == NH_ENOTFOUND) {
        b->boot.first_index = 1;
        b->boot.stand_early = stands_first(&b->members, c);
        if (b->members.n_members > 0)
            make_first_entry(b);
        return NH_OK;
    }
    if (r < 0)
        return r;
    b->boot.state = stored.state;
    b->boot.first_index = stored.first_index;
    b->boot.last_index = stored.last_index;
    r = check_gap(b, err);
    if (r == NH_OK)
        r = find_spans(e, id, b, err);
    if (r == NH_OK)
        b->boot.stand_early = c->check_quorum && led_last(b, c->replica_id);
    return r;
}

/* What the snapshot holds is applied and committed, and its last entry's term is known. */
static void begin_at_snapshot(struct bootstrap_result *b)
{
    const struct nh_snapshot *s = &b->snapshot;

    nh_membership_deinit(&b->members);
    nh_membership_copy(&b->members, &s->membership);
    b->boot.snapshot = s;
    b->boot.applied = s->index;
    if (b->boot.state.commit < s->index)
        b->boot.state.commit = s->index; /* a commit index is not saved each time */
    if (b->boot.first_index == s->index + 1)
        b->boot.anchor_term = s->term;
}

int bootstrap_replica(const struct engine_config *engine, const struct engine_replica_config *config,
                      struct bootstrap_result *ret, struct nh_error *err)
{
    int r = check_members(config, err);

    *ret = (struct bootstrap_result){0};
    if (r == NH_OK)
        r = load_record(engine, config, ret, err);
    if (r == NH_OK)
        r = engine->logdb_ops->get_snapshot(engine->logdb, config->shard_id, config->replica_id, &ret->snapshot, err);
    r = plugin_status(r, "get_snapshot", err);
    if (r == NH_OK)
        r = load_log(engine, config, ret, err);
    if (r == NH_OK && ret->snapshot.index > 0)
        begin_at_snapshot(ret);
    if (r == NH_OK)
        r = find_config_bound(engine, (struct nh_replica_info){config->shard_id, config->replica_id}, ret, err);
    if (r < 0) {
        bootstrap_result_deinit(ret);
        return r;
    }
    ret->boot.spans = ret->spans;
    ret->boot.membership = &ret->members;
    return NH_OK;
}
