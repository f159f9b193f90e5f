/* Commands about this host. */
#include "cmd/nodehostd/command.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "cmd/nodehostd/layout.h"

/* ---- COMMAND ---- */

static const struct {
    unsigned flag;
    const char *name;
} flag_names[] = {
    {FLAG_WRITE, "write"},     {FLAG_READONLY, "readonly"}, {FLAG_FAST, "fast"},
    {FLAG_LOADING, "loading"}, {FLAG_ADMIN, "admin"},       {FLAG_DENYOOM, "denyoom"},
};
#define N_FLAGS (sizeof flag_names / sizeof *flag_names)

static void describe_flags(struct call *call, const struct command *c)
{
    reply_set(&call->reply, call->resp, (size_t)__builtin_popcount(c->flags & ~(unsigned)FLAG_UNQUEUED));
    for (size_t i = 0; i < N_FLAGS; i++)
        if (c->flags & flag_names[i].flag)
            reply_simple(&call->reply, flag_names[i].name);
}

static void describe_categories(struct call *call, const struct command *c)
{
    const char *kind = c->flags & FLAG_WRITE ? "@write" : c->flags & FLAG_READONLY ? "@read" : "@connection";

    reply_set(&call->reply, call->resp, 2);
    reply_simple(&call->reply, kind);
    reply_simple(&call->reply, c->flags & FLAG_FAST ? "@fast" : "@slow");
}

static void describe_command(struct call *call, const struct command *c)
{
    struct buffer *b = &call->reply;

    if (!c) {
        reply_null_array(b, call->resp);
        return;
    }
    reply_array(b, 10);
    reply_text(b, c->name);
    reply_integer(b, c->arity);
    describe_flags(call, c);
    reply_integer(b, c->first);
    reply_integer(b, c->last);
    reply_integer(b, c->step);
    describe_categories(call, c);
    for (int i = 0; i < 3; i++) /* tips, key specifications, subcommands */
        reply_array(b, 0);
}

static void command_docs(struct call *call)
{
    struct buffer *b = &call->reply;
    size_t n = 0;

    for (size_t i = 0; i < n_commands; i++) {
        bool wanted = call->n_args == 2;

        for (uint32_t a = 2; a < call->n_args; a++)
            wanted |= arg_is(call->args[a], commands[i].name);
        n += wanted;
    }
    reply_map(b, call->resp, n);
    for (size_t i = 0; i < n_commands; i++) {
        bool wanted = call->n_args == 2;

        for (uint32_t a = 2; a < call->n_args; a++)
            wanted |= arg_is(call->args[a], commands[i].name);
        if (!wanted)
            continue;
        reply_text(b, commands[i].name);
        reply_map(b, call->resp, 2);
        reply_text(b, "summary");
        reply_text(b, commands[i].summary);
        reply_text(b, "group");
        reply_text(b, commands[i].first ? "string" : "server");
    }
}

static void command_getkeys(struct call *call)
{
    const struct command *c = command_find(call->args[2]);
    int n = (int)call->n_args - 2, last;

    if (!c || !c->first) {
        reply_error(&call->reply, c ? "ERR The command has no key arguments" : "ERR Invalid command specified");
        return;
    }
    last = c->last < 0 ? n + c->last : c->last;
    if (n < (c->arity < 0 ? -c->arity : c->arity) || last >= n) {
        reply_error(&call->reply, "ERR Invalid number of arguments specified for command");
        return;
    }
    reply_array(&call->reply, (size_t)((last - c->first) / c->step + 1));
    for (int i = c->first; i <= last; i += c->step)
        reply_bulk(&call->reply, call->args[2 + i].data, call->args[2 + i].size);
}

void cmd_command(struct call *call)
{
    struct buffer *b = &call->reply;

    if (call->n_args == 1 || (arg_is(call->args[1], "info") && call->n_args == 2)) {
        reply_array(b, n_commands);
        for (size_t i = 0; i < n_commands; i++)
            describe_command(call, &commands[i]);
    } else if (arg_is(call->args[1], "info")) {
        reply_array(b, call->n_args - 2);
        for (uint32_t i = 2; i < call->n_args; i++)
            describe_command(call, command_find(call->args[i]));
    } else if (arg_is(call->args[1], "count") && call->n_args == 2) {
        reply_integer(b, (int64_t)n_commands);
    } else if (arg_is(call->args[1], "docs")) {
        command_docs(call);
    } else if (arg_is(call->args[1], "list") && call->n_args == 2) {
        reply_array(b, n_commands);
        for (size_t i = 0; i < n_commands; i++)
            reply_text(b, commands[i].name);
    } else if (arg_is(call->args[1], "getkeys") && call->n_args > 2) {
        command_getkeys(call);
    } else {
        reply_unknown_subcommand(call, "COMMAND [INFO [name...] | COUNT | DOCS [name...] | GETKEYS command argument... | LIST]");
    }
}

