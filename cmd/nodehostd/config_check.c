#include "cmd/nodehostd/config_check.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <libgen.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cmd/nodehostd/buffer.h"
#include "cmd/nodehostd/slots.h"

#define PATH_STEPS_MAX  8
#define PLACE_BYTES_MAX 3072u

struct check {
    struct config *config;
    const char *path;
    const struct config_lines *lines;
    struct nh_error *err;
};

/* An error at the place that `where` names, steps separated by dots: "shards.2.replicas". */
static int refuse(const struct check *k, const char *where, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static int refuse(const struct check *k, const char *where, const char *fmt, ...)
{
    const char *steps[PATH_STEPS_MAX + 1] = {0};
    char copy[128], text[NH_ERROR_TEXT_BYTES], *save = NULL;
    va_list ap;
    int n = 0;

    snprintf(copy, sizeof copy, "%s", where);
    for (char *s = strtok_r(copy, ".", &save); s && n < PATH_STEPS_MAX; s = strtok_r(NULL, ".", &save))
        steps[n++] = s;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return nh_error_set(k->err, NH_EINVAL, "%s:%u: %s", k->path, config_lines_of(k->lines, steps), text);
}

bool config_split_address(const char *address, char *host, uint16_t *ret_port)
{
    const char *colon = strrchr(address, ':'), *end;
    size_t size;
    char *rest;
    unsigned long port;

    if (!colon || colon[1] < '0' || colon[1] > '9')
        return false;
    port = strtoul(colon + 1, &rest, 10);
    if (*rest || port == 0 || port > UINT16_MAX)
        return false;
    end = colon;
    if (address[0] == '[') {
        if (colon == address + 1 || colon[-1] != ']')
            return false;
        address++;
        end--;
    } else if (memchr(address, ':', (size_t)(colon - address))) {
        return false; /* IPv6 without brackets */
    }
    size = (size_t)(end - address);
    if (size == 0 || size >= NH_ADDRESS_BYTES - 8)
        return false;
    memcpy(host, address, size);
    host[size] = 0;
    *ret_port = (uint16_t)port;
    return true;
}

static int check_address(const struct check *k, const char *where, const char *address)
{
    char host[NH_ADDRESS_BYTES];
    uint16_t port;

    if (!config_split_address(address, host, &port))
        return refuse(k, where, "%s is \"%s\": write \"host:port\" with a port of 1 to 65535, IPv6 in brackets", where, address);
    return NH_OK;
}

/* Every interface of whoever reads it: good to listen at, and no host's own. */
static bool is_wildcard(const char *address)
{
    char host[NH_ADDRESS_BYTES];
    struct in6_addr v6;
    struct in_addr v4;
    uint16_t port;

    if (!config_split_address(address, host, &port))
        return false;
    if (inet_pton(AF_INET6, host, &v6) == 1)
        return IN6_IS_ADDR_UNSPECIFIED(&v6) || (IN6_IS_ADDR_V4MAPPED(&v6) && v6.s6_addr32[3] == INADDR_ANY);
    return inet_aton(host, &v4) && v4.s_addr == INADDR_ANY; /* as getaddrinfo takes them: also "0" */
}

/* One by which others reach a host. `bind`: the key for such a one if it is to listen at; NULL: there is none. */
static int check_own_address(const struct check *k, const char *where, const char *address, const char *bind)
{
    int r = check_address(k, where, address);

    if (r < 0 || !is_wildcard(address))
        return r;
    if (!bind)
        return refuse(k, where, "%s is \"%s\", where nobody can reach a host: write the address that other hosts and clients use",
                      where, address);
    return refuse(k, where, "%s is \"%s\", where nobody can reach a host: write the address that others use, and \"%s\" as %s",
                  where, address, address, bind);
}

int config_check_member(const struct config *c, uint64_t id, const char *address, struct nh_error *err)
{
    const struct config_peer *peer = config_find_peer(c, id);
    char host[NH_ADDRESS_BYTES];
    uint16_t port;

    if (!config_split_address(address, host, &port))
        return nh_error_set(err, NH_EINVAL,
                            "member %" PRIu64 " is at \"%s\": write \"host:port\" with a port of 1 to 65535, IPv6 in brackets",
                            id, address);
    if (is_wildcard(address))
        return nh_error_set(err, NH_EINVAL,
                            "member %" PRIu64
                            " is at \"%s\", where nobody can reach it: write the address that is raft.listen in "
                            "the configuration of its host",
                            id, address);
    if (peer && strcmp(peer->raft, address) != 0)
        return nh_error_set(err, NH_EINVAL, "member %" PRIu64 " is at \"%s\", but peers call this host %s: make them equal", id,
                            address, peer->raft);
    return NH_OK;
}

static int check_listens(const struct check *k)
{
    const struct config_raft *raft = &k->config->raft;
    const struct config_redis *redis = &k->config->redis;
    const char *a = raft->bind ? raft->bind : raft->listen, *b = redis->bind ? redis->bind : redis->listen;
    int r = check_own_address(k, "raft.listen", raft->listen, "raft.bind");

    if (r == NH_OK)
        r = check_own_address(k, "redis.listen", redis->listen, "redis.bind");
    if (r == NH_OK && raft->bind)
        r = check_address(k, "raft.bind", raft->bind);
    if (r == NH_OK && redis->bind)
        r = check_address(k, "redis.bind", redis->bind);
    if (r == NH_OK && strcmp(a, b) == 0 && (raft->bind || redis->bind))
        r = refuse(k, raft->bind ? "raft.bind" : "redis.bind", "raft and redis would both listen at %s: give each its own", a);
    return r;
}

static int check_range(const struct check *k, const char *where, uint64_t value, uint64_t min, uint64_t max)
{
    if (value >= min && value <= max)
        return NH_OK;
    return refuse(k, where, "%s is %" PRIu64 ": give a number from %" PRIu64 " to %" PRIu64, where, value, min, max);
}

static int check_host(const struct check *k)
{
    const struct config *c = k->config;
    int r = check_range(k, "host.id", c->host.id, 1, UINT32_MAX);

    if (r == NH_OK)
        r = check_range(k, "host.deployment_id", c->host.deployment_id, 1, INT64_MAX);
    if (r == NH_OK && !c->host.data_dir[0])
        r = refuse(k, "host.data_dir", "host.data_dir is empty: name a directory");
    if (r == NH_OK)
        r = check_range(k, "raft.rtt_ms", c->raft.rtt_ms, 1, 10000);
    if (r == NH_OK && c->raft.step_workers)
        r = check_range(k, "raft.step_workers", c->raft.step_workers, 1, 64);
    if (r == NH_OK && c->raft.apply_workers)
        r = check_range(k, "raft.apply_workers", c->raft.apply_workers, 1, 64);
    if (r == NH_OK)
        r = check_range(k, "redis.timeout_ms", c->redis.timeout_ms, 1, CONFIG_TIMEOUT_MS_MAX);
    if (r == NH_OK)
        r = check_range(k, "redis.max_clients", c->redis.max_clients, 1, CONFIG_CLIENTS_MAX);
    return r == NH_OK ? check_listens(k) : r;
}

/* ---- snapshots ---- */

static int check_place(const struct check *k, const char *where, const char *path)
{
    if (!path || (path[0] == '/' && strlen(path) < PLACE_BYTES_MAX))
        return NH_OK;
    return refuse(k, where, "%s is \"%s\": write an absolute path of less than %u characters", where, path, PLACE_BYTES_MAX);
}

static int check_snapshots(const struct check *k)
{
    const struct config_snapshots *s = &k->config->snapshots;
    int r = check_place(k, "snapshots.dir", s->dir);

    if (r == NH_OK)
        r = check_place(k, "snapshots.export_dir", s->export_dir);
    if (r == NH_OK && s->workers)
        r = check_range(k, "snapshots.workers", s->workers, 1, 16);
    if (r == NH_OK && s->streams_max)
        r = check_range(k, "snapshots.streams_max", s->streams_max, 1, 1024);
    return r;
}

/* ---- peers ---- */

static int check_doubles(const struct check *k, unsigned i)
{
    const struct config_peer *p = k->config->peers;
    char where[64];

    snprintf(where, sizeof where, "peers.%u", i);
    for (unsigned j = 0; j < i; j++) {
        if (p[j].id == p[i].id)
            return refuse(k, where, "two peers have the id %" PRIu64 ": give each host its own", p[i].id);
        if (strcmp(p[j].raft, p[i].raft) == 0 || strcmp(p[j].redis, p[i].redis) == 0)
            return refuse(k, where, "peers %" PRIu64 " and %" PRIu64 " have the same address: give each its own", p[j].id,
                          p[i].id);
    }
    if (strcmp(p[i].raft, p[i].redis) == 0)
        return refuse(k, where, "peer %" PRIu64 " has one address for raft and redis: give two", p[i].id);
    return NH_OK;
}

static int check_peer(const struct check *k, unsigned i)
{
    const struct config_peer *p = &k->config->peers[i];
    char where[64];
    int r;

    snprintf(where, sizeof where, "peers.%u.id", i);
    r = check_range(k, where, p->id, 1, UINT32_MAX);
    snprintf(where, sizeof where, "peers.%u.raft", i);
    if (r == NH_OK)
        r = check_own_address(k, where, p->raft, NULL);
    snprintf(where, sizeof where, "peers.%u.redis", i);
    if (r == NH_OK)
        r = check_own_address(k, where, p->redis, NULL);
    return r == NH_OK ? check_doubles(k, i) : r;
}

static int check_ourselves(const struct check *k)
{
    const struct config *c = k->config;
    const struct config_peer *self = config_find_peer(c, c->host.id);

    if (!self)
        return refuse(k, "host.id", "host.id is %" PRIu64 ", but no peer has this id: add ourselves to peers", c->host.id);
    if (strcmp(self->raft, c->raft.listen) != 0)
        return refuse(k, "raft.listen", "raft.listen is %s, but peers call this host %s: make them equal", c->raft.listen,
                      self->raft);
    if (strcmp(self->redis, c->redis.listen) != 0)
        return refuse(k, "redis.listen", "redis.listen is %s, but peers say %s: make them equal", c->redis.listen, self->redis);
    return NH_OK;
}

static int check_peers(const struct check *k)
{
    int r = NH_OK;

    if (k->config->peers_count == 0)
        return refuse(k, "peers", "peers is empty: list every host, ourselves too");
    for (unsigned i = 0; i < k->config->peers_count && r == NH_OK; i++)
        r = check_peer(k, i);
    return r == NH_OK ? check_ourselves(k) : r;
}

/* ---- shards ---- */

static int check_machine(const struct check *k, const char *where, const char *name)
{
    size_t n = strlen(name);

    if (n == 0 || n >= CONFIG_MACHINE_BYTES ||
        strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") != n)
        return refuse(k, where,
                      "machine \"%s\": use a name of up to %u letters, digits, - and _, as of a file in the plugin directory",
                      name, CONFIG_MACHINE_BYTES - 1);
    return NH_OK;
}

static int check_replicas(const struct check *k, const char *where, const struct config_shards *s)
{
    if (s->replicas_count == 0)
        return refuse(k, where, "replicas is empty: name at least one host");
    for (unsigned i = 0; i < s->replicas_count; i++) {
        if (!config_find_peer(k->config, s->replicas[i]))
            return refuse(k, where, "replica %" PRIu64 " is no peer: use ids from peers", s->replicas[i]);
        for (unsigned j = 0; j < i; j++)
            if (s->replicas[j] == s->replicas[i])
                return refuse(k, where, "replica %" PRIu64 " is named twice", s->replicas[i]);
    }
    return NH_OK;
}

static int check_overlap(const struct check *k, const char *where, unsigned i)
{
    const struct config_shards *s = k->config->shards;

    for (unsigned j = 0; j < i; j++)
        if (s[i].first < s[j].first + s[j].count && s[j].first < s[i].first + s[i].count)
            return refuse(k, where,
                          "shards %" PRIu64 " .. %" PRIu64 " overlap with %" PRIu64 " .. %" PRIu64 ": ids belong to one section",
                          s[i].first, s[i].first + s[i].count - 1, s[j].first, s[j].first + s[j].count - 1);
    return NH_OK;
}

static int check_timing(const struct check *k, const char *where, const struct config_shards *s)
{
    if (s->heartbeat_rtt == 0 || s->election_rtt > 10000 || s->election_rtt / 2 < s->heartbeat_rtt ||
        s->election_rtt - s->heartbeat_rtt <= s->heartbeat_rtt)
        return refuse(k, where,
                      "election_rtt %" PRIu32 " and heartbeat_rtt %" PRIu32
                      ": election_rtt must be more than twice heartbeat_rtt, at most 10000",
                      s->election_rtt, s->heartbeat_rtt);
    return NH_OK;
}

static int check_leases(const struct check *k, const char *section, const struct config_shards *s)
{
    char where[96];

    snprintf(where, sizeof where, "%s.lease_reads", section);
    if (config_is_on(s->lease_reads, false) && !config_is_on(s->check_quorum, true))
        return refuse(k, where,
                      "lease_reads needs check_quorum, without which nobody is bound by a lease: remove check_quorum: false, or "
                      "lease_reads");
    return NH_OK;
}

static int check_limits(const struct check *k, const char *section, const struct config_shards *s)
{
    char where[96];
    int r = NH_OK;

    snprintf(where, sizeof where, "%s.snapshots_kept", section);
    if (s->snapshots_kept)
        r = check_range(k, where, s->snapshots_kept, 1, 64);
    snprintf(where, sizeof where, "%s.sessions_max", section);
    if (r == NH_OK && s->sessions_max)
        r = check_range(k, where, s->sessions_max, 1, 65536);
    snprintf(where, sizeof where, "%s.automatic_snapshots", section);
    if (r == NH_OK && s->automatic_snapshots == CONFIG_OFF && (s->snapshot_entries || s->snapshot_bytes))
        r = refuse(
            k, where,
            "automatic_snapshots is off, so that snapshot_entries and snapshot_bytes mean nothing: remove one or the other");
    return r;
}

static int check_section(const struct check *k, unsigned i)
{
    const struct config_shards *s = &k->config->shards[i];
    char where[64];
    int r;

    snprintf(where, sizeof where, "shards.%u.first", i);
    r = check_range(k, where, s->first, 1, INT64_MAX / 2);
    snprintf(where, sizeof where, "shards.%u.count", i);
    if (r == NH_OK)
        r = check_range(k, where, s->count, 1, CONFIG_SHARDS_MAX);
    snprintf(where, sizeof where, "shards.%u.machine", i);
    if (r == NH_OK)
        r = check_machine(k, where, s->machine);
    snprintf(where, sizeof where, "shards.%u.replicas", i);
    if (r == NH_OK)
        r = check_replicas(k, where, s);
    snprintf(where, sizeof where, "shards.%u", i);
    if (r == NH_OK)
        r = check_timing(k, where, s);
    if (r == NH_OK)
        r = check_leases(k, where, s);
    if (r == NH_OK)
        r = check_limits(k, where, s);
    return r == NH_OK ? check_overlap(k, where, i) : r;
}

static int check_shards(const struct check *k)
{
    uint64_t n = 0, n_kv = 0;
    int r = NH_OK;

    for (unsigned i = 0; i < k->config->shards_count && r == NH_OK; i++) {
        r = check_section(k, i);
        n += k->config->shards[i].count;
        n_kv += config_is_kv(&k->config->shards[i]) ? k->config->shards[i].count : 0;
    }
    if (r == NH_OK && n > CONFIG_SHARDS_MAX)
        return refuse(k, "shards", "%" PRIu64 " shards, the limit is %u", n, CONFIG_SHARDS_MAX);
    if (r == NH_OK && n_kv > SLOTS_TOTAL)
        return refuse(k, "shards", "%" PRIu64 " shards of the machines kv and kv-disk, but there are only %u slots for keys",
                      n_kv, SLOTS_TOTAL);
    return r;
}

static void set_defaults(struct config *c)
{
    c->host.deployment_id = c->host.deployment_id ? c->host.deployment_id : 1;
    c->raft.rtt_ms = c->raft.rtt_ms ? c->raft.rtt_ms : 100;
    c->redis.timeout_ms = c->redis.timeout_ms ? c->redis.timeout_ms : 5000;
    c->redis.max_clients = c->redis.max_clients ? c->redis.max_clients : 10000;
    for (unsigned i = 0; i < c->shards_count; i++) {
        c->shards[i].election_rtt = c->shards[i].election_rtt ? c->shards[i].election_rtt : 10;
        c->shards[i].heartbeat_rtt = c->shards[i].heartbeat_rtt ? c->shards[i].heartbeat_rtt : 1;
    }
}

/* ---- what is on this machine ---- */

/* The one that is made before all others. */
static bool is_data_dir(const struct config *c, const char *path)
{
    size_t n = strlen(path);

    return strncmp(path, c->host.data_dir, n) == 0 && strspn(c->host.data_dir + n, "/") == strlen(c->host.data_dir + n);
}

static int check_directory(const struct check *k, const char *where, const char *path)
{
    char *copy, *parent;
    struct stat st;
    int r = NH_OK;

    if (!path)
        return NH_OK;
    if (stat(path, &st) == 0)
        return S_ISDIR(st.st_mode) ? NH_OK : refuse(k, where, "%s is \"%s\", which is no directory: name another", where, path);
    copy = must_alloc(strdup(path));
    parent = dirname(copy);
    if (!is_data_dir(k->config, parent) && (stat(parent, &st) < 0 || !S_ISDIR(st.st_mode)))
        r = refuse(k, where,
                   "%s is \"%s\", but there is no directory \"%s\" to make it in, and that is not made, as it may belong on a "
                   "disk that is not mounted: mount that, make the directory, or name another",
                   where, path, parent);
    free(copy);
    return r;
}

int config_check_places(struct config *c, const char *path, const struct config_lines *lines, struct nh_error *err)
{
    struct check k = {c, path, lines, err};
    int r = check_directory(&k, "host.data_dir", c->host.data_dir);

    if (r == NH_OK)
        r = check_directory(&k, "host.wal_dir", c->host.wal_dir);
    if (r == NH_OK)
        r = check_directory(&k, "snapshots.dir", c->snapshots.dir);
    return r == NH_OK ? check_directory(&k, "snapshots.export_dir", c->snapshots.export_dir) : r;
}

int config_check(struct config *c, const char *path, const struct config_lines *lines, struct nh_error *err)
{
    struct check k = {c, path, lines, err};
    int r;

    set_defaults(c);
    r = check_host(&k);
    if (r == NH_OK)
        r = check_snapshots(&k);
    if (r == NH_OK)
        r = check_peers(&k);
    return r == NH_OK ? check_shards(&k) : r;
}
