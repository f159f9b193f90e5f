/* tests/unit/engine/snapshot_fixture.h - a replica's snapshot directory on real files or on those in memory, for its tests.
 *
 * The image of an index is a pattern without zeros, so that bytes lost by a crash are noticed. `x.recorded` stands for the record
 * in the log store: it is durable when it is set. Failures end the test.
 */
#ifndef NH_TESTS_UNIT_ENGINE_SNAPSHOT_FIXTURE_H
#define NH_TESTS_UNIT_ENGINE_SNAPSHOT_FIXTURE_H

#include <criterion/criterion.h>

#include "engine/snapshot_dir.h"
#include "tests/sim/memory_files.h"

#define SHARD       5u
#define REPLICA     3u
#define IMAGE_BYTES 1500u

extern struct snapshot_fixture {
    struct files *fs;
    struct memory_files *memory; /* NULL: real files */
    char root[64];
    struct snapshot_dir dir;
    uint64_t recorded, random;
    struct nh_error err;
} x;

#define OK(call) cr_assert_eq(call, NH_OK, "%s", x.err.text)

void snapshot_setup_posix(void);
void snapshot_setup_memory(void);
void snapshot_teardown(void);
/* Power is cut and comes back; the directory is opened anew. */
void snapshot_crash(uint64_t seed);

/* The record of an index; membership borrowed from static storage. */
struct nh_snapshot snapshot_record_of(uint64_t index);
/* All of one snapshot: begin, write, commit; aborted if that fails. from 0: our own. */
int snapshot_make(uint64_t index, uint64_t from);
/* The same, saved in the log store, and pruned. */
int snapshot_take(uint64_t index, uint64_t from, uint32_t keep);

/* The image opens and its bytes are right. */
void snapshot_check(uint64_t index);
/* Are these the names in the directory (any order), and no others? */
void snapshot_check_names(size_t n, const char *const *names);
/* Exactly these images, each of them right; 0 ends the list. Nothing else is there. */
void snapshot_check_images(const uint64_t *indexes);
/* A path below the replica's directory, in static storage of a few turns. */
const char *snapshot_path(const char *fmt, ...) NH_PRINTF(1, 2);
void snapshot_put(const char *path, const void *data, size_t size_bytes);

#endif
