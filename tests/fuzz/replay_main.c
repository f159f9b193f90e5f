/* Gives every file of the directories in argv to the fuzz target, and cut and damaged forms of each: what libFuzzer would
 * try first, so that the ordinary suite is worth more than the corpus alone. */
#include <dirent.h>
#include <limits.h>
#include <string.h>

#include "tests/fuzz/fuzz.h"

#define FILE_BYTES_MAX (1u << 20)
#define DAMAGES        512u

/* The target gets a copy of exactly the right size, so that a sanitizer sees every byte read past the end. */
static void run(const uint8_t *data, size_t size_bytes)
{
    uint8_t *copy = malloc(size_bytes ? size_bytes : 1);

    FUZZ_CHECK(copy);
    if (size_bytes)
        memcpy(copy, data, size_bytes);
    LLVMFuzzerTestOneInput(copy, size_bytes);
    free(copy);
}

static uint32_t next_random(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

static void replay(uint8_t *data, size_t size_bytes)
{
    size_t step = size_bytes / DAMAGES + 1;
    uint32_t random = 1;

    run(data, size_bytes);
    for (size_t n = 0; n < size_bytes; n += step)
        run(data, n);
    for (unsigned i = 0; size_bytes && i < DAMAGES; i++) {
        size_t at = next_random(&random) % size_bytes;
        uint8_t kept = data[at];

        data[at] ^= (uint8_t)(1u << next_random(&random) % 8);
        run(data, size_bytes);
        data[at] = kept;
    }
}

static void replay_file(const char *path)
{
    uint8_t *data = malloc(FILE_BYTES_MAX);
    FILE *f = fopen(path, "rb");
    size_t n;

    FUZZ_CHECK(data && f);
    n = fread(data, 1, FILE_BYTES_MAX, f);
    FUZZ_CHECK(!ferror(f) && n < FILE_BYTES_MAX);
    fclose(f);
    replay(data, n);
    free(data);
}

int main(int argc, char **argv)
{
    unsigned n_files = 0;

    for (int i = 1; i < argc; i++) {
        DIR *dir = opendir(argv[i]);
        struct dirent *e;

        if (!dir) {
            perror(argv[i]);
            return 1;
        }
        while ((e = readdir(dir))) {
            char path[PATH_MAX];

            if (e->d_name[0] == '.')
                continue;
            if (snprintf(path, sizeof path, "%s/%s", argv[i], e->d_name) >= (int)sizeof path)
                return 1;
            replay_file(path);
            n_files++;
        }
        closedir(dir);
    }
    printf("%u files\n", n_files);
    return n_files ? 0 : 1; /* an empty corpus tests nothing */
}
