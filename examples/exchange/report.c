// SPDX-License-Identifier: Apache-2.0
/* report.c: see report.h. */
#include "report.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "options.h"

const char *number_text(uint64_t number, char ret_text[NUMBER_TEXT_MAX]) {
    char digits[24];
    size_t count = (size_t)snprintf(digits, sizeof(digits), "%llu", (unsigned long long)number);
    char *to = ret_text;
    for (size_t i = 0; i < count; i++) {
        if (i > 0 && (count - i) % 3 == 0)
            *to++ = ',';
        *to++ = digits[i];
    }
    *to = '\0';
    return ret_text;
}

const char *fixed_text(__int128 number, unsigned digits, unsigned shown, char ret_text[NUMBER_TEXT_MAX]) {
    unsigned __int128 rest = number < 0 ? -(unsigned __int128)number : (unsigned __int128)number;
    char reversed[NUMBER_TEXT_MAX];
    unsigned count = 0, cut = digits - shown, length = 0;

    for (; cut > 0; cut--)
        rest /= 10;
    do {
        if (shown > 0 && count == shown)
            reversed[length++] = '.';
        reversed[length++] = (char)('0' + (int)(rest % 10));
        rest /= 10;
        count++;
    } while (rest > 0 || count <= shown);

    char *to = ret_text;
    if (number < 0)
        *to++ = '-';
    while (length > 0)
        *to++ = reversed[--length];
    *to = '\0';
    return ret_text;
}

struct colours colours_for(FILE *file) {
    const char *no_colour = getenv("NO_COLOR");
    if (!isatty(fileno(file)) || (no_colour && *no_colour))
        return (struct colours){"", "", "", "", "", "", ""};
    return (struct colours){"\033[32m", "\033[31m", "\033[1;32m", "\033[1;31m",
                            "\033[2m",  "\033[1m",  "\033[0m"};
}

uint64_t clock_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void latencies_add(struct latencies *latencies, uint64_t ns) {
    if (latencies->count == latencies->room) {
        size_t room = latencies->room ? latencies->room * 2 : 4096;
        uint32_t *larger = realloc(latencies->ns, room * sizeof(*larger));
        if (!larger)
            return; /* a statistic is not worth stopping for */
        latencies->ns = larger;
        latencies->room = room;
    }
    latencies->ns[latencies->count++] = ns < UINT32_MAX ? (uint32_t)ns : UINT32_MAX;
}

static int ns_compare(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

void latencies_sort(struct latencies *latencies) {
    if (latencies->count > 0)
        qsort(latencies->ns, latencies->count, sizeof(*latencies->ns), ns_compare);
}

double latencies_us(const struct latencies *latencies, double percent) {
    if (latencies->count == 0)
        return 0;
    size_t rank = (size_t)((double)latencies->count * percent / 100);
    return latencies->ns[rank < latencies->count ? rank : latencies->count - 1] / 1000.0;
}

void latencies_free(struct latencies *latencies) {
    free(latencies->ns);
    latencies->ns = NULL;
}

int shelf_failed(const char *doing, shelf_result result) {
    const char *detail = shelf_detail();
    fprintf(stderr, "exchange: %s: %s: %s%s%s\n", doing, shelf_result_name(result), detail,
            *detail ? ". " : "", shelf_result_text(result));
    return result == SHELF_FENCED ? EXIT_CODE_REPLACED : EXIT_CODE_SHELF;
}

int gateways_missing(const char *where) {
    fprintf(stderr,
            "exchange: %s follows from an input of its own (exchange run) and has no gateways; start them in "
            "another directory.\n",
            where);
    return EXIT_CODE_INPUT;
}
