/* The commands of a script: one function each, and the table at the end. A new one needs both, and a line in
 * tests/sim/scenarios/README.md. */
#include "tests/sim/scenario_commands.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/raft/describe.h"
#include "engine/raft/raft_internal.h"
#include "raftio/support/memory.h"

/* ---- time and life ---- */

static void tick_set(struct scenario *s, uint32_t set)
{
    for (uint64_t id = 1; id < SCENARIO_NODES && !s->error[0]; id++)
        if (set >> id & 1u)
            scenario_tick(s, &s->nodes[id]);
}

static void tick(struct args *a)
{
    uint32_t set = args_nodes(a, NULL);
    const char *n = args_next(a);

    for (uint64_t left = n ? args_to_number(a, n) : 1; left > 0 && !a->s->error[0]; left--)
        tick_set(a->s, set);
}

static void deliver_until_quiet(struct scenario *s, uint32_t set)
{
    struct scenario_filter f = {.type = NH_MSG_TYPE_COUNT, .n = UINT64_MAX, .nodes = set};

    for (uint32_t rounds = 0; !s->error[0] && scenario_deliver(s, &f) > 0; rounds++)
        if (rounds == 1000)
            scenario_fail(s, "it never comes to rest");
}

static void run(struct args *a)
{
    const char *n = args_next(a);

    for (uint64_t left = n ? args_to_number(a, n) : 1; left > 0 && !a->s->error[0]; left--) {
        tick_set(a->s, UINT32_MAX & ~1u);
        deliver_until_quiet(a->s, UINT32_MAX);
    }
}

static void set_timeout(struct args *a)
{
    struct scenario_node *node = args_running(a);
    uint64_t ticks = args_to_number(a, args_need(a, "the number of ticks"));

    if (node && ticks >= 2 * (uint64_t)node->options.election_ticks)
        MISUSED(a, "a timeout is below twice the election ticks");
    if (!node || a->s->error[0])
        return;
    node->core->election_since = node->core->now;
    node->core->election_timeout = ticks;
}

static void crash(struct args *a)
{
    struct scenario_node *node = args_running(a);

    if (node)
        scenario_crash(node);
}

static void restart(struct args *a)
{
    struct scenario_node *node = args_node(a);

    if (node->core)
        MISUSED(a, "node %" PRIu64 " runs", node->id);
    else if (!a->s->error[0])
        scenario_start(a->s, node);
}

/* ---- events ---- */

static void event_of_type(struct args *a, enum raft_event_type type)
{
    struct scenario_node *node = args_running(a);
    struct raft_event ev = {.type = type};

    if (node)
        scenario_step(a->s, node, &ev);
}

static void campaign(struct args *a)
{
    event_of_type(a, RAFT_EV_CAMPAIGN);
}

static void wake(struct args *a)
{
    event_of_type(a, RAFT_EV_WAKE);
}

static void unreachable(struct args *a)
{
    struct scenario_node *node = args_running(a);
    struct raft_event ev = {.type = RAFT_EV_UNREACHABLE, .peer = args_node(a)->id};

    if (node && !a->s->error[0])
        scenario_step(a->s, node, &ev);
}

static void propose(struct args *a)
{
    struct scenario_node *node = args_running(a);
    struct block_builder b = {0};
    struct raft_event ev = {.type = RAFT_EV_PROPOSE, .propose = {.records = &b, .first_key = a->s->next_key}};

    for (const char *payload = node ? args_need(a, "a payload") : NULL; payload; payload = args_next(a)) {
        struct block_record rec = {.origin = (uint32_t)node->id,
                                   .key = a->s->next_key++,
                                   .payload = payload,
                                   .payload_bytes = (uint32_t)strlen(payload)};

        if (block_builder_add(&b, &rec) < 0)
            MISUSED(a, "the payload is too large");
    }
    ev.propose.n_keys = b.n;
    if (!a->s->error[0])
        scenario_step(a->s, node, &ev);
    block_builder_deinit(&b);
}

static void read_index(struct args *a)
{
    struct scenario_node *node = args_running(a);
    struct raft_event ev = {.type = RAFT_EV_READ};

    if (!node)
        return;
    ev.read.low = a->s->next_read++;
    ev.read.high = node->id;
    *RAFT_PUSH(&a->s->asked) = (struct raft_read){ev.read.low, ev.read.high, a->s->committed.n};
    scenario_step(a->s, node, &ev);
}

/* ---- saves and applications ---- */

static bool is_saves(struct args *a)
{
    const char *what = args_need(a, "'saves' or 'applies'");

    if (strcmp(what, "saves") != 0 && strcmp(what, "applies") != 0)
        MISUSED(a, "only saves and applies can be held");
    return strcmp(what, "saves") == 0;
}

static void hold(struct args *a)
{
    bool saves = is_saves(a);
    uint32_t set = args_nodes(a, NULL);

    for (uint64_t id = 1; id < SCENARIO_NODES; id++) {
        if (!(set >> id & 1u))
            continue;
        if (saves)
            a->s->nodes[id].hold_saves = true;
        else
            a->s->nodes[id].hold_applies = true;
    }
}

