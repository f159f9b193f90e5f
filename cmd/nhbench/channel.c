#include "cmd/nhbench/channel.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

struct header {
    uint32_t what, size_bytes;
};

static bool write_all(int fd, const void *data, size_t size)
{
    const char *p = data;

    while (size > 0) {
        ssize_t n = send(fd, p, size, MSG_NOSIGNAL);

        if (n <= 0 && errno != EINTR)
            return false;
        p += n > 0 ? n : 0;
        size -= n > 0 ? (size_t)n : 0;
    }
    return true;
}

static bool read_all(int fd, void *data, size_t size)
{
    char *p = data;

    while (size > 0) {
        ssize_t n = read(fd, p, size);

        if (n == 0 || (n < 0 && errno != EINTR))
            return false;
        p += n > 0 ? n : 0;
        size -= n > 0 ? (size_t)n : 0;
    }
    return true;
}

bool channel_say(int fd, enum said what, const void *data, size_t size_bytes)
{
    struct header h = {(uint32_t)what, (uint32_t)size_bytes};

    return write_all(fd, &h, sizeof h) && write_all(fd, data, size_bytes);
}

bool channel_hear(int fd, enum said *ret_what, union channel_words *ret)
{
    struct header h;

    if (!read_all(fd, &h, sizeof h) || h.size_bytes > sizeof *ret || !read_all(fd, ret, h.size_bytes))
        return false;
    *ret_what = (enum said)h.what;
    return true;
}
