/* tests/fuzz/make_corpus.h - what the makers of the corpora share. */
#ifndef NH_TESTS_FUZZ_MAKE_CORPUS_H
#define NH_TESTS_FUZZ_MAKE_CORPUS_H

#include <stddef.h>

/* Writes a file of the corpora, "target/name"; ends the program if that fails. */
void save(const char *name, const void *data, size_t size_bytes);
/* Session tables and images. */
void make_snapshots(void);

#endif