static void release_node(struct scenario *s, struct scenario_node *node, bool saves, uint64_t n)
{
    if (saves) {
        scenario_release_saves(s, node, n);
        node->hold_saves = n != UINT64_MAX;
    } else {
        scenario_apply(s, node, n);
        node->hold_applies = n != UINT64_MAX;
    }
}

/* With n= the others stay held. */
static void release(struct args *a)
{
    uint64_t n = args_number(a, "n", UINT64_MAX);
    bool saves = is_saves(a);
    uint32_t set = args_nodes(a, NULL);

    for (uint64_t id = 1; id < SCENARIO_NODES && !a->s->error[0]; id++)
        if (set >> id & 1u)
            release_node(a->s, &a->s->nodes[id], saves, n);
}

/* ---- messages ---- */

static void stabilize(struct args *a)
{
    uint32_t set = args_nodes(a, "all");

    if (!a->s->error[0])
        deliver_until_quiet(a->s, set);
}

/* A script that means a message which is not there shows something else than it says. */
static void need_match(struct args *a, uint64_t (*action)(struct scenario *s, const struct scenario_filter *f))
{
    struct scenario_filter f = args_filter(a);

    if (!a->s->error[0] && action(a->s, &f) == 0)
        scenario_fail(a->s, "no such message");
}

static void deliver(struct args *a)
{
    need_match(a, scenario_deliver);
}

static void drop(struct args *a)
{
    need_match(a, scenario_drop);
}

static void duplicate(struct args *a)
{
    need_match(a, scenario_duplicate);
}

static void delay(struct args *a)
{
    need_match(a, scenario_delay);
}

static void resume(struct args *a)
{
    scenario_resume(a->s);
}

static void add_entry(struct args *a, uint64_t term, void *ctx)
{
    struct nh_message *m = ctx;
    uint64_t index = m->n_runs ? nh_run_last(&m->runs[m->n_runs - 1]) + 1 : m->log_index + 1;

    if (term == 0 || index == 0) {
        MISUSED(a, "terms and indexes of entries are above 0");
        return;
    }
    m->runs = xrealloc(m->runs, (m->n_runs + 1) * sizeof *m->runs);
    m->runs[m->n_runs++] = (struct nh_run){scenario_block(term, index), 0, 1};
}

/* A message that nobody sent, or that was sent in a time before the script. */
static void inject(struct args *a)
{
    struct scenario_filter f = args_filter(a);
    const char *entries = args_named(a, "entries");
    struct nh_message m = {.type = f.type,
                           .shard_id = SCENARIO_SHARD,
                           .from = f.from,
                           .to = f.to,
                           .reject = args_flag(a, "reject"),
                           .term = args_number(a, "term", 0),
                           .commit = args_number(a, "commit", 0),
                           .hint = args_number(a, "hint", 0),
                           .hint_high = args_number(a, "hint_high", 0)};

    args_position(a, "log", &m.log_index, &m.log_term);
    if (m.type == NH_MSG_TYPE_COUNT || m.from >= SCENARIO_NODES || m.to >= SCENARIO_NODES || !a->s->nodes[m.from].id ||
        !a->s->nodes[m.to].id)
        MISUSED(a, "a message needs a type and the nodes from= and to=");
    if (entries && !a->s->error[0])
        args_each_number(a, entries, add_entry, &m);
    if (a->s->error[0]) {
        nh_message_deinit(&m);
        return;
    }
    scenario_print_message(a->s, "  inject ", &m);
    *RAFT_PUSH(&a->s->bag) = m;
}

static void bag(struct args *a)
{
    for (size_t i = 0; i < a->s->bag.n; i++)
        scenario_print_message(a->s, "", &a->s->bag.items[i]);
}

static void set_links(struct args *a, bool cut)
{
    uint32_t left = args_nodes(a, NULL), right = args_nodes(a, NULL);

    for (uint64_t x = 1; x < SCENARIO_NODES; x++)
        for (uint64_t y = 1; y < SCENARIO_NODES; y++)
            if ((left >> x & 1u) && (right >> y & 1u) && x != y)
                a->s->cut[x][y] = a->s->cut[y][x] = cut;
}

static void cut(struct args *a)
{
    set_links(a, true);
}

static void heal(struct args *a)
{
    if (a->n > 0)
        set_links(a, false);
    else
        memset(a->s->cut, 0, sizeof a->s->cut);
}

/* ---- looking ---- */

static void print_status(struct scenario *s, const struct scenario_node *node)
{
    struct raft_peer_status peers[SCENARIO_NODES];
    struct raft_status st;
    char text[512];
    size_t n;

    if (!node->core) {
        scenario_print(s, "%" PRIu64 ": down\n", node->id);
        return;
    }
    raft_get_status(node->core, &st);
    raft_describe_status(&st, text, sizeof text);
    scenario_print(s, "%" PRIu64 ": %s\n", node->id, text);
    n = raft_get_peers(node->core, peers, SCENARIO_NODES);
    for (size_t i = 0; i < n; i++) {
        raft_describe_peer(&peers[i], text, sizeof text);
        scenario_print(s, "   %s\n", text);
    }
}

