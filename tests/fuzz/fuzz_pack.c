/* unpack_records over any bytes; what is accepted packs and unpacks to the same records again. */
#include <stdlib.h>
#include <string.h>

#include "logdb/rocksdb/pack.h"
#include "raftio/entry.h"
#include "raftio/support/memory.h"
#include "tests/fuzz/fuzz.h"

#define FIRST 9u

/* A key that does not follow can stand in a group, a record whose index does not follow or which is not padded with zeros only in
 * a raw one; their checksums are not looked at here. */
static void pack_again(const struct unpacked *u)
{
    uint8_t *packed = xmalloc(pack_room(u->size_bytes));
    size_t size = pack_records(u->data, u->size_bytes, packed);
    struct unpacked back = {0};

    FUZZ_CHECK(size <= pack_room(u->size_bytes));
    FUZZ_CHECK(unpack_records(packed, size, FIRST, &back, NULL) == NH_OK);
    FUZZ_CHECK(back.size_bytes == u->size_bytes);
    free(back.data);
    free(packed);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
    struct unpacked u = {0};
    struct nh_error err = {0};

    if (unpack_records(data, size_bytes, FIRST, &u, &err) == NH_OK)
        pack_again(&u);
    else
        FUZZ_CHECK(err.code == NH_ECORRUPT);
    free(u.data);
    return 0;
}
