/* engine/raft/describe.h - what the core takes and gives, as one line of text: for people and for golden traces.
 *
 * All functions behave like snprintf: they write at most `cap` bytes, the final NUL included (nothing if cap is 0), and
 * return the length of the whole text, which was cut if that is not below cap. The text depends on the argument alone. A field
 * that a type does not use, the shard, and a number that is 0 and says nothing are left out. An entry is index/term and its
 * payload: quoted, with escapes, cut at RAFT_DESCRIBE_PAYLOAD_BYTES; an empty one is left out. A configuration change is told in
 * words, if it can be read. Of a longer list of entries the
 * first RAFT_DESCRIBE_ENTRIES are shown and the others counted.
 *
 *     1->2 REPLICATE term 2 after 3/1 commit 3 entries [4/2 "abc", 5/2]
 *     1->2 REPLICATE term 2 after 5/2 commit 5 entries [6/2 CONFIG add voter 4]
 *     2->1 REPLICATE_RESP term 2 rejects 9 hint 4/4 commit 0
 *     LEADER term 2 vote 1 leader 1 log 1..5 commit 4 applied 4 saved 3
 *
 * Threads: any, as long as nobody changes the argument. Errors: none; a message is described however malformed it is, but its
 * runs must be whole.
 */
#ifndef NH_ENGINE_RAFT_DESCRIBE_H
#define NH_ENGINE_RAFT_DESCRIBE_H

#include "engine/raft/raft.h"

#define RAFT_DESCRIBE_PAYLOAD_BYTES 16u
#define RAFT_DESCRIBE_ENTRIES       16u

const char *raft_role_name(enum raft_role role);

size_t raft_describe_entry(const struct nh_entry_view *e, char *buf, size_t cap);
/* `[1 2 3 n4 w5]`; n: non-voting, w: witness. Joint: `[3 4] and [1 2 3]`, first the incoming half with those who do not vote. */
size_t raft_describe_membership(const struct nh_membership *m, char *buf, size_t cap);
size_t raft_describe_message(const struct nh_message *m, char *buf, size_t cap);
/* Parts are separated by " | "; an update that asks for nothing gives an empty text. */
size_t raft_describe_update(const struct raft_update *u, char *buf, size_t cap);
size_t raft_describe_status(const struct raft_status *s, char *buf, size_t cap);
size_t raft_describe_peer(const struct raft_peer_status *p, char *buf, size_t cap);

#endif
