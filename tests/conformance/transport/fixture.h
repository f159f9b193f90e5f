/* tests/conformance/transport/fixture.h - hosts that talk over any ITransport, and what they received.
 *
 * The transport is chosen by NH_TRANSPORT_PLUGIN: "tcp" (default), "loopback", or the path of a shared object that exports
 * nh_transport_plugin. Every test is a process of its own. Waiting is bounded by AWAIT_S, and ends as soon as what is awaited
 * is there.
 */
#ifndef NH_TESTS_CONFORMANCE_TRANSPORT_FIXTURE_H
#define NH_TESTS_CONFORMANCE_TRANSPORT_FIXTURE_H

#include <criterion/criterion.h>
#include <pthread.h>

#include "raftio/transport.h"
#include "tests/addresses.h"

#define DEPLOYMENT 42u
#define AWAIT_S    20u

struct host {
    const struct nh_transport_ops *ops;
    struct nh_transport *t; /* NULL: closed */
    char address[ADDRESS_SIZE];
    pthread_mutex_t lock;
    uint32_t n_batches, n_messages, n_chunks; /* guarded by lock, as all below */
    uint64_t next_index;                      /* of the message that must come next; see send_numbered */
    bool out_of_order, doubled;
    uint32_t n_unreachable, n_failed, n_connected;
    size_t entry_bytes;
    bool refuse_chunks;
    uint32_t n_undrained;         /* batches since on_drained */
    pthread_t batch_thread;       /* of the last one */
    uint32_t n_drained;           /* that followed batches, on their thread */
    struct nh_connection *answer; /* in on_drained a message is sent here; NULL: none */
    char source[NH_ADDRESS_BYTES];
};

/* Free addresses for `n` hosts of this process. */
void hosts_init(struct host *hosts, size_t n);
/* Opens and starts; `config` may be NULL, its address, deployment (if 0) and services are filled in. */
void host_up(struct host *h, const struct nh_transport_config *config);
int host_try_up(struct host *h, const struct nh_transport_config *config, struct nh_error *err);
void host_down(struct host *h);
bool fixture_is(const char *name);

/* Sends one heartbeat that carries a number as its commit index. */
int send_numbered(struct host *from, struct nh_connection *c, uint64_t number);
/* Sends a Replicate with one entry of this size. */
int send_entry(struct host *from, struct nh_connection *c, size_t bytes);
struct nh_connection *connect_to(struct host *from, const struct host *to);

/* Waits until the counter (of a host, guarded by its lock) is at least `n`; false after AWAIT_S. */
bool await_at_least(struct host *h, const uint32_t *counter, uint32_t n);

#endif
