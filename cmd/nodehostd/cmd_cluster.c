/* CLUSTER: hosts as nodes, shards as ranges of slots. The leader of a shard, as this host knows it, is the master of its slots;
 * but any host that has a replica answers for its keys, so a client that goes there loses a hop and nothing more. Others send it
 * on by MOVED (request.c). */
#include "cmd/nodehostd/command.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/nodehostd/shard_hosts.h"
#include "cmd/nodehostd/slots.h"

#define NODE_ID_BYTES 41u

/* 40 hexadecimal digits, the same on every host. */
static void node_id(const struct server *s, uint64_t host_id, char out[NODE_ID_BYTES])
{
    snprintf(out, NODE_ID_BYTES, "%024" PRIx64 "%016" PRIx64, s->config->host.deployment_id, host_id);
}

/* Whom to ask for the slots of each shard, by host id, in order; 0: nobody leads. To be freed. */
static uint64_t *find_masters(const struct server *s)
{
    uint64_t *masters = must_alloc(calloc(s->n_kv + 1, sizeof *masters));

    for (uint32_t i = 0; i < s->n_kv; i++) {
        struct shard_hosts h;

        shard_hosts_find(s, s->kv_shards[i], &h);
        masters[i] = h.has_master ? h.hosts[0]->id : 0;
    }
    return masters;
}

static void cluster_info(struct call *call)
{
    const struct server *s = call->server;
    uint64_t *masters = find_masters(s);
    struct buffer text = {0};
    uint32_t ok = 0;

    for (uint32_t i = 0; i < s->n_kv; i++)
        ok += masters[i] ? slot_first(i + 1, s->n_kv) - slot_first(i, s->n_kv) : 0;
    buffer_printf(&text,
                  "cluster_state:%s\r\ncluster_slots_assigned:%u\r\ncluster_slots_ok:%u\r\ncluster_slots_pfail:0\r\n"
                  "cluster_slots_fail:%u\r\ncluster_known_nodes:%u\r\ncluster_size:%u\r\ncluster_current_epoch:1\r\n"
                  "cluster_my_epoch:1\r\n",
                  ok == SLOTS_TOTAL ? "ok" : "fail", s->n_kv ? SLOTS_TOTAL : 0, ok, s->n_kv ? SLOTS_TOTAL - ok : 0,
                  s->config->peers_count, s->config->peers_count);
    reply_verbatim(&call->reply, call->resp, text.data, text.size);
    buffer_deinit(&text);
    free(masters);
}

/* The slots that a host is to be asked for, neighbours joined: " 0-99 200-300". */
static void add_slots(const struct server *s, const uint64_t *masters, uint64_t host_id, struct buffer *b)
{
    for (uint32_t i = 0; i < s->n_kv; i++) {
        uint32_t first = i, begin, end;

        if (masters[i] != host_id)
            continue;
        while (i + 1 < s->n_kv && masters[i + 1] == host_id)
            i++;
        begin = slot_first(first, s->n_kv);
        end = slot_first(i + 1, s->n_kv) - 1;
        if (begin == end)
            buffer_printf(b, " %u", begin);
        else
            buffer_printf(b, " %u-%u", begin, end);
    }
}

static void cluster_nodes(struct call *call)
{
    const struct server *s = call->server;
    uint64_t *masters = find_masters(s);
    struct buffer text = {0};

    for (unsigned i = 0; i < s->config->peers_count; i++) {
        const struct config_peer *p = &s->config->peers[i];
        char id[NODE_ID_BYTES], host[NH_ADDRESS_BYTES];
        uint16_t port = 0, bus_port = 0;
        bool gone = shard_hosts_is_gone(s, p); /* as it seems from here: "fail?", as with Redis */

        node_id(s, p->id, id);
        config_split_address(p->raft, host, &bus_port);
        config_split_address(p->redis, host, &port);
        buffer_printf(&text, "%s %s:%u@%u %smaster%s - 0 0 %" PRIu64 " %s", id, host, port, bus_port,
                      p->id == s->config->host.id ? "myself," : "", gone ? ",fail?" : "", p->id,
                      gone ? "disconnected" : "connected");
        add_slots(s, masters, p->id, &text);
        buffer_add_text(&text, "\n");
    }
    reply_verbatim(&call->reply, call->resp, text.data, text.size);
    buffer_deinit(&text);
    free(masters);
}

