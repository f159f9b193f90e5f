/* What a leader need not say at once: the commit index. */
#include "tests/unit/engine/raft_cluster.h"

#include <criterion/criterion.h>

static struct cluster c;

static struct raft_options lazy_options(void)
{
    struct raft_options o = cluster_options();

    o.lazy_commit = true;
    return o;
}

static void three_with(const struct raft_options *o)
{
    cluster_init(&c, 3, o);
    cluster_tick(&c, 12); /* with leases who has just started is bound for E ticks */
    cluster_elect(&c, 1);
    cluster_tick(&c, 3);
    memset(c.delivered, 0, sizeof c.delivered);
}

static void three(void)
{
    struct raft_options o = lazy_options();

    three_with(&o);
}

static uint64_t commit_of(uint64_t id)
{
    return cluster_status(&c, id).commit_index;
}

Test(raft_lazy, a_commit_index_travels_with_the_next_entries)
{
    three();
    cluster_propose(&c, 1, 1, 10);
    cluster_settle(&c);
    cr_assert_eq(c.delivered[NH_MSG_REPLICATE], 2);
    cr_assert_eq(commit_of(1), cluster_status(&c, 1).last_index);
    cr_assert_lt(commit_of(2), commit_of(1));
    cluster_propose(&c, 1, 1, 10);
    cluster_settle(&c);
    cr_assert_eq(c.delivered[NH_MSG_REPLICATE], 4);
    cr_assert_eq(commit_of(2), commit_of(1) - 1);
    cluster_deinit(&c);
}

Test(raft_lazy, or_with_the_next_heartbeat)
{
    three();
    cluster_propose(&c, 1, 1, 10);
    cluster_tick(&c, 2);
    cr_assert_eq(commit_of(2), commit_of(1));
    cr_assert_eq(commit_of(3), commit_of(1));
    cr_assert_eq(c.delivered[NH_MSG_REPLICATE], 2);
    cluster_tick(&c, 1);
    cr_assert(cluster_agrees(&c));
    cluster_deinit(&c);
}

Test(raft_lazy, who_forwarded_an_entry_is_told_at_once)
{
    three();
    cluster_propose(&c, 2, 1, 10);
    cluster_settle(&c);
    cr_assert_eq(commit_of(2), commit_of(1));
    cr_assert_lt(commit_of(3), commit_of(1));
    cluster_propose(&c, 1, 1, 10); /* its next entry is another's */
    cluster_settle(&c);
    cr_assert_lt(commit_of(2), commit_of(1));
    cluster_deinit(&c);
}

Test(raft_lazy, who_reads_is_told_at_once)
{
    struct raft_options o = lazy_options();

    o.lease_reads = true;
    three_with(&o);
    cluster_propose(&c, 1, 1, 10);
    cluster_settle(&c);
    cr_assert_lt(commit_of(2), commit_of(1));
    c.delivered[NH_MSG_HEARTBEAT] = 0;
    cluster_read(&c, 2);
    cluster_settle(&c);
    cr_assert_eq(c.nodes[2].reads.n, 1);
    cr_assert_eq(commit_of(2), commit_of(1));
    cr_assert_eq(c.delivered[NH_MSG_HEARTBEAT], 0, "it was the lease that answered");
    cr_assert_lt(commit_of(3), commit_of(1));
    cluster_deinit(&c);
}

Test(raft_lazy, a_configuration_change_is_told_to_all_at_once)
{
    three();
    cluster_propose_change(&c, 1, false, 3);
    cluster_settle(&c);
    cr_assert_eq(commit_of(2), commit_of(1));
    cr_assert_eq(c.nodes[2].membership.n_members, 2);
    cr_assert_eq(c.nodes[3].membership.n_members, 2);
    cluster_deinit(&c);
}

/* Clients of others may wait for what the leader before has taken. */
Test(raft_lazy, the_first_commit_of_a_term_is_told_at_once)
{
    three();
    cluster_transfer(&c, 1, 2);
    cluster_settle(&c);
    cr_assert_eq(cluster_status(&c, 2).role, RAFT_LEADER);
    for (uint64_t id = 1; id <= 3; id++)
        cr_assert_eq(commit_of(id), cluster_status(&c, 2).last_index);
    cluster_deinit(&c);
}
