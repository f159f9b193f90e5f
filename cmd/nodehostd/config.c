#include "cmd/nodehostd/config.h"

#include <cyaml/cyaml.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/nodehostd/buffer.h"
#include "cmd/nodehostd/config_check.h"
#include "cmd/nodehostd/config_lines.h"
#include "cmd/nodehostd/config_numbers.h"

/* ---- the schema ---- */

#define STRING(name, flags, type, member) \
    CYAML_FIELD_STRING_PTR(name, CYAML_FLAG_POINTER | (flags), type, member, 0, CYAML_UNLIMITED)
#define NEEDED   CYAML_FLAG_DEFAULT
#define OPTIONAL CYAML_FLAG_OPTIONAL

static const cyaml_strval_t switch_words[] = {
    {"true", CONFIG_ON}, {"yes", CONFIG_ON}, {"on", CONFIG_ON}, {"false", CONFIG_OFF}, {"no", CONFIG_OFF}, {"off", CONFIG_OFF},
};
#define SWITCH(name, type, member) \
    CYAML_FIELD_ENUM(name, OPTIONAL | CYAML_FLAG_STRICT, type, member, switch_words, CYAML_ARRAY_LEN(switch_words))

static const cyaml_schema_field_t host_fields[] = {
    CYAML_FIELD_UINT("id", NEEDED, struct config_host, id),
    CYAML_FIELD_UINT("deployment_id", OPTIONAL, struct config_host, deployment_id),
    STRING("data_dir", NEEDED, struct config_host, data_dir),
    STRING("wal_dir", OPTIONAL, struct config_host, wal_dir),
    CYAML_FIELD_END,
};
static const cyaml_schema_field_t raft_fields[] = {
    STRING("listen", NEEDED, struct config_raft, listen),
    STRING("bind", OPTIONAL, struct config_raft, bind),
    CYAML_FIELD_UINT("rtt_ms", OPTIONAL, struct config_raft, rtt_ms),
    CYAML_FIELD_UINT("step_workers", OPTIONAL, struct config_raft, step_workers),
    CYAML_FIELD_UINT("apply_workers", OPTIONAL, struct config_raft, apply_workers),
    SWITCH("log_workers", struct config_raft, log_workers),
    SWITCH("polling", struct config_raft, polling),
    CYAML_FIELD_END,
};
static const cyaml_schema_field_t redis_fields[] = {
    STRING("listen", NEEDED, struct config_redis, listen),
    STRING("bind", OPTIONAL, struct config_redis, bind),
    CYAML_FIELD_UINT("timeout_ms", OPTIONAL, struct config_redis, timeout_ms),
    CYAML_FIELD_UINT("max_clients", OPTIONAL, struct config_redis, max_clients),
    CYAML_FIELD_END,
};
static const cyaml_schema_field_t snapshots_fields[] = {
    STRING("dir", OPTIONAL, struct config_snapshots, dir),
    STRING("export_dir", OPTIONAL, struct config_snapshots, export_dir),
    CYAML_FIELD_UINT("workers", OPTIONAL, struct config_snapshots, workers),
    CYAML_FIELD_UINT("streams_max", OPTIONAL, struct config_snapshots, streams_max),
    CYAML_FIELD_UINT("send_bytes_per_s", OPTIONAL, struct config_snapshots, send_bytes_per_s),
    CYAML_FIELD_END,
};
static const cyaml_schema_field_t peer_fields[] = {
    CYAML_FIELD_UINT("id", NEEDED, struct config_peer, id),
    STRING("raft", NEEDED, struct config_peer, raft),
    STRING("redis", NEEDED, struct config_peer, redis),
    CYAML_FIELD_END,
};
static const cyaml_schema_value_t peer_value = {CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct config_peer, peer_fields)};
static const cyaml_schema_value_t replica_value = {CYAML_VALUE_UINT(CYAML_FLAG_DEFAULT, uint64_t)};
static const cyaml_schema_field_t shards_fields[] = {
    CYAML_FIELD_UINT("first", NEEDED, struct config_shards, first),
    CYAML_FIELD_UINT("count", NEEDED, struct config_shards, count),
    STRING("machine", NEEDED, struct config_shards, machine),
    CYAML_FIELD_SEQUENCE("replicas", CYAML_FLAG_POINTER, struct config_shards, replicas, &replica_value, 0, NH_MEMBERS_MAX),
    CYAML_FIELD_UINT("election_rtt", OPTIONAL, struct config_shards, election_rtt),
    CYAML_FIELD_UINT("heartbeat_rtt", OPTIONAL, struct config_shards, heartbeat_rtt),
    SWITCH("check_quorum", struct config_shards, check_quorum),
    SWITCH("pre_vote", struct config_shards, pre_vote),
    SWITCH("quiesce", struct config_shards, quiesce),
    SWITCH("join", struct config_shards, join),
    SWITCH("lease_reads", struct config_shards, lease_reads),
    CYAML_FIELD_UINT("priority", OPTIONAL, struct config_shards, priority),
    SWITCH("automatic_snapshots", struct config_shards, automatic_snapshots),
    CYAML_FIELD_UINT("snapshot_entries", OPTIONAL, struct config_shards, snapshot_entries),
    CYAML_FIELD_UINT("snapshot_bytes", OPTIONAL, struct config_shards, snapshot_bytes),
    CYAML_FIELD_UINT("compaction_overhead", OPTIONAL, struct config_shards, compaction_overhead),
    CYAML_FIELD_UINT("snapshots_kept", OPTIONAL, struct config_shards, snapshots_kept),
    SWITCH("compress_snapshots", struct config_shards, compress_snapshots),
    SWITCH("pin_machine", struct config_shards, pin_machine),
    CYAML_FIELD_UINT("sessions_max", OPTIONAL, struct config_shards, sessions_max),
    CYAML_FIELD_END,
};
static const cyaml_schema_value_t shards_value = {CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct config_shards, shards_fields)};
static const cyaml_schema_field_t config_fields[] = {
    CYAML_FIELD_MAPPING("host", NEEDED, struct config, host, host_fields),
    CYAML_FIELD_MAPPING("raft", NEEDED, struct config, raft, raft_fields),
    CYAML_FIELD_MAPPING("redis", NEEDED, struct config, redis, redis_fields),
    CYAML_FIELD_MAPPING("snapshots", OPTIONAL, struct config, snapshots, snapshots_fields),
    CYAML_FIELD_SEQUENCE("peers", CYAML_FLAG_POINTER, struct config, peers, &peer_value, 0, CONFIG_PEERS_MAX),
    CYAML_FIELD_SEQUENCE("shards", CYAML_FLAG_POINTER, struct config, shards, &shards_value, 0, CONFIG_SECTIONS_MAX),
    CYAML_FIELD_END,
};
static const cyaml_schema_value_t config_value = {CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct config, config_fields)};

