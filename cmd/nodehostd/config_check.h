/* cmd/nodehostd/config_check.h - what a schema cannot say: ranges, addresses, references. Private to config.c. */
#ifndef NH_CMD_NODEHOSTD_CONFIG_CHECK_H
#define NH_CMD_NODEHOSTD_CONFIG_CHECK_H

#include "cmd/nodehostd/config.h"
#include "cmd/nodehostd/config_lines.h"

/* Fills in defaults, then checks. Errors: EINVAL with "path:LINE: ". */
int config_check(struct config *c, const char *path, const struct config_lines *lines, struct nh_error *err);
/* Directories that are neither there nor have a parent in which they can be made. Errors: as above. */
int config_check_places(struct config *c, const char *path, const struct config_lines *lines, struct nh_error *err);

#endif
