/* tests/unit/cmd/kv_replica.h - a replica of a key-value machine in a test: commands as text, answers and images as bytes. Paths
 * lie below a temporary directory of this process. A call that may not fail ends the test. */
#ifndef NH_TESTS_UNIT_CMD_KV_REPLICA_H
#define NH_TESTS_UNIT_CMD_KV_REPLICA_H

#include "cmd/machines/kv_command.h"
#include "nodehost/nodehost.h"

#define KV_TEXT_BYTES  256u
#define KV_BATCH_MAX   40u
#define KV_ANSWER_MAX  8192u
#define KV_IMAGE_BYTES (1024u * 1024u)

struct kv_replica {
    const struct nh_machine_ops *ops;
    struct nh_machine *m;
    char dir[256];
    uint64_t applied; /* as open told it; then the last index */
    struct nh_entry entries[KV_BATCH_MAX];
    struct nh_error err;
    uint8_t answer[KV_ANSWER_MAX];
    size_t answer_size;
    uint8_t *image;
    size_t image_size;
    volatile bool stop;
};

void kv_replica_root(void); /* makes the temporary directory */
void kv_replica_remove_root(void);
/* Its data_dir is <root>/<shard>-<replica>. */
void kv_replica_open(struct kv_replica *r, const char *so, uint64_t shard_id, uint64_t replica_id);
void kv_replica_close(struct kv_replica *r);
void kv_replica_remove_dir(struct kv_replica *r); /* of one that is closed */

int kv_replica_update(struct kv_replica *r, char texts[][KV_TEXT_BYTES], size_t n); /* one batch; the code of update */
void kv_replica_apply(struct kv_replica *r, char texts[][KV_TEXT_BYTES], size_t n);
void kv_replica_apply_text(struct kv_replica *r, const char *text);
void kv_replica_apply_bytes(struct kv_replica *r, const void *cmd, size_t size);
uint64_t kv_replica_query(struct kv_replica *r, const char *text);

int kv_replica_save(struct kv_replica *r); /* prepares and releases too */
int kv_replica_save_ctx(struct kv_replica *r, void *ctx);
int kv_replica_recover(struct kv_replica *r, const uint8_t *image, size_t size);

const char *kv_replica_database(void); /* the directory of kv-disk's */
/* Keys in the database of kv-disk, which must be closed. */
size_t kv_replica_count_keys(void);
void kv_random_command(char text[KV_TEXT_BYTES], unsigned *seed);

#endif
