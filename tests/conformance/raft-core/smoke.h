/* tests/conformance/raft-core/smoke.h - a loaded adapter, a few nodes on one thread, and the tests that are run over them.
 *
 * A node is driven as a suite would: ready, store, send, apply, advance. Messages lie in one queue until they are delivered; each
 * is copied with all that it refers to. A failed expectation ends the program.
 */
#ifndef NH_TESTS_RAFT_CORE_SMOKE_H
#define NH_TESTS_RAFT_CORE_SMOKE_H

#include <stdbool.h>

#define RCT_TYPES_ONLY
#include "tests/conformance/raft-core/raft_core_test.h"

struct api {
    uint32_t (*abi_version)(void);
    uint64_t (*features)(void);
    rct_node *(*new)(const rct_config *, const rct_snap *);
    rct_node *(*restart)(rct_node *, const rct_config *);
    void (*free)(rct_node *);
    int (*set_election_timeout)(rct_node *, uint32_t);
    int (*tick)(rct_node *);
    int (*campaign)(rct_node *);
    int (*propose)(rct_node *, const uint8_t *, uint64_t);
    int (*propose_conf)(rct_node *, const rct_cc *);
    int (*step)(rct_node *, const rct_msg *);
    int (*transfer)(rct_node *, uint64_t);
    int (*forget_leader)(rct_node *);
    int (*read_index)(rct_node *, const uint8_t *, uint64_t);
    int (*report_unreachable)(rct_node *, uint64_t);
    int (*report_snapshot)(rct_node *, uint64_t, uint32_t);
    int (*has_ready)(rct_node *);
    int (*ready)(rct_node *, rct_ready_t *);
    int (*advance)(rct_node *);
    int (*apply_conf)(rct_node *, const rct_entry *, rct_conf *);
    int (*conf_text)(const rct_entry *, char *, uint32_t);
    int (*store)(rct_node *, const rct_hard *, const rct_entry *, uint64_t, const rct_snap *);
    int (*set_snapshot)(rct_node *, const rct_snap *);
    int (*compact)(rct_node *, uint64_t);
    int (*status)(rct_node *, rct_status_t *);
    int (*progress)(rct_node *, rct_pr *, uint32_t);
    int (*log)(rct_node *, uint32_t, rct_entry *, uint32_t);
    uint64_t (*quorum_commit)(const rct_conf *, const uint64_t *, const uint64_t *, uint32_t);
    int (*quorum_vote)(const rct_conf *, const uint64_t *, const uint8_t *, uint32_t);
    int (*conf_change)(const rct_conf *, const rct_cc *, uint32_t, rct_conf *);
};
extern struct api api;
void smoke_load(const char *path);

#define EXPECT(condition) ((condition) ? (void)0 : smoke_fail(__FILE__, __LINE__, #condition))
_Noreturn void smoke_fail(const char *file, int line, const char *condition);

#define SMOKE_NODES 6u
#define SMOKE_QUEUE 4096u

struct smoke_node {
    rct_node *node; /* NULL: there is none, or it is cut off and down */
    rct_config config;
    uint64_t applied;
    uint32_t n_normal; /* entries with data that were applied */
    uint32_t n_changes;
    char conf[128]; /* the newest, as text */
    uint64_t snapshot_index;
    uint64_t read_index; /* of the newest read that was answered */
    char read_context[32];
    uint32_t n_reads;
    bool cut;
};

struct smoke {
    struct smoke_node nodes[SMOKE_NODES]; /* by id */
    rct_msg queue[SMOKE_QUEUE];
    uint32_t head, n;
    rct_conf boot;
    rct_config config;
    void (*seen)(const rct_msg *m); /* NULL, or is shown what is delivered */
};

rct_config smoke_config(void);
/* Nodes 1 .. n of an empty log; all know that the voters are 1 .. n_voters. */
void smoke_init(struct smoke *s, uint32_t n, uint32_t n_voters, const rct_config *config);
void smoke_deinit(struct smoke *s);
void smoke_pump(struct smoke *s, uint64_t id); /* all that is ready */
void smoke_settle(struct smoke *s);            /* pumps and delivers until nothing moves */
void smoke_tick(struct smoke *s, uint32_t ticks);
void smoke_elect(struct smoke *s, uint64_t id);
void smoke_put(struct smoke *s, uint64_t id, uint32_t n); /* proposes n entries, settles */
int smoke_change(struct smoke *s, uint64_t id, bool v1, uint32_t transition, const char *text);
rct_status_t smoke_status(struct smoke *s, uint64_t id);
void smoke_snapshot(struct smoke *s, uint64_t id); /* of what is applied, and compacts to it */
void smoke_restart(struct smoke *s, uint64_t id);
bool smoke_same_logs(struct smoke *s, uint64_t a, uint64_t b);
rct_msg *smoke_copy(const rct_msg *m);
void smoke_drop(rct_msg *m);

/* "v1 l2": parsed into changes; the count. */
uint32_t smoke_changes(const char *text, rct_cc1 *ret);
/* "1 2 & 3 4 | 5 | 6 auto": voters & outgoing voters | learners | learners to be. */
void smoke_conf_text(const rct_conf *c, char *buf, uint32_t cap);
void smoke_conf_parse(const char *text, rct_conf *ret);

void smoke_pure(void);                        /* smoke_pure.c: the pure functions */
void smoke_chaos(uint64_t first, uint64_t n); /* smoke_chaos.c: random walks from n seeds */

#endif