/* ---- libcyaml tells what is wrong by log lines: the first is the error, then one with "(line: N, " ---- */

struct complaint {
    char text[160];
    unsigned line;
};

static void on_log(cyaml_log_t level, void *ctx, const char *fmt, va_list args)
{
    static const char prefix[] = "Load: ";
    struct complaint *c = ctx;
    char text[256], *at;
    size_t skip;

    if (level < CYAML_LOG_ERROR)
        return;
    vsnprintf(text, sizeof text, fmt, args);
    text[strcspn(text, "\n")] = 0;
    skip = strncmp(text, prefix, sizeof prefix - 1) == 0 ? sizeof prefix - 1 : 0;
    if (!c->text[0])
        snprintf(c->text, sizeof c->text, "%.*s", (int)sizeof c->text - 1, text + skip);
    at = strstr(text, "(line: ");
    if (at && !c->line)
        c->line = (unsigned)strtoul(at + 7, NULL, 10);
}

static cyaml_config_t cyaml_settings(struct complaint *complaint)
{
    return (cyaml_config_t){
        .log_fn = on_log,
        .log_ctx = complaint,
        .mem_fn = cyaml_mem,
        .log_level = CYAML_LOG_ERROR,
        .flags = CYAML_CFG_NO_ALIAS,
    };
}

static int refuse_key(const char *path, unsigned line, const char *key, struct nh_error *err)
{
    return nh_error_set(err, NH_EINVAL, "%s:%u: unknown key \"%s\": remove it, or look for a typing error", path, line, key);
}

static int refuse_schema(const char *path, const struct complaint *c, const struct config_lines *lines, struct nh_error *err)
{
    static const char unexpected[] = "Unexpected key: ", missing[] = "Missing required mapping field: ";
    const char *key = c->text + sizeof unexpected - 1;
    unsigned line;

    if (strncmp(c->text, unexpected, sizeof unexpected - 1) == 0) {
        line = lines ? config_lines_of_key(lines, key) : 0;
        return refuse_key(path, line ? line : c->line, key, err);
    }
    if (strncmp(c->text, missing, sizeof missing - 1) == 0)
        return nh_error_set(err, NH_EINVAL, "%s:%u: key \"%s\" is missing here: add it", path, c->line,
                            c->text + sizeof missing - 1);
    return nh_error_set(err, NH_EINVAL, "%s:%u: %s: correct it", path, c->line, c->text[0] ? c->text : "not a configuration");
}

