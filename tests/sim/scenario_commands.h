/* tests/sim/scenario_commands.h - the commands that are not in scenario_commands.c itself. Each takes the words after its name;
 * errors go to the scenario. */
#ifndef NH_TESTS_SIM_SCENARIO_COMMANDS_H
#define NH_TESTS_SIM_SCENARIO_COMMANDS_H

#include "tests/sim/scenario_args.h"

/* ---- scenario_setup.c ---- */

void command_cluster(struct args *a);
void command_join(struct args *a);
void command_options(struct args *a);
void command_log(struct args *a);
void command_state(struct args *a);

/* ---- scenario_members.c ---- */

void command_change(struct args *a);
void command_leave(struct args *a);
void command_compact(struct args *a);
void command_snapshot_status(struct args *a);
void command_transfer(struct args *a);
void command_forget(struct args *a);

#endif
