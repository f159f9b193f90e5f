/* cmd/nodehostd/command.h - the table of commands. Each cmd_*.c has the functions of one group. Threads: the loop's. */
#ifndef NH_CMD_NODEHOSTD_COMMAND_H
#define NH_CMD_NODEHOSTD_COMMAND_H

#include "cmd/nodehostd/server.h"

/* As COMMAND reports them. */
enum command_flags {
    FLAG_WRITE = 1,
    FLAG_READONLY = 2,
    FLAG_FAST = 4,
    FLAG_LOADING = 8, /* allowed while shards are being started */
    FLAG_ADMIN = 16,
    FLAG_DENYOOM = 32,
    FLAG_UNQUEUED = 64, /* runs between MULTI and EXEC too; COMMAND does not tell */
};

struct command {
    const char *name;      /* lower case */
    int arity;             /* with the name; negative: at least */
    unsigned flags;        /* enum command_flags */
    int first, last, step; /* positions of keys, as in Redis */
    enum command_kind kind;
    void (*run)(struct call *call);
    const char *summary;
};

extern const struct command commands[];
extern const size_t n_commands;

const struct command *command_find(struct kv_slice name);
/* True if an argument is this word, in any case. */
bool arg_is(struct kv_slice arg, const char *word);
/* A decimal number that fills the argument. */
bool arg_number(struct kv_slice arg, uint64_t *ret);
/* "ERR unknown subcommand ...", also of a known one with other arguments. `usage`: what there is. */
void reply_unknown_subcommand(struct call *call, const char *usage);
void reply_wrong_arity(struct call *call);

void cmd_ping(struct call *call);
void cmd_echo(struct call *call);
void cmd_quit(struct call *call);
void cmd_reset(struct call *call);
void cmd_select(struct call *call);
void cmd_hello(struct call *call);
void cmd_client(struct call *call);
void cmd_readonly(struct call *call);
void cmd_multi(struct call *call);
void cmd_exec(struct call *call);
void cmd_discard(struct call *call);
void cmd_watch(struct call *call);
void cmd_unwatch(struct call *call);

void cmd_command(struct call *call);
void cmd_info(struct call *call);
void cmd_config(struct call *call);
void cmd_dbsize(struct call *call);
void cmd_time(struct call *call);

void cmd_cluster(struct call *call);

void cmd_kv_write(struct call *call); /* one key, one proposal */
void cmd_set(struct call *call);
void cmd_kv_read(struct call *call); /* one key, one query */
void cmd_del(struct call *call);
void cmd_exists(struct call *call);
void cmd_mset(struct call *call);
void cmd_mget(struct call *call);

void cmd_nh_propose(struct call *call);
void cmd_nh_query(struct call *call);
void cmd_nh_shard(struct call *call);
void cmd_nh_session(struct call *call);
void cmd_nh_snapshot(struct call *call);
void cmd_nh_once(struct call *call);

/* ---- between cmd_*.c ---- */

/* A shard's number; false: an error reply is written. */
bool take_shard(struct call *call, struct kv_slice arg, uint64_t *ret);
/* A command of the kv machine that writes, `args` with its name, all of whose keys are in one shard: fills what a part asks for.
 * False: an error reply is written (no such command, its keys are in several shards, ...). */
bool kv_fill_part(struct call *call, const struct kv_slice *args, uint32_t n_args, struct part *p);
/* What the machine answered. */
void kv_reply_part(struct call *call, const struct part *p);
/* The session that a token of NH.ONCE stands for (docs/FORMATS.md). */
uint64_t session_of_token(struct kv_slice token);
/* The answer to NH.PROPOSE. */
void propose_reply_part(struct call *call, const struct part *p);
/* Refusals of a session; false: the part is none. */
bool session_reply_refusal(struct call *call, const struct part *p);

#endif
