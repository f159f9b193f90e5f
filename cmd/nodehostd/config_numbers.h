/* cmd/nodehostd/config_numbers.h - numbers of a configuration are digits and nothing else, a yes or no is one of six words.
 * Private to config.c.
 *
 * libcyaml reads them with strtoull of any base and ignores what follows: "256 MiB" is 256 to it, "010" is 8, "-1" is 2^64 - 1.
 * And 0 is what a key that is left out is to us: who writes it does not mean the default. Of a wrong word libcyaml does not say
 * whose it is. So the tree is compared with the schema before libcyaml sees the text: what is a number is said once, there.
 */
#ifndef NH_CMD_NODEHOSTD_CONFIG_NUMBERS_H
#define NH_CMD_NODEHOSTD_CONFIG_NUMBERS_H

#include "cmd/nodehostd/config_lines.h"
#include "raftio/status.h"

struct cyaml_schema_value;

/* What has another shape than the schema, or too many digits, is left to libcyaml. Errors: EINVAL with "path:LINE: ". */
int config_numbers_check(const char *path, const struct config_lines *lines, const struct cyaml_schema_value *schema,
                         struct nh_error *err);

#endif
