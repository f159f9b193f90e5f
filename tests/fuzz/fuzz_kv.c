/* The kv machine over any commands and queries (split where the bytes say): it answers each, and fails none. Two machines that
 * got the same commands are equal. */
#include <stdlib.h>
#include <string.h>

#include "cmd/machines/kv_command.h"
#include "nodehost/statemachine.h"
#include "tests/fuzz/fuzz.h"

const struct nh_machine_ops *nh_machine_plugin(void);

static int discard(void *ctx, const void *data, size_t size_bytes)
{
    (void)ctx;
    (void)data;
    (void)size_bytes;
    return 0;
}

static void apply(const struct nh_machine_ops *ops, struct nh_machine *m, const uint8_t *cmd, size_t size, uint64_t index)
{
    struct nh_entry e = {.index = index, .cmd = cmd, .size_bytes = size};
    struct nh_writer out = {discard, NULL};
    uint64_t kind = 99;

    FUZZ_CHECK(ops->update(m, &e, 1, NULL) == 0);
    FUZZ_CHECK(e.result.value <= KV_REPLY_ERROR);
    FUZZ_CHECK(ops->lookup(m, cmd, size, &out, &kind, NULL) == 0);
    FUZZ_CHECK(kind <= KV_REPLY_ERROR);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
    const struct nh_machine_ops *ops = nh_machine_plugin();
    struct nh_machine_args args = {.struct_size = sizeof args};
    struct nh_machine *a, *b;
    uint64_t applied, index = 0;

    FUZZ_CHECK(ops->open(&args, &a, &applied, NULL) == 0 && ops->open(&args, &b, &applied, NULL) == 0);
    while (size_bytes > 0) {
        size_t size = data[0] < size_bytes - 1 ? data[0] : size_bytes - 1;

        apply(ops, a, data + 1, size, ++index);
        apply(ops, b, data + 1, size, index);
        data += 1 + size;
        size_bytes -= 1 + size;
    }
    FUZZ_CHECK(ops->hash(a) == ops->hash(b));
    ops->close(a);
    ops->close(b);
    return 0;
}
