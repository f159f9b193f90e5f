/* cmd/nodehostd/layout.h - the list of the shards that have the keys: an identity of the data.
 *
 * Where a key lives follows from the list of all kv shards (slots.h). With another list the same key is looked for in another
 * shard: what was acknowledged is not found, and nobody is told. So the first start writes the list to the file LAYOUT of the
 * data directory, and later ones refuse a configuration with another list. A data directory that has no such file, as those of
 * earlier versions, gets it. Format: docs/FORMATS.md, "Data directory".
 *
 * The file cannot tell that a new host's first configuration has another list than those of the other hosts. So hosts tell each
 * other a number of their lists, and do not talk to one with another (nh_host_config.data_layout); INFO shows it.
 *
 * Threads: any; layout_check with the data directory locked.
 */
#ifndef NH_CMD_NODEHOSTD_LAYOUT_H
#define NH_CMD_NODEHOSTD_LAYOUT_H

#include "cmd/nodehostd/buffer.h"
#include "cmd/nodehostd/config.h"

#define LAYOUT_FORMAT 1u
/* CONFIG_SECTIONS_MAX ranges of two numbers of 20 digits. */
#define LAYOUT_BYTES_MAX (256u << 10)

/* The list of the kv shards: "1-1000,2000"; ascending and neighbours joined, so that equal lists are equal texts. "" for none. To
 * be freed. */
char *layout_list(const struct config *c);
/* A number for comparing hosts: CRC32C of the list; 0 without kv shards. */
uint32_t layout_number(const struct config *c);
/* Adds the text of a file that says this. */
void layout_encode(const char *list, struct buffer *ret);
/* What the text of a file says; to be freed. `path` is for error texts. Errors: ECORRUPT, EMISMATCH (another format). */
int layout_decode(const char *path, const char *text, size_t size_bytes, char **ret_list, struct nh_error *err);
/* Compares the configuration with the file of its data directory, which is written if there is none and there are kv shards.
 * Errors: EMISMATCH, ECORRUPT, EIO. */
int layout_check(const struct config *c, struct nh_error *err);

#endif
