#include "engine/peers.h"

#include "engine/engine_private.h"
#include "engine/trace.h"
#include "raftio/support/memory.h"

/* Addresses that a replica remembers, of members and of those who wrote to it. */
#define REPLICA_PEERS_MAX (2u * NH_MEMBERS_MAX)

static struct outbox_peer *find(const struct replica *r, uint64_t replica_id)
{
    for (size_t i = 0; i < r->n_peers; i++)
        if (r->peers[i].replica_id == replica_id)
            return r->peers[i].peer;
    return NULL;
}

static struct outbox_peer *add(struct step_worker *w, struct replica *r, uint64_t replica_id, const char *address)
{
    struct outbox_peer *peer = r->n_peers < REPLICA_PEERS_MAX ? outbox_peer(&w->outbox, address, w->now_ns) : NULL;

    if (!peer)
        return NULL;
    array_reserve_tight((void **)&r->peers, &r->cap_peers, r->n_peers + 1, sizeof *r->peers);
    r->peers[r->n_peers++] = (struct replica_peer){replica_id, peer};
    return peer;
}

static struct outbox_peer *resolve(struct step_worker *w, struct replica *r, uint64_t replica_id)
{
    const struct engine_config *c = &w->engine->config;
    struct outbox_peer *peer = find(r, replica_id);
    char address[NH_ADDRESS_BYTES];

    if (peer || c->registry_ops->resolve(c->registry, r->shard_id, replica_id, address, NULL) != NH_OK)
        return peer;
    return add(w, r, replica_id, address);
}

/* A joining replica knows no members yet; it answers where it was written from. */
void peers_learn(struct step_worker *w, struct replica *r, const struct inbound_message *m)
{
    if (!find(r, m->message.from) && !resolve(w, r, m->message.from) && m->inbound->source[0])
        add(w, r, m->message.from, m->inbound->source);
}

void peers_send(struct step_worker *w, struct replica *r, struct nh_message *message)
{
    struct outbox_peer *peer = resolve(w, r, message->to);

    if (trace_is_on())
        trace_message(r->shard_id, message);
    if (peer)
        outbox_add(&w->outbox, peer, message);
    else
        nh_message_deinit(message);
}

void peers_unreachable(struct step_worker *w, struct replica *r, uint64_t peer_id)
{
    if (r->state != REPLICA_RUNNING)
        return;
    for (size_t i = 0; i < r->n_unreachable; i++)
        if (r->unreachable[i] == peer_id)
            return;
    array_reserve((void **)&r->unreachable, &r->cap_unreachable, r->n_unreachable + 1, sizeof *r->unreachable);
    r->unreachable[r->n_unreachable++] = peer_id;
    step_worker_activate(w, r);
}

void peers_lost(struct step_worker *w, struct replica *r, const struct nh_message *message)
{
    if (message->type == NH_MSG_PROPOSE)
        replica_end_proposals(r, message->hint, message->hint_high, NH_REQUEST_DROPPED, NH_DROP_OVERLOADED);
    peers_unreachable(w, r, message->to);
}

bool peers_leader_is_reachable(struct step_worker *w, struct replica *r)
{
    const struct outbox_peer *peer;

    if (r->leader_id == NH_NO_LEADER || r->leader_id == r->replica_id)
        return r->leader_id != NH_NO_LEADER;
    peer = resolve(w, r, r->leader_id);
    return !peer || !live_host_is_down(peer->host);
}

void peers_back(struct step_worker *w, struct replica *r, const struct outbox_peer *peer)
{
    if (r->state == REPLICA_RUNNING && r->leader_id != NH_NO_LEADER && r->leader_id != r->replica_id &&
        resolve(w, r, r->leader_id) == peer)
        step_worker_activate(w, r);
}

void peers_silent(struct step_worker *w, struct replica *r, const struct outbox_peer *peer)
{
    if (r->state != REPLICA_RUNNING || r->leader_id == NH_NO_LEADER || r->leader_id == r->replica_id)
        return;
    if (resolve(w, r, r->leader_id) != peer)
        return;
    if (!raft_is_quiesced(r->raft))
        return;
    r->wake = true;
    step_worker_activate(w, r);
}

void peers_register(struct step_worker *w, struct replica *r, const struct nh_membership *m)
{
    const struct engine_config *c = &w->engine->config;

    for (uint32_t i = 0; i < m->n_members; i++)
        c->registry_ops->add(c->registry, r->shard_id, m->members[i].replica_id, m->members[i].address, NULL);
    for (uint32_t i = 0; i < m->n_removed; i++)
        c->registry_ops->remove(c->registry, r->shard_id, m->removed[i]);
    r->n_peers = 0; /* resolved again when needed */
}

const char *peers_address(struct step_worker *w, struct replica *r, uint64_t replica_id)
{
    struct outbox_peer *peer = resolve(w, r, replica_id);

    return peer ? peer->host->address : NULL;
}