/* ---- loading ---- */

static int read_file(const char *path, struct buffer *ret, struct nh_error *err)
{
    FILE *f = fopen(path, "rbe");
    size_t n = 1;
    int failed;

    if (!f)
        return nh_error_sys(err, NH_EIO, errno, "open %s", path);
    while (n > 0 && ret->size <= CONFIG_FILE_BYTES_MAX) {
        n = fread(buffer_reserve(ret, 65536), 1, 65536, f);
        ret->size += n;
    }
    failed = ferror(f);
    fclose(f);
    if (failed)
        return nh_error_set(err, NH_EIO, "%s cannot be read", path);
    if (ret->size > CONFIG_FILE_BYTES_MAX)
        return nh_error_set(err, NH_EINVAL, "%s:1: larger than %u bytes: is this a configuration?", path, CONFIG_FILE_BYTES_MAX);
    return NH_OK;
}

/* On an error *ret may be set too. */
static int load_text(const char *path, const char *text, size_t size_bytes, const struct config_lines *lines, struct config **ret,
                     struct nh_error *err)
{
    struct complaint complaint = {0};
    cyaml_config_t settings = cyaml_settings(&complaint);
    cyaml_err_t e = cyaml_load_data((const uint8_t *)text, size_bytes, &settings, &config_value, (cyaml_data_t **)ret, NULL);

    if (e != CYAML_OK)
        return refuse_schema(path, &complaint, lines, err);
    if (!*ret || !lines)
        return nh_error_set(err, NH_EINVAL, "%s:1: the file is empty: see README.md for an example", path);
    return NH_OK;
}

static int parse(const char *path, const char *text, size_t size_bytes, bool look_for_places, struct config **ret,
                 struct nh_error *err)
{
    struct config_lines *lines = config_lines_new(text, size_bytes);
    struct config *c = NULL;
    int r = lines ? config_numbers_check(path, lines, &config_value, err) : NH_OK;

    if (r == NH_OK)
        r = load_text(path, text, size_bytes, lines, &c, err);
    if (r == NH_OK)
        r = config_check(c, path, lines, err);
    if (r == NH_OK && look_for_places)
        r = config_check_places(c, path, lines, err);
    config_lines_free(lines);
    if (r < 0)
        config_free(c);
    else
        *ret = c;
    return r;
}

int config_parse(const char *path, const char *text, size_t size_bytes, struct config **ret, struct nh_error *err)
{
    return parse(path, text, size_bytes, false, ret, err);
}

static int load(const char *path, bool look_for_places, struct config **ret, struct nh_error *err)
{
    struct buffer text = {0};
    int r = read_file(path, &text, err);

    if (r == NH_OK)
        r = parse(path, text.data ? text.data : "", text.size, look_for_places, ret, err);
    buffer_deinit(&text);
    return r;
}

int config_load(const char *path, struct config **ret, struct nh_error *err)
{
    return load(path, false, ret, err);
}

int config_examine(const char *path, struct nh_error *err)
{
    struct config *c = NULL;
    int r = load(path, true, &c, err);

    config_free(c);
    return r;
}

void config_free(struct config *c)
{
    struct complaint complaint = {0};
    cyaml_config_t settings = cyaml_settings(&complaint);

    if (c)
        cyaml_free(&settings, &config_value, c, 0);
}

const struct config_peer *config_find_peer(const struct config *c, uint64_t id)
{
    for (unsigned i = 0; i < c->peers_count; i++)
        if (c->peers[i].id == id)
            return &c->peers[i];
    return NULL;
}

const struct config_shards *config_find_section(const struct config *c, uint64_t shard_id)
{
    for (unsigned i = 0; i < c->shards_count; i++)
        if (shard_id >= c->shards[i].first && shard_id - c->shards[i].first < c->shards[i].count)
            return &c->shards[i];
    return NULL;
}

bool config_is_kv(const struct config_shards *s)
{
    return strcmp(s->machine, "kv") == 0 || strcmp(s->machine, "kv-disk") == 0;
}

bool config_has_replica(const struct config_shards *s, uint64_t host_id)
{
    for (unsigned i = 0; i < s->replicas_count; i++)
        if (s->replicas[i] == host_id)
            return true;
    return false;
}