/* ---- INFO ---- */

static void info_server(const struct server *s, struct buffer *b)
{
    uint64_t up_s = (uv_now(&s->loop) - s->started_ms) / 1000;

    buffer_printf(b,
                  "# Server\r\nredis_version:7.0.15\r\nredis_mode:cluster\r\nnodehost_version:%s\r\nprocess_id:%ld\r\n"
                  "uptime_in_seconds:%" PRIu64 "\r\nuptime_in_days:%" PRIu64 "\r\ntcp_port:%s\r\n\r\n",
                  nh_version(), (long)getpid(), up_s, up_s / 86400, strrchr(s->config->redis.listen, ':') + 1);
}

static void info_clients(const struct server *s, struct buffer *b)
{
    buffer_printf(b, "# Clients\r\nconnected_clients:%" PRIu64 "\r\nmaxclients:%u\r\nblocked_clients:0\r\n\r\n", s->stats.clients,
                  s->max_clients);
}

/* jemalloc's, if it is in this process, linked or preloaded. */
extern int mallctl(const char *name, void *old, size_t *old_size, void *new, size_t new_size) __attribute__((weak));

/* As Redis writes it: name-version. */
static void write_allocator(struct buffer *b)
{
    const char *version = NULL;
    size_t size = sizeof version;

    if (mallctl && mallctl("version", &version, &size, NULL, 0) == 0)
        buffer_printf(b, "mem_allocator:jemalloc-%.*s\r\n", (int)strcspn(version, "-"), version);
    else
        buffer_printf(b, "mem_allocator:libc\r\n");
}

/* Bytes that are resident; 0: the system does not say. */
static long resident_bytes(void)
{
    FILE *f = fopen("/proc/self/statm", "re");
    long pages = 0;

    if (f && fscanf(f, "%*s %ld", &pages) != 1)
        pages = 0;
    if (f)
        fclose(f);
    return pages * sysconf(_SC_PAGESIZE);
}

static void info_memory(struct buffer *b)
{
    struct rusage usage = {0};
    long resident = resident_bytes();

    getrusage(RUSAGE_SELF, &usage);
    buffer_printf(b, "# Memory\r\nused_memory:%ld\r\nused_memory_rss:%ld\r\nused_memory_peak:%ld\r\nmaxmemory:0\r\n", resident,
                  resident, usage.ru_maxrss * 1024);
    write_allocator(b);
    buffer_printf(b, "\r\n");
}

static void info_persistence(const struct server *s, struct buffer *b)
{
    buffer_printf(b,
                  "# Persistence\r\nloading:%d\r\naof_enabled:0\r\naof_rewrite_in_progress:0\r\naof_last_write_status:%s\r\n"
                  "rdb_bgsave_in_progress:0\r\n\r\n",
                  __atomic_load_n(&s->loading, __ATOMIC_ACQUIRE), server_log_failed(s) ? "err" : "ok");
}

static void info_stats(const struct server *s, struct buffer *b)
{
    buffer_printf(b,
                  "# Stats\r\ntotal_connections_received:%" PRIu64 "\r\ntotal_commands_processed:%" PRIu64
                  "\r\nrejected_connections:%" PRIu64 "\r\n\r\n",
                  s->stats.connections, s->stats.commands, s->stats.rejected);
}

/* What a host with a failed log store led is led by others, of whom it does not hear any more. */
static void info_nodehost(const struct server *s, const struct nh_host_info *h, struct buffer *b)
{
    bool failed = server_log_failed(s);

    buffer_printf(b,
                  "# Nodehost\r\nhost_id:%" PRIu64 "\r\nunique_id:%s\r\nincarnation:%" PRIu64
                  "\r\nlogdb:%s\r\nlog_store:%s\r\ntransport:%s\r\n"
                  "shards_configured:%u\r\nshards:%u\r\nleaders:%u\r\nleaderless:%u\r\nquarantined:%u\r\nkv_layout:%08" PRIx32
                  "\r\n",
                  h->host_id, h->unique_id, h->incarnation, h->logdb_name, failed ? "failed" : "ok", h->transport_name,
                  s->n_shards_wanted, h->n_shards, failed ? 0 : h->n_leaders, h->n_leaderless, h->n_quarantined,
                  layout_number(s->config));
    buffer_printf(b,
                  "entries_applied:%" PRIu64 "\r\nreads_answered:%" PRIu64 "\r\nsaves:%" PRIu64 "\r\nsynced_saves:%" PRIu64
                  "\r\nsaved_entries:%" PRIu64 "\r\nmessages_sent:%" PRIu64 "\r\nmessages_received:%" PRIu64
                  "\r\nevents_dropped:%" PRIu64 "\r\n\r\n",
                  h->proposals_applied, h->reads_answered, h->saves, h->synced_saves, h->saved_entries, h->messages_sent,
                  h->messages_received, h->events_dropped);
}

