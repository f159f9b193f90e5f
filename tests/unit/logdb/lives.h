/* tests/unit/logdb/lives.h - hosts that end without a word: a store is opened, used and lost, again and again. RocksDB makes
 * tables of what it has when the test says so.
 */
#ifndef NH_TESTS_UNIT_LOGDB_LIVES_H
#define NH_TESTS_UNIT_LOGDB_LIVES_H

#include "tests/conformance/logdb/fixture.h"

/* Runs `fn` with an open store in a process that then ends as by kill -9. The store is only opened in such: its threads would be
 * missing in a fork. */
void run_and_die(void (*fn)(void));

/* ---- for these processes: what fails ends them ---- */

/* What is in RocksDB's memory will survive. */
void make_tables(void);
void move_horizon(void);
void save_in_child(const struct nh_update *u, size_t n);
/* Of SHARD and REPLICA, in one save. */
void save_entries(uint64_t first, uint32_t n, uint64_t term);
/* The same with payloads of this size. */
void save_sized(uint64_t first, uint32_t n, uint64_t term, uint32_t payload_bytes);
/* The same with a save for each. */
void save_singly(uint64_t first, uint64_t last, uint64_t term);
/* Requires the bounds, and these terms of the entries. */
void check_log(uint64_t shard_id, uint64_t first, uint64_t last, const uint64_t *terms);

extern const uint64_t ones[100]; /* terms */

/* ---- between them ---- */

/* Damages the head of the record at this place in the first segment: what tables may point to behind it stays whole. */
void damage_record(uint64_t at);

#endif
