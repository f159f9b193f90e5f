/* cmd/nodehostd/shard_hosts.h - which hosts have a shard, as far as this one knows.
 *
 * Of a shard with a replica here: its members as they are applied here, and its leader, whatever the configuration says: hosts
 * come and go. While our log store is fenced: the other members, as if one of them led. Of any other shard: the hosts that the
 * configuration names, without ourselves. A host that is no peer of the configuration has no address for clients, and a witness
 * has no data for them: neither is named.
 *
 * Threads: the loop's.
 */
#ifndef NH_CMD_NODEHOSTD_SHARD_HOSTS_H
#define NH_CMD_NODEHOSTD_SHARD_HOSTS_H

#include "cmd/nodehostd/server.h"

struct shard_hosts {
    bool is_here; /* this host has a replica that answers clients: no witness, no fenced log store */
    /* hosts[0] is whom to ask: the leader; ourselves, if the leader has no address for clients, as we pass on to it (where a
     * witness is: another member); of a shard without a replica here, each of its hosts in turn (s->next_place), as we have no
     * connection to some of them and do not know whether they live; those that are known to be gone come last. False: nobody
     * leads. */
    bool has_master;
    unsigned n;
    const struct config_peer *hosts[NH_MEMBERS_MAX + 1]; /* the leader may not be among the members that are applied here */
};

/* Our last connection to it failed, and there is none since. */
bool shard_hosts_is_gone(const struct server *s, const struct config_peer *peer);
void shard_hosts_find(const struct server *s, uint64_t shard_id, struct shard_hosts *ret);

#endif
