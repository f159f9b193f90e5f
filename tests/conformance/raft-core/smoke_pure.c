/* The pure functions, by tables, and configurations as text. */
#include "tests/conformance/raft-core/smoke.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- texts ---- */

static const struct {
    char letter;
    uint32_t type;
} change_letters[] = {{'v', RCT_CC_ADD_VOTER}, {'r', RCT_CC_REMOVE}, {'u', RCT_CC_UPDATE}, {'l', RCT_CC_ADD_LEARNER}};

uint32_t smoke_changes(const char *text, rct_cc1 *ret)
{
    uint32_t n = 0;

    while (*text) {
        char *end;

        for (size_t i = 0; i < 4; i++)
            if (change_letters[i].letter == *text)
                ret[n].type = change_letters[i].type;
        ret[n++].node = strtoull(text + 1, &end, 10);
        text = end + (*end == ' ');
    }
    return n;
}

static void put_ids(char *buf, uint32_t cap, const uint64_t *ids, uint32_t n, const char *before)
{
    size_t used = strlen(buf);

    if (n > 0)
        (void)snprintf(buf + used, cap - used, "%s", before);
    for (uint32_t i = 0; i < n; i++) {
        used = strlen(buf);
        (void)snprintf(buf + used, cap - used, "%s%" PRIu64, used > 0 ? " " : "", ids[i]);
    }
}

void smoke_conf_text(const rct_conf *c, char *buf, uint32_t cap)
{
    size_t used;

    buf[0] = '\0';
    put_ids(buf, cap, c->voters, c->n_voters, "");
    put_ids(buf, cap, c->voters_out, c->n_voters_out, " &");
    put_ids(buf, cap, c->learners, c->n_learners, " |");
    put_ids(buf, cap, c->learners_next, c->n_learners_next, " next");
    used = strlen(buf);
    (void)snprintf(buf + used, cap - used, "%s", c->auto_leave ? " auto" : "");
}

/* The arrays are static: one configuration at a time. */
void smoke_conf_parse(const char *text, rct_conf *ret)
{
    static uint64_t ids[4][16];
    uint32_t n[4] = {0}, at = 0;

    *ret = (rct_conf){.voters = ids[0], .voters_out = ids[1], .learners = ids[2], .learners_next = ids[3]};
    for (const char *p = text; *p;) {
        char *end;

        if (*p == '&')
            at = 1;
        else if (*p == '|')
            at = 2;
        else if (*p == 'n')
            at = 3;
        else if (*p == 'a')
            ret->auto_leave = 1;
        if (*p < '0' || *p > '9') {
            p++;
            continue;
        }
        ids[at][n[at]++] = strtoull(p, &end, 10);
        p = end;
    }
    ret->n_voters = n[0];
    ret->n_voters_out = n[1];
    ret->n_learners = n[2];
    ret->n_learners_next = n[3];
}

/* ---- majorities ---- */

static void test_commit(void)
{
    static const struct {
        const char *conf;
        uint64_t match[5]; /* of the ids 1 .. 5 */
        uint64_t commit;
    } rows[] = {
        {"", {0}, UINT64_MAX},
        {"1", {12}, 12},
        {"1 2", {12, 5}, 5},
        {"1 2 3", {12, 5, 6}, 6},
        {"1 2 3", {12, 5, 0}, 5},
        {"1 2 3 4", {101, 104, 103, 103}, 103},
        {"1 2 3 4 5", {1, 2, 3, 4, 5}, 3},
        {"1 2 3 & 3 4 5", {9, 9, 2, 3, 4}, 3},
        {"1 2 3 & 4", {9, 9, 9, 1}, 1},
        {"& 1 2 3", {4, 5, 6}, 5},
        {"1 2 | 3", {7, 8, 100}, 7},
        {"1 & 1 2 3 next 2", {10, 20, 30}, 10},
    };
    static const uint64_t ids[] = {1, 2, 3, 4, 5};
    rct_conf conf;

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        smoke_conf_parse(rows[i].conf, &conf);
        EXPECT(api.quorum_commit(&conf, ids, rows[i].match, 5) == rows[i].commit);
    }
}