static void status(struct args *a)
{
    uint32_t set = args_nodes(a, "all");

    for (uint64_t id = 1; id < SCENARIO_NODES; id++)
        if (set >> id & 1u)
            print_status(a->s, &a->s->nodes[id]);
}

static void log_of(struct args *a)
{
    uint32_t set = args_nodes(a, "all");

    for (uint64_t id = 1; id < SCENARIO_NODES; id++) {
        struct scenario_entry e;

        if (!(set >> id & 1u))
            continue;
        scenario_print(a->s, "%" PRIu64 ":", id);
        if (scenario_first(&a->s->nodes[id]) > 1)
            scenario_print(a->s, " (after %" PRIu64 ")", scenario_first(&a->s->nodes[id]) - 1);
        for (uint64_t i = scenario_first(&a->s->nodes[id]); scenario_entry(&a->s->nodes[id], i, &e); i++) {
            struct nh_entry_view view;
            char text[128];

            nh_record_view(e.block->data + e.block->offsets[e.at], &view);
            raft_describe_entry(&view, text, sizeof text);
            scenario_print(a->s, " %s", text);
        }
        scenario_print(a->s, "\n");
    }
}

static void trace(struct args *a)
{
    const char *word = args_need(a, "on or off");

    if (strcmp(word, "on") != 0 && strcmp(word, "off") != 0)
        MISUSED(a, "a trace is on or off");
    a->s->trace = strcmp(word, "on") == 0;
}

/* ---- the table ---- */

static const struct {
    const char *name;
    void (*run)(struct args *a);
    const char *usage;
} commands[] = {
    {"bag", bag, ""},
    {"campaign", campaign, "NODE"},
    {"change", command_change, "NODE add|remove|address|many ..."},
    {"cluster", command_cluster, "voters=IDS [non_voting=IDS] [witness=IDS] [OPTION...]"},
    {"compact", command_compact, "NODE [INDEX]"},
    {"crash", crash, "NODE"},
    {"cut", cut, "NODES NODES"},
    {"delay", delay, "[from=ID] [to=ID] [type=TYPE] [n=N]"},
    {"deliver", deliver, "[from=ID] [to=ID] [type=TYPE] [n=N]"},
    {"drop", drop, "[from=ID] [to=ID] [type=TYPE] [n=N]"},
    {"duplicate", duplicate, "[from=ID] [to=ID] [type=TYPE] [n=N]"},
    {"forget", command_forget, "NODE"},
    {"heal", heal, "[NODES NODES]"},
    {"hold", hold, "saves|applies NODES"},
    {"inject", inject,
     "from=ID to=ID type=TYPE term=N [log=INDEX/TERM] [entries=TERMS] [commit=N] [hint=N] [hint_high=N] [reject]"},
    {"join", command_join, "ID"},
    {"leave", command_leave, "NODE"},
    {"log", command_log, "NODE [TERMS]"},
    {"log-of", log_of, "[NODES]"},
    {"options", command_options, "NODE OPTION..."},
    {"propose", propose, "NODE PAYLOAD..."},
    {"read", read_index, "NODE"},
    {"release", release, "saves|applies NODES [n=N]"},
    {"restart", restart, "NODE"},
    {"resume", resume, ""},
    {"run", run, "[TICKS]"},
    {"snapshot-status", command_snapshot_status, "NODE PEER failed|arrived"},
    {"stabilize", stabilize, "[NODES]"},
    {"state", command_state, "NODE [term=N] [vote=ID] [commit=N]"},
    {"status", status, "[NODES]"},
    {"tick", tick, "NODES [TICKS]"},
    {"timeout", set_timeout, "NODE TICKS"},
    {"trace", trace, "on|off"},
    {"transfer", command_transfer, "NODE TARGET"},
    {"unreachable", unreachable, "NODE PEER"},
    {"wake", wake, "NODE"},
};

static void explain(struct scenario *s, const char *name, const char *usage)
{
    char why[sizeof s->error];

    snprintf(why, sizeof why, "%s", s->error);
    snprintf(s->error, sizeof s->error, "%s: %.200s (usage: %s %s)", name, why, name, usage);
}

void scenario_command(struct scenario *s, const char *line)
{
    char copy[1024];
    char *rest = copy, *name;
    struct args a = {.s = s};

    if (strlen(line) >= sizeof copy) {
        scenario_fail(s, "a command has less than %zu bytes", sizeof copy);
        return;
    }
    strcpy(copy, line);
    name = strsep(&rest, " \t");
    if (rest)
        args_split(&a, rest);
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        if (strcmp(commands[i].name, name) != 0)
            continue;
        if (!s->error[0])
            commands[i].run(&a);
        for (uint32_t k = 0; k < a.n && !s->error[0]; k++)
            if (!a.used[k])
                MISUSED(&a, "'%s' means nothing here", a.words[k]);
        if (a.misused)
            explain(s, name, commands[i].usage);
        return;
    }
    scenario_fail(s, "there is no command '%s'", name);
}
