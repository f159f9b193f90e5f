/* logdb/rocksdb/async_write.h - one write to a file that is under way while its caller does something else.
 *
 * The kernel's own asynchronous I/O (io_submit): past the page cache (O_DIRECT), and into bytes that the file has already, nobody
 * waits for the disk until async_write_end. What is written is durable then, as if fdatasync had followed (RWF_DSYNC).
 *
 * Where kernel, container or file system refuse it, async_write_begin says so, and its caller writes himself.
 *
 * Threads: one at a time; begin and end may be on different ones.
 */
#ifndef NH_LOGDB_ROCKSDB_ASYNC_WRITE_H
#define NH_LOGDB_ROCKSDB_ASYNC_WRITE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "raftio/support/short_wait.h"

/* Zeroed at first. */
struct async_write {
    unsigned long context; /* the kernel's; 0: none yet */
    bool refused;          /* it is not tried again */
    bool under_way;
    bool polls; /* set by the caller: the end of the next one is polled for, if that pays */
    struct short_wait wait;
};

/* Begins to write; `data` stays as it is until the end. False: nothing was begun. */
bool async_write_begin(struct async_write *w, int fd, const void *data, size_t size_bytes, uint64_t at);
/* Waits for it. Returns how many bytes are durable, perhaps fewer than asked for (0, too, if it is refused only
 * now), or a negative errno. */
int64_t async_write_end(struct async_write *w);
/* Waits for what is under way; nobody learns how it ended. */
void async_write_deinit(struct async_write *w);

#endif
