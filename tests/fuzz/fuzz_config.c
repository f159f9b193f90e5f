/* The configuration over any text: it is accepted whole, or refused with a text that names file and line. */
#include <stdlib.h>
#include <string.h>

#include "cmd/nodehostd/config.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
    struct config *c = NULL;
    struct nh_error err = {0};
    int r = config_parse("file.yaml", (const char *)data, size_bytes, &c, &err);

    if (r < 0) {
        FUZZ_CHECK(strncmp(err.text, "file.yaml:", 10) == 0);
        return 0;
    }
    FUZZ_CHECK(c && config_find_peer(c, c->host.id));
    for (unsigned i = 0; i < c->shards_count; i++)
        FUZZ_CHECK(c->shards[i].count > 0 && c->shards[i].replicas_count > 0);
    config_free(c);
    return 0;
}
