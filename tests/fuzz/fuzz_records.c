/* run_list_decode over any bytes, sealed and unsealed. What is accepted must be there unchanged, in order and in blocks of
 * one term; what is refused must leave the list as it was. */
#include <string.h>

#include "raftio/support/block.h"
#include "tests/fuzz/fuzz.h"

static void check_bytes(const struct run_list *l, const uint8_t *data, size_t size_bytes)
{
    FUZZ_CHECK(run_list_bytes(l) == size_bytes);
    for (uint32_t i = 0; i < l->n; i++) {
        const struct nh_run *run = &l->runs[i];

        FUZZ_CHECK(((uintptr_t)nh_run_data(run) & (NH_RECORD_ALIGN - 1)) == 0);
        FUZZ_CHECK(memcmp(nh_run_data(run), data, nh_run_size(run)) == 0);
        data += nh_run_size(run);
    }
}

static void check_order(const struct run_list *l)
{
    for (uint32_t i = 0; i < l->n; i++) {
        const struct nh_block *b = l->runs[i].block;

        FUZZ_CHECK(i == 0 || nh_run_first(&l->runs[i]) == nh_run_last(&l->runs[i - 1]) + 1);
        FUZZ_CHECK(i == 0 || nh_run_term(&l->runs[i]) > nh_run_term(&l->runs[i - 1]));
        for (uint32_t k = 0; k < b->n; k++) {
            struct nh_entry_view v;

            nh_record_view(b->data + b->offsets[k], &v);
            FUZZ_CHECK(v.term == b->term && v.index == b->first_index + k);
            FUZZ_CHECK(v.payload + v.payload_bytes <= b->data + b->offsets[k + 1]);
        }
    }
}

static void try_sealed(const uint8_t *data, size_t size_bytes)
{
    struct run_list l = {0};
    struct nh_error err = {0};

    if (run_list_decode(&l, data, size_bytes, 0, &err) == NH_OK) {
        uint32_t n = l.n;

        check_bytes(&l, data, size_bytes);
        check_order(&l);
        /* The same again does not continue the list. */
        if (n > 0)
            FUZZ_CHECK(run_list_decode(&l, data, size_bytes, 0, &err) == NH_ECORRUPT && l.n == n);
    } else {
        FUZZ_CHECK(err.code == NH_ECORRUPT && l.n == 0);
    }
    run_list_deinit(&l);
}

static void try_unsealed(const uint8_t *data, size_t size_bytes)
{
    struct block_builder builder = {0};
    struct run_list l = {0};
    int a = run_list_decode_unsealed(&l, data, size_bytes, NULL);
    int b = block_builder_add_encoded(&builder, data, size_bytes, NULL);

    FUZZ_CHECK(a == b && (a == NH_OK || a == NH_ECORRUPT));
    if (a == NH_OK)
        check_bytes(&l, data, size_bytes);
    else
        FUZZ_CHECK(l.n == 0 && builder.n == 0);
    if (builder.n > 0) {
        struct nh_block *sealed = block_seal(&builder, 3, 9);

        run_list_deinit(&l);
        FUZZ_CHECK(run_list_decode(&l, sealed->data, sealed->offsets[sealed->n], 9, NULL) == NH_OK);
        nh_block_unref(sealed);
    }
    run_list_deinit(&l);
    block_builder_deinit(&builder);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
    try_sealed(data, size_bytes);
    try_unsealed(data, size_bytes);
    return 0;
}