static void add_node(const struct server *s, const struct config_peer *p, struct buffer *b)
{
    char id[NODE_ID_BYTES], host[NH_ADDRESS_BYTES];
    uint16_t port = 0;

    node_id(s, p->id, id);
    config_split_address(p->redis, host, &port);
    reply_array(b, 3);
    reply_text(b, host);
    reply_integer(b, port);
    reply_text(b, id);
}

static void cluster_slots(struct call *call)
{
    const struct server *s = call->server;
    struct buffer list = {0};
    size_t n = 0;

    for (uint32_t i = 0; i < s->n_kv; i++) {
        struct shard_hosts h;

        shard_hosts_find(s, s->kv_shards[i], &h);
        if (!h.has_master)
            continue; /* nobody leads: these slots are not served at present */
        reply_array(&list, 2 + h.n);
        reply_integer(&list, slot_first(i, s->n_kv));
        reply_integer(&list, slot_first(i + 1, s->n_kv) - 1);
        for (unsigned k = 0; k < h.n; k++)
            add_node(s, h.hosts[k], &list);
        n++;
    }
    reply_array(&call->reply, n);
    buffer_add(&call->reply, list.data, list.size);
    buffer_deinit(&list);
}

static void add_shard_node(struct call *call, const struct config_peer *p, bool is_master)
{
    char id[NODE_ID_BYTES], host[NH_ADDRESS_BYTES];
    struct buffer *b = &call->reply;
    uint16_t port = 0;

    node_id(call->server, p->id, id);
    config_split_address(p->redis, host, &port);
    reply_map(b, call->resp, 7);
    reply_text(b, "id");
    reply_text(b, id);
    reply_text(b, "port");
    reply_integer(b, port);
    reply_text(b, "ip");
    reply_text(b, host);
    reply_text(b, "endpoint");
    reply_text(b, host);
    reply_text(b, "role");
    reply_text(b, is_master ? "master" : "replica");
    reply_text(b, "replication-offset");
    reply_integer(b, 0);
    reply_text(b, "health");
    reply_text(b, shard_hosts_is_gone(call->server, p) ? "fail" : "online");
}

static void cluster_shards(struct call *call)
{
    const struct server *s = call->server;
    struct buffer *b = &call->reply;

    reply_array(b, s->n_kv);
    for (uint32_t i = 0; i < s->n_kv; i++) {
        struct shard_hosts h;

        shard_hosts_find(s, s->kv_shards[i], &h);
        reply_map(b, call->resp, 2);
        reply_text(b, "slots");
        reply_array(b, 2);
        reply_integer(b, slot_first(i, s->n_kv));
        reply_integer(b, slot_first(i + 1, s->n_kv) - 1);
        reply_text(b, "nodes");
        reply_array(b, h.n);
        for (unsigned k = 0; k < h.n; k++)
            add_shard_node(call, h.hosts[k], h.has_master && k == 0);
    }
}

void cmd_cluster(struct call *call)
{
    static const char usage[] = "CLUSTER INFO | KEYSLOT key | MYID | NODES | SHARDS | SLOTS";
    struct kv_slice sub = call->args[1];
    char id[NODE_ID_BYTES];

    call->server->next_place++;
    if (arg_is(sub, "keyslot") && call->n_args == 3) {
        reply_integer(&call->reply, slot_of_key(call->args[2].data, call->args[2].size));
    } else if (call->n_args != 2) {
        reply_unknown_subcommand(call, usage);
    } else if (arg_is(sub, "info")) {
        cluster_info(call);
    } else if (arg_is(sub, "nodes")) {
        cluster_nodes(call);
    } else if (arg_is(sub, "slots")) {
        cluster_slots(call);
    } else if (arg_is(sub, "shards")) {
        cluster_shards(call);
    } else if (arg_is(sub, "myid")) {
        node_id(call->server, call->server->config->host.id, id);
        reply_text(&call->reply, id);
    } else {
        reply_unknown_subcommand(call, usage);
    }
}
