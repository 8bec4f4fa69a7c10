// SPDX-License-Identifier: Apache-2.0
// bare.c: the least that a group of three does for a commit, see bench.h.
//
//   A1  The write goes out to the followers before it is made here, so that all are under way at the same time.
//   A2  A follower acknowledges a write, with one byte, after it is durable in its own file. It takes one after the other.
//   A3  No thread stands between: whoever commits writes, and then waits for the first follower that has as much.
//
// A follower that is the slower one again and again falls behind, by what its socket holds at the most; then sending waits
// for it. Whoever measures settles between rounds, so that this is no one's advantage.
#include "bench.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

_Noreturn static void follower_main(int fd, const struct disk *pattern, size_t position) {
    struct disk disk;
    char name[32];
    unsigned char done = 1;
    (void)snprintf(name, sizeof(name), "follower.%zu", position);
    disk_open_like(&disk, pattern, name);
    loopback_send(fd, &done, 1);
    while (loopback_receive(fd, disk.buffer, disk.write_size)) {
        disk_write(&disk, disk.buffer, disk.write_size);
        loopback_send(fd, &done, 1);
    }
    _exit(0);
}

static void follower_begin(struct bare *b, size_t position) {
    struct follower *f = &b->followers[position];
    int fds[2];
    unsigned char ready;
    loopback_pair(fds);
    f->process = process_begin();
    if (f->process == 0) {
        (void)close(fds[0]);
        follower_main(fds[1], &b->disk, position);
    }
    (void)close(fds[1]);
    f->fd = fds[0];
    if (!loopback_receive(f->fd, &ready, 1))
        fail("a follower of the bare program has ended");
}

void bare_open(struct bare *b, size_t payload, size_t follower_count) {
    *b = (struct bare){.follower_count = follower_count};
    disk_open(&b->disk, payload);
    for (size_t i = 0; i < follower_count; i++)
        follower_begin(b, i);
}

// Takes the acknowledgements that are there.
static void acknowledgements_take(struct follower *f) {
    char bytes[256];
    ssize_t count = recv(f->fd, bytes, sizeof(bytes), MSG_DONTWAIT);
    if (count > 0)
        f->durable += (uint64_t)count;
    else if (count == 0 || (errno != EAGAIN && errno != EINTR))
        fail("a follower of the bare program has ended");
}

// Waits until so many followers have everything that was written here.
static void followers_wait(struct bare *b, size_t wanted) {
    for (;;) {
        struct pollfd fds[FOLLOWERS_MAX];
        size_t level = 0;
        for (size_t i = 0; i < b->follower_count; i++) {
            acknowledgements_take(&b->followers[i]);
            level += b->followers[i].durable == b->written;
            fds[i] = (struct pollfd){.fd = b->followers[i].fd, .events = POLLIN};
        }
        if (level >= wanted)
            return;
        if (poll(fds, b->follower_count, 10000) == 0)
            fail("the followers of the bare program are silent");
    }
}

void bare_write(struct bare *b, const void *buffer, size_t size) {
    for (size_t i = 0; i < b->follower_count; i++)
        loopback_send(b->followers[i].fd, buffer, size);
    disk_write(&b->disk, buffer, size);
    b->written++;
    if (b->follower_count > 0)
        followers_wait(b, 1);
}

void bare_settle(struct bare *b) {
    followers_wait(b, b->follower_count);
}

void bare_close(struct bare *b) {
    for (size_t i = 0; i < b->follower_count; i++) {
        process_end(b->followers[i].process);
        (void)close(b->followers[i].fd);
    }
    disk_close(&b->disk);
}
