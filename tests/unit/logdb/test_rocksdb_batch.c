/* RocksDB's write batches, read back: a version of it with another form would be noticed here. */
#include <criterion/criterion.h>
#include <rocksdb/c.h>
#include <stdlib.h>
#include <string.h>

#include "logdb/rocksdb/batch.h"

#define LARGE 300u /* its size has two bytes */

static char large[LARGE];

static rocksdb_writebatch_t *make(void)
{
    rocksdb_writebatch_t *b = rocksdb_writebatch_create();

    memset(large, 'x', sizeof large);
    rocksdb_writebatch_put(b, "key", 3, large, LARGE);
    rocksdb_writebatch_delete(b, "gone", 4);
    rocksdb_writebatch_delete_range(b, "from", 4, "to", 2);
    rocksdb_writebatch_put(b, "empty", 5, "", 0);
    return b;
}

static void expect(struct batch_reader *r, enum batch_kind kind, const char *key, const char *value, size_t value_bytes)
{
    struct batch_operation op;

    cr_assert_eq(batch_read(r, &op, NULL), 1);
    cr_assert_eq(op.kind, kind);
    cr_assert(op.key_bytes == strlen(key) && memcmp(op.key, key, op.key_bytes) == 0);
    cr_assert(op.value_bytes == value_bytes && (value_bytes == 0 || memcmp(op.value, value, value_bytes) == 0));
}

Test(batch, operations_are_read_back)
{
    rocksdb_writebatch_t *b = make();
    struct batch_operation op;
    struct batch_reader r;
    size_t size;
    const char *bytes = rocksdb_writebatch_data(b, &size);
    uint32_t count;

    memcpy(&count, bytes + BATCH_COUNT_AT, sizeof count);
    cr_assert_eq(count, 4);
    cr_assert_eq(batch_read_begin(&r, bytes, size, NULL), NH_OK);
    expect(&r, BATCH_PUT, "key", large, LARGE);
    expect(&r, BATCH_DELETE, "gone", NULL, 0);
    expect(&r, BATCH_DELETE_RANGE, "from", "to", 2);
    expect(&r, BATCH_PUT, "empty", NULL, 0);
    cr_assert_eq(batch_read(&r, &op, NULL), 0);
    rocksdb_writebatch_destroy(b);
}

/* Of a copy, so that a read behind its end is noticed. Returns what reading ends with. */
static int read_all(const char *bytes, size_t size)
{
    char *copy = malloc(size + 1);
    struct batch_operation op;
    struct batch_reader r;
    int status;

    cr_assert_not_null(copy);
    memcpy(copy + 1, bytes, size);
    status = batch_read_begin(&r, copy + 1, size, NULL);
    while (status >= 0 && (status = batch_read(&r, &op, NULL)) > 0)
        ;
    free(copy);
    return status;
}

Test(batch, one_that_is_cut_is_corrupt_or_shorter)
{
    rocksdb_writebatch_t *b = make();
    size_t size, n_whole = 0;
    const char *bytes = rocksdb_writebatch_data(b, &size);

    for (size_t i = 0; i <= size; i++) {
        int r = read_all(bytes, i);

        cr_assert(r == NH_OK || r == NH_ECORRUPT);
        n_whole += r == NH_OK;
    }
    cr_assert_eq(n_whole, 5, "between operations");
    rocksdb_writebatch_destroy(b);
}

Test(batch, what_the_store_does_not_write_is_corrupt)
{
    static const char head[BATCH_HEAD_BYTES] = {0};
    char bytes[BATCH_HEAD_BYTES + 10];

    memcpy(bytes, head, sizeof head);
    bytes[BATCH_HEAD_BYTES] = 2; /* a merge */
    memset(bytes + BATCH_HEAD_BYTES + 1, 1, 9);
    cr_assert_eq(read_all(bytes, sizeof bytes), NH_ECORRUPT);
    bytes[BATCH_HEAD_BYTES] = BATCH_DELETE;
    memset(bytes + BATCH_HEAD_BYTES + 1, 0xff, 9); /* a size without end */
    cr_assert_eq(read_all(bytes, sizeof bytes), NH_ECORRUPT);
}
