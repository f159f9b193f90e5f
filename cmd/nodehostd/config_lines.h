/* cmd/nodehostd/config_lines.h - where in a YAML file something stands, for error texts.
 *
 * The file is loaded a second time as a tree of nodes with their lines. Threads: one.
 */
#ifndef NH_CMD_NODEHOSTD_CONFIG_LINES_H
#define NH_CMD_NODEHOSTD_CONFIG_LINES_H

#include <stddef.h>

struct config_lines;
struct yaml_document_s;

/* NULL if the text is no YAML. */
struct config_lines *config_lines_new(const char *text, size_t size_bytes);
void config_lines_free(struct config_lines *l); /* takes NULL */
/* The line (from 1) of the value that a path leads to, as far as it leads: "shards", "2", "replicas". Ends with NULL. */
unsigned config_lines_of(const struct config_lines *l, const char *const *path);
/* The line of the first mapping key of this name; 0: none. */
unsigned config_lines_of_key(const struct config_lines *l, const char *key);
/* The tree itself, libyaml's yaml_document_t, with aliases resolved. Borrowed; to be read only. */
struct yaml_document_s *config_lines_document(const struct config_lines *l);

#endif
