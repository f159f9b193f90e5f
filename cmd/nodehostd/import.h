/* cmd/nodehostd/import.h - `nodehostd import`: rebuilds this host's replica of a shard from an export (nh_import_snapshot). */
#ifndef NH_CMD_NODEHOSTD_IMPORT_H
#define NH_CMD_NODEHOSTD_IMPORT_H

/* The arguments behind "import", argv[0] being it. Returns the exit code: 2 for wrong usage. */
int import_main(int argc, char **argv);

#endif
