#include "tests/sim/sim.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "raftio/support/memory.h"

/* A task is polled some time after it was woken: threads are not scheduled at once. */
#define SCHEDULE_NS_MAX (200 * 1000ull)

struct sim_clock {
    struct runtime base;
    uint32_t host;
    uint64_t base_ns, since_ns; /* host time at virtual time since_ns */
    uint64_t permille;          /* host nanoseconds per virtual microsecond */
    uint64_t disk_ns;
    uint64_t paused_until, held_until; /* virtual time; held: paused, or some task stalled */
};

struct task {
    struct list link;
    struct sim_clock *clock;
    task_poll_fn poll;
    void *arg;
    uint64_t due_ns;        /* virtual time; UINT64_MAX: never */
    uint64_t stalled_until; /* virtual time */
    bool is_slow;           /* it writes to disks */
    bool stopped;
    uint32_t number;
};

static struct list tasks;
static uint32_t n_tasks;

static uint64_t host_time(const struct sim_clock *c, uint64_t virtual_ns)
{
    return c->base_ns + (virtual_ns - c->since_ns) / 1000 * c->permille + (virtual_ns - c->since_ns) % 1000;
}

/* The first virtual time at which the host's clock shows at least this. */
static uint64_t virtual_time(const struct sim_clock *c, uint64_t host_ns)
{
    if (host_ns <= c->base_ns)
        return c->since_ns;
    return c->since_ns + ((host_ns - c->base_ns) / c->permille + 1) * 1000;
}

static uint64_t now_ns(struct runtime *rt)
{
    return host_time((struct sim_clock *)rt, sim.now_ns);
}

static void wake_task(struct task *t)
{
    uint64_t delay = t->is_slow ? 1000 + sim_below(t->clock->disk_ns) : sim_below(SCHEDULE_NS_MAX), due = sim.now_ns + delay;

    if (!t->stopped && due < t->due_ns)
        t->due_ns = due;
}

static struct task *task_start(struct runtime *rt, const char *name, task_poll_fn poll, void *arg)
{
    struct task *t = xcalloc(1, sizeof *t);

    if (!tasks.next)
        list_init(&tasks);
    t->clock = (struct sim_clock *)rt;
    t->poll = poll;
    t->arg = arg;
    t->is_slow = strcmp(name, "nh-log") == 0 || strcmp(name, "nh-snapshot") == 0;
    if (list_empty(&tasks)) /* a run begins: numbers are the same in every run of a seed */
        n_tasks = 0;
    t->number = ++n_tasks;
    t->due_ns = UINT64_MAX;
    list_push_back(&tasks, &t->link);
    wake_task(t);
    return t;
}

static void task_stop(struct task *t)
{
    if (!t)
        return;
    t->stopped = true;
    t->due_ns = UINT64_MAX;
}

static void task_free(struct task *t)
{
    if (!t)
        return;
    list_remove(&t->link);
    free(t);
}

static bool sleep_ns(struct runtime *rt, uint64_t ns)
{
    (void)rt;
    (void)ns;
    return false; /* one thread */
}

static bool task_step_in(struct task *t);

static const struct runtime_ops ops = {now_ns, now_ns, task_start, wake_task, task_step_in, task_stop, task_free, sleep_ns};

struct runtime *clock_new(uint32_t host)
{
    struct sim_clock *c = xcalloc(1, sizeof *c);

    c->base.ops = &ops;
    c->host = host;
    c->since_ns = sim.now_ns;
    c->base_ns = (1 + sim_below(1000000)) * SIM_MS; /* hosts were booted at different times */
    c->permille = 950 + sim_below(101);
    c->disk_ns = 1 * SIM_MS;
    return &c->base;
}

void clock_free(struct runtime *rt)
{
    free(rt);
}

void clock_set_disk_ns(struct runtime *rt, uint64_t max_ns)
{
    ((struct sim_clock *)rt)->disk_ns = max_ns;
}

void clock_set_speed(struct runtime *rt, uint32_t permille)
{
    struct sim_clock *c = (struct sim_clock *)rt;

    c->base_ns = host_time(c, sim.now_ns);
    c->since_ns = sim.now_ns;
    c->permille = permille;
}

/* ---- tasks that stand still ---- */

static uint64_t later(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

void clock_pause(struct runtime *rt, uint64_t until_ns)
{
    struct sim_clock *c = (struct sim_clock *)rt;

    c->paused_until = until_ns;
    c->held_until = later(c->held_until, until_ns);
}

void clock_stall_one(struct runtime *rt, uint64_t until_ns)
{
    struct sim_clock *c = (struct sim_clock *)rt;
    struct task *chosen = NULL;
    uint64_t n = 0;

    for (struct list *at = tasks.next; at != &tasks; at = at->next) {
        struct task *t = container_of(at, struct task, link);

        if (t->clock == c && !t->stopped && sim_below(++n) == 0)
            chosen = t;
    }
    if (!chosen)
        return;
    chosen->stalled_until = until_ns;
    c->held_until = later(c->held_until, until_ns);
}

void clock_resume(struct runtime *rt)
{
    struct sim_clock *c = (struct sim_clock *)rt;

    c->paused_until = 0;
    c->held_until = c->held_until > sim.now_ns ? sim.now_ns : c->held_until;
    for (struct list *at = tasks.next; at != &tasks; at = at->next)
        if (container_of(at, struct task, link)->clock == c)
            container_of(at, struct task, link)->stalled_until = 0;
}

uint64_t clock_paused_until(const struct runtime *rt)
{
    return ((const struct sim_clock *)rt)->paused_until;
}

bool clock_was_held(const struct runtime *rt, uint64_t ns)
{
    uint64_t until = ((const struct sim_clock *)rt)->held_until;

    return until > 0 && until + ns > sim.now_ns;
}

/* ---- the scheduler ---- */

/* When it may be polled; UINT64_MAX: nobody wants it. */
static uint64_t runs_at(const struct task *t)
{
    return later(t->due_ns, later(t->stalled_until, t->clock->paused_until));
}

static void poll_task(struct task *t)
{
    uint32_t host = t->clock->host;
    uint64_t next;

    t->due_ns = UINT64_MAX;
    sim_note(t->number);
    next = t->poll(t->arg);
    disks_after_poll(sim.hosts[host]);
    if (next == TASK_POLL_NOW)
        wake_task(t);
    else if (next != TASK_POLL_NEVER && virtual_time(t->clock, next) < t->due_ns)
        t->due_ns = virtual_time(t->clock, next) > sim.now_ns ? virtual_time(t->clock, next) : sim.now_ns + 1;
}

static bool task_step_in(struct task *t)
{
    if (!sim.options.step_in || t->stopped || t->due_ns <= sim.now_ns + SCHEDULE_NS_MAX || t->stalled_until > sim.now_ns)
        return false;
    sim.coverage.step_ins++;
    poll_task(t);
    return true;
}

bool clock_run_one(void)
{
    struct task *chosen = NULL;
    uint64_t n = 0;

    for (struct list *at = tasks.next; at && at != &tasks; at = at->next) {
        struct task *t = container_of(at, struct task, link);

        if (runs_at(t) <= sim.now_ns && sim_below(++n) == 0)
            chosen = t;
    }
    if (!chosen)
        return false;
    poll_task(chosen);
    return true;
}

uint64_t clock_next_ns(void)
{
    uint64_t next = UINT64_MAX;

    for (struct list *at = tasks.next; at && at != &tasks; at = at->next) {
        const struct task *t = container_of(at, struct task, link);

        next = runs_at(t) < next ? runs_at(t) : next;
    }
    return next;
}
