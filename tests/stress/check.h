/* tests/stress/check.h - a check that ends the program: Criterion does not start under ThreadSanitizer. */
#ifndef NH_TESTS_STRESS_CHECK_H
#define NH_TESTS_STRESS_CHECK_H

#include <stdio.h>
#include <stdlib.h>

#define CHECK(cond)                                                            \
    do {                                                                       \
        if (!(cond)) {                                                         \
            fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #cond); \
            exit(1);                                                           \
        }                                                                      \
    } while (0)

#endif
