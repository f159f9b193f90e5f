/* Writes the seed corpora of fuzz_batch, fuzz_records and the targets of snapshots below the directory in argv[1]. */
#include "tests/fuzz/make_corpus.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "raftio/codec.h"
#include "logdb/rocksdb/pack.h"
#include "raftio/support/block.h"

static const char *root;

void save(const char *name, const void *data, size_t size_bytes)
{
    char path[512];
    FILE *f;

    snprintf(path, sizeof path, "%s/%s", root, name);
    f = fopen(path, "wb");
    if (!f || fwrite(data, 1, size_bytes, f) != size_bytes || fclose(f) != 0) {
        perror(path);
        exit(1);
    }
}

static void save_batch(const char *name, struct nh_message *messages, uint32_t n)
{
    struct nh_message_batch b = {.deployment_id = 7, .source_address = "h1:26000", .n_messages = n, .messages = messages};
    size_t bytes = batch_encode(&b, NULL, 0);
    uint8_t *out = malloc(bytes);

    batch_encode(&b, out, bytes);
    save(name, out, bytes);
    free(out);
}

static void add(struct block_builder *b, uint64_t key, const char *payload, uint64_t client_id)
{
    struct block_record rec = {.origin = 1,
                               .key = key,
                               .client_id = client_id,
                               .series_id = client_id ? 4 : 0,
                               .responded_to = client_id ? 3 : 0,
                               .payload = payload,
                               .payload_bytes = (uint32_t)strlen(payload)};

    block_builder_add(b, &rec);
}

static struct nh_block *sealed(uint64_t term, uint64_t first_index)
{
    struct block_builder b = {0};

    add(&b, 1, "SET a 1", 0);
    add(&b, 2, "", 0);
    add(&b, 3, "SET b 22222222", 77);
    return block_seal(&b, term, first_index);
}

static struct nh_block *unsealed(void)
{
    struct block_builder b = {0};

    add(&b, 5, "DEL a", 0);
    add(&b, 6, "12345678", 9);
    return block_unsealed(&b);
}

static void save_packed(const char *name, const uint8_t *records, size_t size_bytes)
{
    uint8_t *packed = malloc(pack_room(size_bytes));

    save(name, packed, pack_records(records, size_bytes, packed));
    free(packed);
}

static void make_records(struct nh_block *a, struct nh_block *b, struct nh_block *u)
{
    size_t na = a->offsets[a->n], nb = b->offsets[b->n];
    uint8_t *both = malloc(na + nb);

    memcpy(both, a->data, na);
    memcpy(both + na, b->data, nb);
    save("records/sealed", a->data, na);
    save("records/two_terms", both, na + nb);
    save("records/unsealed", u->data, u->offsets[u->n]);
    save("records/one", a->data, a->offsets[1]);
    save_packed("pack/one", a->data, a->offsets[1]);
    save_packed("pack/two_terms", both, na + nb);
    free(both);
}

static void make_batches(struct nh_block *a, struct nh_block *b, struct nh_block *u)
{
    struct nh_run entries[2] = {{a, 1, 3}, {b, 0, 3}}, proposals[1] = {{u, 0, 2}};
    struct nh_member members[2] = {{1, NH_MEMBER_VOTER, "h1:26000"}, {2, NH_MEMBER_WITNESS, "h2:26000"}};
    uint64_t removed[2] = {3, 4};
    struct nh_snapshot snapshot = {
        .shard_id = 1, .index = 9, .term = 2, .checksum = 5, .file_path = (char *)"/d/s9", .dummy = true};
    struct nh_message m[] = {
        {.type = NH_MSG_REPLICATE, .shard_id = 1, .to = 2, .from = 1, .term = 3, .log_term = 2, .log_index = 10, .n_runs = 2},
        {.type = NH_MSG_PROPOSE, .shard_id = 1, .to = 2, .from = 1, .hint = 5, .hint_high = 2, .n_runs = 1},
        {.type = NH_MSG_INSTALL_SNAPSHOT, .shard_id = 1, .to = 2, .from = 1, .term = 3},
        {.type = NH_MSG_HEARTBEAT, .shard_id = 1, .to = 2, .from = 1, .term = 3, .commit = 300, .hint = 1, .hint_high = ~0ull},
        {.type = NH_MSG_HEARTBEAT_RESP, .shard_id = 4, .to = 1, .from = 2, .term = 3},
        {.type = NH_MSG_HEARTBEAT, .shard_id = 2, .to = 2, .from = 1, .term = 1},
        {.type = NH_MSG_REPLICATE_RESP, .reject = true, .shard_id = 9, .to = 2, .from = 1, .term = 8, .log_index = 6, .hint = 4},
    };

    snapshot.membership = (struct nh_membership){.n_members = 2, .n_removed = 2, .members = members, .removed = removed};
    m[0].runs = entries;
    m[1].runs = proposals;
    m[2].snapshot = &snapshot;
    save_batch("batch/all", m, sizeof m / sizeof m[0]);
    save_batch("batch/replicate", m, 1);
    save_batch("batch/propose", m + 1, 1);
    save_batch("batch/snapshot", m + 2, 1);
    save_batch("batch/heartbeats", m + 3, 3);
}

int main(int argc, char **argv)
{
    struct nh_block *a, *b, *u;

    if (argc != 2) {
        fprintf(stderr, "usage: make_corpus DIR\n");
        return 2;
    }
    root = argv[1];
    a = sealed(3, 10);
    b = sealed(4, 13);
    u = unsealed();
    make_records(a, b, u);
    make_batches(a, b, u);
    make_snapshots();
    nh_block_unref(a);
    nh_block_unref(b);
    nh_block_unref(u);
    return 0;
}
