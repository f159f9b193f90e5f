/* tests/conformance/machine/kit.h - what the checks of the machine kit share. For authors: docs/MACHINES.md, "The kit".
 *
 * Every check is a function that runs in a process of its own: a machine that crashes fails that check alone, and one that blocks
 * is noticed by the parent, because each call of the machine is announced in shared memory. A check that returns has passed.
 *
 * Entries have numbers 0, 1, 2, ... and are functions of the seed and their number, so every instance in every process can be
 * given the same. Their raft indexes have gaps, as in a real log, where not all entries are for the machine.
 */
#ifndef NH_TESTS_CONFORMANCE_MACHINE_KIT_H
#define NH_TESTS_CONFORMANCE_MACHINE_KIT_H

#include "nodehost/nodehost.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define KIT_TEXT_BYTES 1024u
#define KIT_BATCH_MAX  32u
#define KIT_THREADS    16u

struct kit_call { /* of one thread; name NULL: the machine is not running */
    const char *name;
    int64_t began_ms;
};

struct kit_shared {
    struct kit_call calls[KIT_THREADS];
    uint32_t n_threads;
    uint64_t n_instances; /* of all processes: each has a directory of its own */
    char what[KIT_TEXT_BYTES], contract[KIT_TEXT_BYTES], note[KIT_TEXT_BYTES];
    uint32_t kind; /* found by the check acceptance */
    bool accepted, has_snapshots;
};

struct kit {
    const char *machine; /* absolute path */
    uint64_t seed;
    uint32_t n_entries;
    int64_t call_limit_ms;
    char dir[256]; /* of the present check: empty when it begins */
    struct kit_shared *shared;
    const struct nh_machine_ops *ops; /* loaded by the check's own process */
};
extern struct kit kit;

/* ---- results of a check ---- */

/* Ends the check. `contract`: what the header says about it. */
void kit_fail(const char *contract, const char *fmt, ...) __attribute__((noreturn, format(printf, 2, 3)));
/* A remark in the report of a check that passes. */
void kit_note(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Around each call of the machine. */
void kit_enter(const char *call);
void kit_leave(void);
/* Runs `body` in a child of the check, which must not have opened the machine. True: it returned. False: it killed itself. */
bool kit_in_child(void (*body)(void *arg), void *arg);
int64_t kit_now_ms(void);

/* ---- randomness, entries, queries ---- */

uint64_t kit_random(uint64_t *state);
uint64_t kit_mix(uint64_t a, uint64_t b);
uint64_t kit_digest(const void *data, size_t size_bytes);

struct kit_bytes {
    uint8_t *data; /* malloc */
    size_t size;
};
/* Returns 0, or -1 with a message on stderr. */
int kit_commands_load(const char *path);
struct kit_bytes kit_entry(uint64_t number);
struct kit_bytes kit_query(uint64_t number);
struct kit_bytes kit_random_bytes(uint64_t number, size_t max);
bool kit_has_growth(void);
struct kit_bytes kit_growth(uint64_t number);

uint64_t kit_index(uint64_t number);   /* raft index of an entry */
uint64_t kit_count_to(uint64_t index); /* entries up to an index */
bool kit_is_index(uint64_t index);     /* of an entry */

/* ---- instances ---- */

struct kit_outcome { /* of one entry */
    uint64_t value, digest;
    size_t size;
};

struct kit_instance {
    struct nh_machine *m;
    char dir[300];    /* on-disk: its data_dir */
    uint64_t applied; /* as open told it */
    uint64_t count;   /* entries given so far */
    uint64_t batches; /* state of the randomness that cuts entries into batches */
    bool scribble;    /* commands are overwritten and freed right after update */
    uint8_t **kept;   /* otherwise they live as long as this */
    size_t n_kept;
    struct kit_outcome *outcomes; /* by number */
};

/* A new replica with a new directory; or again with that of an earlier one. `batches`: another number, other sizes of batches. */
void kit_open(struct kit_instance *i, uint64_t batches);
void kit_open_again(struct kit_instance *i, const char *dir, uint64_t batches);
void kit_close(struct kit_instance *i);
/* One batch of the given entries, which stay the caller's, in as many calls as the machine wants. Fails the check if update
 * fails. */
void kit_update(struct kit_instance *i, struct nh_entry *entries, size_t n);
/* One call; returns how many of them the machine has applied. */
size_t kit_update_some(struct kit_instance *i, struct nh_entry *entries, size_t n);
/* Entries up to number `to`, in batches. Fills outcomes. */
void kit_apply_to(struct kit_instance *i, uint64_t to);
/* Applies entries that are none of the numbered ones, so that the state is another. */
void kit_apply_others(struct kit_instance *i, uint32_t n);
uint64_t kit_hash(struct kit_instance *i);
int kit_lookup(struct kit_instance *i, const struct kit_bytes *query, struct kit_bytes *ret_answer, uint64_t *ret_value);

void *kit_prepare(struct kit_instance *i); /* NULL for machines without */
void kit_release(struct kit_instance *i, void *ctx);
struct kit_bytes kit_save(struct kit_instance *i, void *ctx); /* fails the check if it fails */
struct kit_bytes kit_image(struct kit_instance *i);           /* prepares, saves, releases */
int kit_recover(struct kit_instance *i, struct kit_bytes image);
void kit_must_recover(struct kit_instance *i, struct kit_bytes image);
/* A code by its name, and the text of kit_err. */
const char *kit_error_text(int code);
extern struct nh_error kit_err; /* of the last failed call */

/* Fails the check unless both have the same hash and the same image. */
void kit_expect_equal(struct kit_instance *a, struct kit_instance *b, const char *contract, const char *what);
void kit_expect_outcomes(struct kit_instance *a, struct kit_instance *b, uint64_t from, uint64_t to, const char *contract,
                         const char *what);
void kit_expect_images(struct kit_bytes a, struct kit_bytes b, const char *contract, const char *what);

/* ---- the checks ---- */

enum kit_needs { KIT_ANY = 0, KIT_SNAPSHOTS = 1, KIT_ON_DISK = 2 };
struct kit_check {
    const char *name;
    const char *what; /* for the report */
    unsigned needs;   /* enum kit_needs, or'ed */
    void (*run)(void);
};
extern const struct kit_check kit_checks[]; /* ends with an empty one */

void check_acceptance(void);
void check_lifecycle(void);
void check_errors_are_results(void);
void check_borrowed_memory(void);
void check_results_stay(void);
void check_determinism(void);
void check_lookups(void);
void check_snapshot_round_trip(void);
void check_snapshot_moment(void);
void check_writer_errors(void);
void check_mangled_images(void);
void check_stop(void);
void check_concurrency(void);
void check_restart(void);
void check_crash(void);
void check_crash_in_recover(void);

#endif
