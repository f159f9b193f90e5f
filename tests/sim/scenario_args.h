/* tests/sim/scenario_args.h - the words after a command's name. Errors go to the scenario (scenario_fail). */
#ifndef NH_TESTS_SIM_SCENARIO_ARGS_H
#define NH_TESTS_SIM_SCENARIO_ARGS_H

#include "tests/sim/scenario.h"

#define WORDS_MAX 64u

/* The words after a command's name: positional ones, flags (`pre_vote`) and named ones (`election=10`). Who reads a word marks it
 * as used; what is left in the end is an error. */
struct args {
    struct scenario *s;
    char *words[WORDS_MAX];
    bool used[WORDS_MAX];
    uint32_t n;
    bool misused; /* the error is about the arguments */
};

#define MISUSED(a, ...) ((a)->misused = true, scenario_fail((a)->s, __VA_ARGS__))

void args_split(struct args *a, char *text); /* keeps pointers into the text */
uint64_t args_to_number(struct args *a, const char *text);
const char *args_next(struct args *a);                                      /* the next positional word, NULL if there is none */
const char *args_need(struct args *a, const char *what);                    /* the same; "" and an error if there is none */
const char *args_named(struct args *a, const char *name);                   /* "value" of name=value, NULL if it is not there */
uint64_t args_number(struct args *a, const char *name, uint64_t otherwise); /* the same for a number */
bool args_flag(struct args *a, const char *name);
/* Index and term of name=4/2; left as they are if it is not there. */
void args_position(struct args *a, const char *name, uint64_t *ret_index, uint64_t *ret_term);
/* Calls `take` with each number of a list "1,2,3". */
void args_each_number(struct args *a, const char *list, void (*take)(struct args *a, uint64_t v, void *ctx), void *ctx);
void args_add_id(struct args *a, uint64_t id, void *ctx); /* for args_each_number; ctx: the uint32_t bit set */
/* The next word: a list of nodes, or `all`; without one, `otherwise` (NULL: it is an error). A bit set. */
uint32_t args_nodes(struct args *a, const char *otherwise);
/* The next word: one node; never NULL, but node 0 does not exist and the error is set then. */
struct scenario_node *args_node(struct args *a);
/* The same, but its core must run; NULL otherwise. */
struct scenario_node *args_running(struct args *a);
struct scenario_filter args_filter(struct args *a); /* from= to= type= n= */

#endif
