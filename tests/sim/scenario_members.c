/* The commands about members, snapshots and leadership. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "raftio/codec.h"
#include "raftio/support/memory.h"
#include "tests/sim/scenario_commands.h"

/* ---- changes ---- */

static void propose_change(struct args *a, struct scenario_node *node, const struct nh_config_change *change)
{
    uint8_t payload[4096];
    struct block_builder b = {0};
    struct block_record rec = {.type = NH_ENTRY_CONFIG_CHANGE,
                               .origin = (uint32_t)node->id,
                               .key = a->s->next_key++,
                               .payload = payload,
                               .payload_bytes = (uint32_t)config_change_encode(change, payload, sizeof payload)};
    struct raft_event ev = {.type = RAFT_EV_PROPOSE, .propose = {.records = &b, .first_key = rec.key, .n_keys = 1}};

    if (rec.payload_bytes > sizeof payload || block_builder_add(&b, &rec) < 0)
        MISUSED(a, "the change is too long");
    else
        scenario_step(a->s, node, &ev);
    block_builder_deinit(&b);
}

static uint32_t read_kind(struct args *a)
{
    static const char *const names[] = {"voter", "non_voting", "witness"};
    const char *word = args_need(a, "voter, non_voting or witness");

    for (uint32_t i = 0; i < 3; i++)
        if (strcmp(word, names[i]) == 0)
            return i;
    MISUSED(a, "there is no kind '%s'", word);
    return 0;
}

/* +v4: add a voter; n3: make 3 non-voting; -1: remove. */
static void read_one(struct args *a, const char *word, struct nh_member_change *ret)
{
    bool add = *word != '-';
    uint32_t kind = NH_MEMBER_VOTER;

    word += *word == '+' || *word == '-';
    if (add) {
        const char *kinds = "vnw", *at = *word ? strchr(kinds, *word) : NULL;

        if (!at)
            MISUSED(a, "'%s' is no change: +v4, +n4, +w4, -4", word);
        kind = at ? (uint32_t)(at - kinds) : 0;
        word += at != NULL;
    }
    *ret = (struct nh_member_change){.type = add ? NH_CONFIG_ADD_MEMBER : NH_CONFIG_REMOVE_MEMBER};
    if (!a->s->error[0])
        ret->member = scenario_member(args_to_number(a, word), kind);
}

static void read_many(struct args *a, struct nh_config_change *change)
{
    static const char *const names[] = {"auto", "implicit", "explicit"};
    const char *transition = args_need(a, "auto, implicit or explicit"), *word;

    while (change->transition < 3 && strcmp(transition, names[change->transition]) != 0)
        change->transition++;
    if (change->transition == 3)
        MISUSED(a, "there is no transition '%s'", transition);
    while ((word = args_next(a)) && change->n_changes < WORDS_MAX)
        read_one(a, word, &change->changes[change->n_changes++]);
}

void command_change(struct args *a)
{
    struct scenario_node *node = args_running(a);
    const char *what = node ? args_need(a, "add, remove, address or many") : "";
    struct nh_member_change changes[WORDS_MAX];
    struct nh_config_change change = {.config_change_id = args_number(a, "if", 0), .changes = changes};

    if (strcmp(what, "add") == 0) {
        uint32_t kind = read_kind(a);

        change.type = NH_CONFIG_ADD_MEMBER;
        change.member = scenario_member(args_to_number(a, args_need(a, "an id")), kind);
    } else if (strcmp(what, "remove") == 0) {
        change.type = NH_CONFIG_REMOVE_MEMBER;
        change.member = (struct nh_member){.replica_id = args_to_number(a, args_need(a, "an id"))};
    } else if (strcmp(what, "address") == 0) {
        change.type = NH_CONFIG_UPDATE_ADDRESS;
        change.member = scenario_member(args_to_number(a, args_need(a, "an id")), NH_MEMBER_VOTER);
        snprintf(change.member.address, sizeof change.member.address, "%s", args_need(a, "an address"));
    } else if (strcmp(what, "many") == 0) {
        change.type = NH_CONFIG_CHANGE_MANY;
        read_many(a, &change);
    } else {
        MISUSED(a, "there is no change '%s'", what);
    }
    if (!a->s->error[0])
        propose_change(a, node, &change);
}

void command_leave(struct args *a)
{
    struct scenario_node *node = args_running(a);
    struct nh_config_change change = {.type = NH_CONFIG_LEAVE_JOINT};

    if (node)
        propose_change(a, node, &change);
}

/* ---- snapshots ---- */

void command_compact(struct args *a)
{
    struct scenario_node *node = args_running(a);
    const char *index = args_next(a);

    if (node)
        scenario_compact(a->s, node, index ? args_to_number(a, index) : node->machine);
}

void command_snapshot_status(struct args *a)
{
    struct scenario_node *node = args_running(a);
    struct raft_event ev = {.type = RAFT_EV_SNAPSHOT_STATUS, .status.peer = args_node(a)->id};
    const char *how = args_need(a, "failed or arrived");

    if (strcmp(how, "failed") != 0 && strcmp(how, "arrived") != 0)
        MISUSED(a, "a snapshot has failed or arrived");
    ev.status.failed = strcmp(how, "failed") == 0;
    if (node && !a->s->error[0])
        scenario_step(a->s, node, &ev);
}

/* ---- leadership ---- */

/* The target may be a stranger. */
void command_transfer(struct args *a)
{
    struct scenario_node *node = args_running(a);
    struct raft_event ev = {.type = RAFT_EV_TRANSFER,
                            .transfer = {.target = args_to_number(a, args_need(a, "a target")), .key = a->s->next_transfer++}};

    if (node && !a->s->error[0])
        scenario_step(a->s, node, &ev);
}

void command_forget(struct args *a)
{
    struct scenario_node *node = args_running(a);
    struct raft_event ev = {.type = RAFT_EV_FORGET_LEADER};

    if (node)
        scenario_step(a->s, node, &ev);
}