static bool wants(const struct call *call, const char *section)
{
    if (call->n_args == 1)
        return true;
    for (uint32_t i = 1; i < call->n_args; i++)
        if (arg_is(call->args[i], section) || arg_is(call->args[i], "all") || arg_is(call->args[i], "everything") ||
            arg_is(call->args[i], "default"))
            return true;
    return false;
}

void cmd_info(struct call *call)
{
    const struct server *s = call->server;
    struct nh_host_info host;
    struct buffer text = {0};

    if (wants(call, "server"))
        info_server(s, &text);
    if (wants(call, "clients"))
        info_clients(s, &text);
    if (wants(call, "memory"))
        info_memory(&text);
    if (wants(call, "persistence"))
        info_persistence(s, &text);
    if (wants(call, "stats"))
        info_stats(s, &text);
    if (wants(call, "replication"))
        buffer_add_text(&text, "# Replication\r\nrole:master\r\nconnected_slaves:0\r\n\r\n");
    if (wants(call, "cluster"))
        buffer_add_text(&text, "# Cluster\r\ncluster_enabled:1\r\n\r\n");
    if (wants(call, "nodehost")) {
        nh_get_host_info(s->host, &host);
        info_nodehost(s, &host, &text);
    }
    reply_verbatim(&call->reply, call->resp, text.data ? text.data : "", text.size);
    buffer_deinit(&text);
}

/* ---- CONFIG ---- */

static const struct {
    const char *name, *value;
} settings[] = {
    {"appendonly", "no"}, {"databases", "1"}, {"maxmemory", "0"}, {"proto-max-bulk-len", "33554432"},
    {"save", ""},         {"timeout", "0"},
};
#define N_SETTINGS (sizeof settings / sizeof *settings)

/* Patterns as clients send them: a name, or a name that ends in a star. */
static bool matches(struct kv_slice pattern, const char *name)
{
    if (pattern.size > 0 && pattern.data[pattern.size - 1] == '*')
        return strncasecmp((const char *)pattern.data, name, pattern.size - 1) == 0;
    return arg_is(pattern, name);
}

static bool is_wanted(const struct call *call, const char *name)
{
    for (uint32_t i = 2; i < call->n_args; i++)
        if (matches(call->args[i], name))
            return true;
    return false;
}

void cmd_config(struct call *call)
{
    size_t n = 0;

    if (!arg_is(call->args[1], "get")) {
        reply_error(&call->reply, "ERR CONFIG: only GET; settings are in the configuration file");
        return;
    }
    if (call->n_args < 3) {
        reply_error(&call->reply, "ERR wrong number of arguments for 'config|get' command");
        return;
    }
    for (size_t i = 0; i < N_SETTINGS; i++)
        n += is_wanted(call, settings[i].name);
    reply_map(&call->reply, call->resp, n);
    for (size_t i = 0; i < N_SETTINGS; i++) {
        if (!is_wanted(call, settings[i].name))
            continue;
        reply_text(&call->reply, settings[i].name);
        reply_text(&call->reply, settings[i].value);
    }
}

/* ---- DBSIZE, TIME ---- */

static int write_number(void *ctx, const void *data, size_t size_bytes)
{
    if (size_bytes != sizeof(uint64_t))
        return NH_EINVAL;
    memcpy(ctx, data, sizeof(uint64_t));
    return 0;
}

/* What is applied here: asking all shards for a fresh number would wake every quiet one. */
void cmd_dbsize(struct call *call)
{
    static const struct kv_slice query = {(const uint8_t *)"dbsize", 6};
    uint8_t bytes[KV_HEADER_BYTES + 4 + 6];
    uint64_t sum = 0, n = 0, kind;
    struct nh_writer out = {write_number, &n};
    struct server *s = call->server;

    kv_command_encode(&query, 1, bytes);
    for (uint32_t i = 0; i < s->n_kv; i++) {
        n = 0;
        if (nh_lookup(s->host, s->kv_shards[i], bytes, sizeof bytes, &out, &kind, NULL) == NH_OK)
            sum += n;
    }
    reply_integer(&call->reply, (int64_t)sum);
}

void cmd_time(struct call *call)
{
    struct timespec now;
    char text[32];

    clock_gettime(CLOCK_REALTIME, &now);
    reply_array(&call->reply, 2);
    snprintf(text, sizeof text, "%lld", (long long)now.tv_sec);
    reply_text(&call->reply, text);
    snprintf(text, sizeof text, "%ld", now.tv_nsec / 1000);
    reply_text(&call->reply, text);
}
