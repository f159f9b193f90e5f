#include "cmd/nodehostd/shard_hosts.h"

/* NULL and what is there already are left out. */
static void add(struct shard_hosts *h, const struct config_peer *peer)
{
    for (unsigned i = 0; i < h->n; i++)
        if (h->hosts[i] == peer)
            return;
    if (peer)
        h->hosts[h->n++] = peer;
}

static void add_members(const struct server *s, uint64_t shard_id, struct shard_hosts *h)
{
    struct nh_membership m = {0};

    if (nh_get_membership(s->host, shard_id, &m, NULL) < 0)
        return;
    for (uint32_t i = 0; i < m.n_members; i++)
        if (!nh_kind_is_witness(m.members[i].kind))
            add(h, config_find_peer(s->config, m.members[i].replica_id));
    nh_membership_deinit(&m);
}

static void find_here(const struct server *s, const struct nh_shard_info *info, struct shard_hosts *h)
{
    const struct config_peer *leader = config_find_peer(s->config, info->leader_id);

    h->is_here = !info->witness;
    h->has_master = info->leader_id != NH_NO_LEADER;
    if (h->has_master && (leader || h->is_here))
        add(h, leader ? leader : config_find_peer(s->config, s->config->host.id));
    add_members(s, info->shard_id, h);
    h->has_master = h->has_master && h->n > 0;
}

/* Our log store has failed: who leads is not known here, and it is not us. */
static void find_others(const struct server *s, uint64_t shard_id, struct shard_hosts *h)
{
    const struct config_peer *self = config_find_peer(s->config, s->config->host.id);

    add_members(s, shard_id, h);
    for (unsigned i = 0; i < h->n; i++)
        if (h->hosts[i] == self)
            h->hosts[i] = h->hosts[--h->n];
    h->has_master = h->n > 0;
}

bool shard_hosts_is_gone(const struct server *s, const struct config_peer *peer)
{
    return __atomic_load_n(&s->is_gone[peer - s->config->peers], __ATOMIC_RELAXED);
}

static void add_configured(const struct server *s, const struct config_shards *section, bool gone, struct shard_hosts *h)
{
    for (unsigned i = 0; i < section->replicas_count; i++) {
        uint64_t id = section->replicas[(s->next_place + i) % section->replicas_count];
        const struct config_peer *peer = config_find_peer(s->config, id);

        if (id != s->config->host.id && shard_hosts_is_gone(s, peer) == gone)
            add(h, peer);
    }
}

static void find_configured(const struct server *s, uint64_t shard_id, struct shard_hosts *h)
{
    const struct config_shards *section = config_find_section(s->config, shard_id);

    if (!section)
        return;
    add_configured(s, section, false, h);
    add_configured(s, section, true, h); /* what is there already stays where it is */
    h->has_master = h->n > 0;
}

void shard_hosts_find(const struct server *s, uint64_t shard_id, struct shard_hosts *ret)
{
    struct nh_shard_info info;

    *ret = (struct shard_hosts){0};
    if (nh_get_shard_info(s->host, shard_id, &info, NULL) < 0)
        find_configured(s, shard_id, ret);
    else if (server_log_failed(s))
        find_others(s, shard_id, ret);
    else
        find_here(s, &info, ret);
}
