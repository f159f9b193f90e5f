/* tests/fuzz/fuzz.h - what a fuzz target is: one function that must survive any input. */
#ifndef NH_TESTS_FUZZ_H
#define NH_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* Returns 0. Aborts where the code under test breaks a promise. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes);

#define FUZZ_CHECK(cond)                                                       \
    do {                                                                       \
        if (!(cond)) {                                                         \
            fprintf(stderr, "%s:%d: broken: %s\n", __FILE__, __LINE__, #cond); \
            abort();                                                           \
        }                                                                      \
    } while (0)

#endif
