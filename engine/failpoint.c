#include "engine/files.h"

#ifndef NH_FAILPOINTS

void failpoint(const char *name)
{
    (void)name;
}

#else

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "raftio/support/log.h"

#define LOG_COMPONENT "failpoint"
#define NAME_BYTES    64u

static struct {
    pthread_mutex_t lock;
    bool is_read;
    char name[NAME_BYTES]; /* empty: none */
    unsigned left;         /* calls until the process is killed */
} armed = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* "name" or "name:count". False: neither. */
static bool parse(const char *text)
{
    unsigned count = 1;
    char name[NAME_BYTES];
    int end = 0, n = sscanf(text, "%63[a-z0-9_]%n:%u%n", name, &end, &count, &end);

    if (n < 1 || text[end] || count == 0)
        return false;
    memcpy(armed.name, name, sizeof name);
    armed.left = count;
    return true;
}

/* Returns the variable's text if it makes no sense. */
static const char *read_once(void)
{
    const char *text = armed.is_read ? NULL : getenv("NODEHOST_FAILPOINT");

    armed.is_read = true;
    return text && *text && !parse(text) ? text : NULL;
}

void failpoint(const char *name)
{
    const char *bad;
    bool hit;

    pthread_mutex_lock(&armed.lock);
    bad = read_once();
    hit = strcmp(armed.name, name) == 0 && --armed.left == 0;
    pthread_mutex_unlock(&armed.lock);
    if (bad)
        LOG_ERROR("NODEHOST_FAILPOINT is not name[:count]: %s", bad);
    if (hit)
        raise(SIGKILL);
}

#endif
