#include "tests/sim/scenario_args.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

uint64_t args_to_number(struct args *a, const char *text)
{
    char *end;
    uint64_t v = strtoull(text, &end, 10);

    if (*text < '0' || *text > '9' || *end)
        MISUSED(a, "'%s' is not a number", text);
    return v;
}

const char *args_next(struct args *a)
{
    for (uint32_t i = 0; i < a->n; i++) {
        if (a->used[i] || strchr(a->words[i], '='))
            continue;
        a->used[i] = true;
        return a->words[i];
    }
    return NULL;
}

const char *args_need(struct args *a, const char *what)
{
    const char *word = args_next(a);

    if (!word)
        MISUSED(a, "%s is missing", what);
    return word ? word : "";
}

const char *args_named(struct args *a, const char *name)
{
    size_t n = strlen(name);

    for (uint32_t i = 0; i < a->n; i++) {
        if (strncmp(a->words[i], name, n) != 0 || a->words[i][n] != '=')
            continue;
        a->used[i] = true;
        return a->words[i] + n + 1;
    }
    return NULL;
}

uint64_t args_number(struct args *a, const char *name, uint64_t otherwise)
{
    const char *text = args_named(a, name);

    return text ? args_to_number(a, text) : otherwise;
}

bool args_flag(struct args *a, const char *name)
{
    for (uint32_t i = 0; i < a->n; i++) {
        if (a->used[i] || strcmp(a->words[i], name) != 0)
            continue;
        a->used[i] = true;
        return true;
    }
    return false;
}

void args_each_number(struct args *a, const char *list, void (*take)(struct args *a, uint64_t v, void *ctx), void *ctx)
{
    char copy[1024];
    char *rest = copy, *item;

    snprintf(copy, sizeof copy, "%s", list);
    while ((item = strsep(&rest, ","))) {
        uint64_t v = args_to_number(a, item);

        if (a->s->error[0])
            return;
        take(a, v, ctx);
    }
}

void args_add_id(struct args *a, uint64_t id, void *ctx)
{
    uint32_t *set = ctx;

    if (id == 0 || id >= SCENARIO_NODES)
        MISUSED(a, "ids are 1 to %u", SCENARIO_NODES - 1);
    else
        *set |= 1u << id;
}

static void add_node(struct args *a, uint64_t id, void *ctx)
{
    if (id >= SCENARIO_NODES || !a->s->nodes[id].id)
        MISUSED(a, "there is no node %" PRIu64, id);
    else
        args_add_id(a, id, ctx);
}

uint32_t args_nodes(struct args *a, const char *otherwise)
{
    const char *list = args_next(a);
    uint32_t set = 0;

    if (!list)
        list = otherwise;
    if (!list)
        MISUSED(a, "nodes are missing");
    else if (strcmp(list, "all") == 0)
        for (uint64_t id = 1; id < SCENARIO_NODES; id++)
            set |= a->s->nodes[id].id ? 1u << id : 0;
    else
        args_each_number(a, list, add_node, &set);
    return set;
}

struct scenario_node *args_node(struct args *a)
{
    uint64_t id = args_to_number(a, args_need(a, "a node"));

    if (id < SCENARIO_NODES && a->s->nodes[id].id)
        return &a->s->nodes[id];
    MISUSED(a, "there is no node %" PRIu64, id);
    return &a->s->nodes[0];
}

struct scenario_node *args_running(struct args *a)
{
    struct scenario_node *node = args_node(a);

    if (!node->core)
        MISUSED(a, "node %" PRIu64 " is down", node->id);
    return node->core ? node : NULL;
}

struct scenario_filter args_filter(struct args *a)
{
    struct scenario_filter f = {.from = args_number(a, "from", 0),
                                .to = args_number(a, "to", 0),
                                .type = NH_MSG_TYPE_COUNT,
                                .n = args_number(a, "n", UINT64_MAX),
                                .nodes = UINT32_MAX};
    const char *type = args_named(a, "type");

    if (!type)
        return f;
    for (f.type = 0; f.type < NH_MSG_TYPE_COUNT; f.type++)
        if (strcmp(type, nh_message_type_name(f.type)) == 0)
            return f;
    MISUSED(a, "there is no message type '%s'", type);
    return f;
}

void args_position(struct args *a, const char *name, uint64_t *ret_index, uint64_t *ret_term)
{
    const char *text = args_named(a, name);
    char index[32];
    size_t n = text ? strcspn(text, "/") : 0;

    if (!text)
        return;
    snprintf(index, sizeof index, "%.*s", (int)n, text);
    *ret_index = args_to_number(a, index);
    *ret_term = args_to_number(a, text[n] ? text + n + 1 : "");
}

void args_split(struct args *a, char *text)
{
    char *word;

    while ((word = strsep(&text, " \t"))) {
        if (!*word)
            continue;
        if (a->n == WORDS_MAX) {
            MISUSED(a, "a command has at most %u words", WORDS_MAX);
            return;
        }
        a->words[a->n++] = word;
    }
}
