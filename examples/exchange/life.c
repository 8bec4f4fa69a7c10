// SPDX-License-Identifier: Apache-2.0
/* life.c: see life.h. */
#include "life.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "report.h"

volatile sig_atomic_t stop_wanted;

static void on_stop_signal(int number) {
    (void)number;
    stop_wanted = 1;
}

void life_stoppable(void) {
    signal(SIGINT, on_stop_signal);
    signal(SIGTERM, on_stop_signal);
}

bool life_begin(struct life *life, const char *acks_path) {
    *life = (struct life){.acks_path = acks_path, .acks = -1};
    if (!acks_path)
        return true;
    life->acks = open(acks_path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    if (life->acks < 0)
        fprintf(stderr, "exchange: %s: cannot be opened: %s\n", acks_path, strerror(errno));
    return life->acks >= 0;
}

void life_promise(struct life *life, uint64_t position) {
    char text[32];
    if (life->acks < 0)
        return;
    int size = snprintf(text, sizeof(text), "%020" PRIu64 "\n", position);
    if (pwrite(life->acks, text, (size_t)size, 0) != size) {
        fprintf(stderr, "exchange: %s: cannot be written: %s\n", life->acks_path, strerror(errno));
        close(life->acks);
        life->acks = -1;
    }
}

static void *killer_main(void *unused) {
    uint64_t dice = 0;
    (void)unused;
    if (getrandom(&dice, sizeof(dice), 0) != sizeof(dice))
        dice = clock_ns();
    uint64_t at_ns = clock_ns() + dice % 300000;
    while (clock_ns() < at_ns)
        continue;
    kill(getpid(), SIGKILL);
    return NULL;
}

void life_kill_soon(struct life *life) {
    if (!life->killing)
        life->killing = pthread_create(&life->killer, NULL, killer_main, NULL) == 0;
}

void life_end(struct life *life) {
    if (life->killing)
        pthread_join(life->killer, NULL);
    if (life->acks >= 0)
        close(life->acks);
    life->acks = -1;
}
