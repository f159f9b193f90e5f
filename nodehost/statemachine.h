/* nodehost/statemachine.h - what the author of a state machine includes.
 *
 * The contract itself is in raftio/machine.h, on the lowest floor, because the engine runs machines and may not look up
 * at the library's face. A machine's source needs this one include; docs/MACHINES.md shows the build lines.
 */
#ifndef NH_NODEHOST_STATEMACHINE_H
#define NH_NODEHOST_STATEMACHINE_H

#include "raftio/machine.h"

#endif
