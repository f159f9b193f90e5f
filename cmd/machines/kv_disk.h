/* cmd/machines/kv_disk.h - an instance of kv-disk: one replica's part of the shared database. See kv_disk.c. */
#ifndef NH_CMD_MACHINES_KV_DISK_H
#define NH_CMD_MACHINES_KV_DISK_H

#include "cmd/machines/kv_db.h"

struct nh_machine {
    struct kv_db *db;
    struct kv_db_replica id;
    char name[KV_DB_NAME_BYTES];
    uint64_t identity;   /* of the replica's directory */
    uint64_t generation; /* constant but for recover, beside which nothing runs */
    uint64_t applied;
    uint64_t batches; /* written; the count began somewhere */
    uint64_t n;       /* atomic: lookups read it beside updates; keys */

    /* Of the present update: what it read and what it changes, until one write makes it so. */
    struct kv_table changes;
    size_t held_bytes; /* of keys and values in it, at most */
    struct kv_answers answers;
    struct nh_error failure; /* the first failed read, or write before the end; code 0: none */
};

/* The state at one moment. */
struct kv_disk_moment {
    const rocksdb_snapshot_t *snapshot;
    rocksdb_readoptions_t *read;
    struct kv_db_record record;
};
int kv_disk_moment_init(struct kv_disk_moment *at, struct nh_machine *m, struct nh_error *err); /* on failure nothing is left */
void kv_disk_moment_deinit(struct kv_disk_moment *at, struct nh_machine *m);
/* Calls `each` for all pairs in the order of keys, until it returns another value than 0, which is then returned. */
int kv_disk_moment_each(const struct kv_disk_moment *at, struct nh_machine *m,
                        int (*each)(void *ctx, struct kv_slice key, struct kv_slice value), void *ctx, struct nh_error *err);

/* The identity of the directory; the first time it gets one. Durable on return. ECORRUPT: what is there is no mark. */
int kv_disk_mark(const char *dir, uint64_t *ret, struct nh_error *err);
int kv_disk_random(uint64_t *ret, struct nh_error *err);
void kv_disk_record(const struct nh_machine *m, struct kv_db_record *ret); /* for the next batch */

/* Of the table of functions: raftio/machine.h. */
int kv_disk_prepare(struct nh_machine *m, void **ret_ctx, struct nh_error *err);
int kv_disk_save(struct nh_machine *m, void *ctx, struct nh_writer *out, const volatile bool *stop, struct nh_error *err);
void kv_disk_release(struct nh_machine *m, void *ctx);
int kv_disk_recover(struct nh_machine *m, struct nh_reader *in, const volatile bool *stop, struct nh_error *err);
uint64_t kv_disk_hash(struct nh_machine *m);

#endif