static void test_vote(void)
{
    static const struct {
        const char *conf;
        const char *votes; /* of the ids 1 .. 5: y, n, _ */
        int verdict;
    } rows[] = {
        {"", "", 3},
        {"1", "_", 1},
        {"1", "n", 2},
        {"1", "y", 3},
        {"1 2", "y_", 1},
        {"1 2", "yn", 2},
        {"1 2", "yy", 3},
        {"1 2 3", "yn_", 1},
        {"1 2 3", "ynn", 2},
        {"1 2 3", "y_y", 3},
        {"1 2 3 & 4", "yy__", 1},
        {"1 2 3 & 4", "yy_n", 2},
        {"1 2 3 & 4", "yy_y", 3},
        {"1 2 | 3", "y_y", 1},
        {"1 & 2 3 next 2", "yy_", 1},
        {"1 & 2 3 next 2", "yyy", 3},
    };
    static const uint64_t ids[] = {1, 2, 3, 4, 5};
    rct_conf conf;

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        uint8_t votes[5] = {0};
        uint32_t n = 0;

        for (const char *p = rows[i].votes; *p; p++)
            votes[n++] = *p == 'y' ? 2 : *p == 'n';
        smoke_conf_parse(rows[i].conf, &conf);
        EXPECT(api.quorum_vote(&conf, ids, votes, n) == rows[i].verdict);
    }
}

/* ---- changes ---- */

static void test_change(void)
{
    static const struct {
        const char *conf;
        uint32_t op; /* 0 simple, 1 enter, 2 enter and leave alone, 3 leave */
        const char *changes;
        const char *ret; /* NULL: refused */
    } rows[] = {
        {"", 0, "v1", "1"},
        {"", 0, "l1", NULL},
        {"1", 0, "v1", "1"},
        {"1", 0, "v2", "1 2"},
        {"1", 0, "l2", "1 | 2"},
        {"1", 0, "l2 l3", "1 | 2 3"},
        {"1", 0, "l2 v3", "1 3 | 2"},
        {"1 2", 0, "v3 v4", NULL},
        {"1 2", 0, "r1 v3", NULL},
        {"1", 0, "r1", NULL},
        {"1 2", 0, "r2", "1"},
        {"1 2", 0, "r9", "1 2"},
        {"1 2", 0, "v0", "1 2"},
        {"1 2", 0, "u2", "1 2"},
        {"1 2", 0, "l2", "1 | 2"},
        {"1 | 2", 0, "v2", "1 2"},
        {"1 | 2", 0, "r2", "1"},
        {"1 & 2", 0, "v3", NULL},
        {"1", 1, "", "1 & 1"},
        {"1", 2, "", "1 & 1 auto"},
        {"", 1, "v1", NULL},
        {"1", 1, "v2", "1 2 & 1"},
        {"1 2 3", 2, "r1 v4 l2", "3 4 & 1 2 3 next 2 auto"},
        {"1 2 3", 1, "r1 v1", "1 2 3 & 1 2 3"},
        {"1 2 3", 1, "r1 l1", "2 3 & 1 2 3 next 1"},
        {"1 2 3", 1, "l4 r4", "1 2 3 & 1 2 3"},
        {"1 2", 1, "r1 r2", NULL},
        {"1 & 1", 1, "v2", NULL},
        {"1", 3, "", NULL},
        {"3 4 & 1 2 3 next 2 auto", 3, "", "3 4 | 2"},
        {"2 3 & 1", 3, "", "2 3"},
    };
    rct_conf conf, out;
    char text[128], wanted[128];

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        rct_cc1 changes[8];
        rct_cc cc = {.changes = changes};
        int code;

        cc.n = smoke_changes(rows[i].changes, changes);
        smoke_conf_parse(rows[i].conf, &conf);
        code = api.conf_change(&conf, &cc, rows[i].op, &out);
        if (!rows[i].ret) {
            EXPECT(code == RCT_E_ARG);
            continue;
        }
        if (code != RCT_OK)
            (void)fprintf(stderr, "row %zu\n", i);
        EXPECT(code == RCT_OK);
        smoke_conf_text(&out, text, sizeof text);
        smoke_conf_parse(rows[i].ret, &conf);
        smoke_conf_text(&conf, wanted, sizeof wanted);
        if (strcmp(text, wanted) != 0)
            (void)fprintf(stderr, "row %zu: %s instead of %s\n", i, text, wanted);
        EXPECT(strcmp(text, wanted) == 0);
    }
}

void smoke_pure(void)
{
    test_commit();
    test_vote();
    test_change();
}
