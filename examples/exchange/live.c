// SPDX-License-Identifier: Apache-2.0
/*
 * live.c: `exchange book --live`: the book, again and again as it changes.
 *
 * It is read from this process's own mapping of the memory that the engine writes. Nobody sends it here, and nobody knows
 * that we look: between two changes we sleep in shelf_wait(), and reading asks nobody. So the last book stays on the screen
 * even while the node is gone, and we say so.
 */
#include "live.h"

#include <stdio.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "book.h"
#include "life.h"
#include "report.h"
#include "settle.h"

#define SLEEP_MS     1000u /* until we look whether we are to stop, and whether there is still a node */
#define FRAME_MS     40u   /* nobody reads faster */
#define LINES_AROUND 6u    /* of the terminal, that are not prices */

#define SCREEN_BEGIN "\033[?1049h\033[?25l" /* a screen of its own, no cursor */
#define SCREEN_END   "\033[?25h\033[?1049l"
#define SCREEN_HOME  "\033[H"
#define LINE_REST    "\033[K"
#define SCREEN_REST  "\033[J"

struct live {
    const struct options *options;
    struct store *store;
    bool screen; /* drawn over and over, instead of line after line */
    uint64_t updates;
    uint64_t second_ns, second_position; /* when the present second began, and where the engine was then */
    uint64_t rate;                       /* events in the last whole second */
    struct book_view view;               /* the last one shown */
};

/* ---- One book ---- */

static void line_print(const struct book_view *view) {
    const struct ladder_view *bids = &view->sides[SIDE_BID], *asks = &view->sides[SIDE_ASK];
    char text[NUMBER_TEXT_MAX];

    printf("event %s", number_text(view->state.position, text));
    printf("  orders %s", number_text(view->state.tally.resting, text));
    printf("  trades %s", number_text(view->state.tally.trades, text));
    printf("  bid %s", bids->count ? fixed_text(bids->levels[0].price, 2, 2, text) : "-");
    printf("  ask %s", asks->count ? fixed_text(asks->levels[0].price, 2, 2, text) : "-");
    printf("  last %s\n", view->traded ? fixed_text(view->last.price, 2, 2, text) : "-");
}

static void rate_measure(struct live *live) {
    uint64_t now_ns = clock_ns(), position = live->view.state.position;
    if (now_ns < live->second_ns + 1000000000)
        return;
    if (live->second_ns)
        live->rate =
            (uint64_t)((double)(position - live->second_position) * 1e9 / (double)(now_ns - live->second_ns));
    live->second_ns = now_ns;
    live->second_position = position;
}

static void staleness_print(const struct live *live, const struct colours *c) {
    struct shelf_staleness staleness;
    char text[NUMBER_TEXT_MAX];
    if (shelf_staleness_get(live->store->s, &staleness) != SHELF_OK)
        return;
    if (staleness.connected)
        printf("%s%s events a second%s" LINE_REST "\n", c->dim, number_text(live->rate, text), c->off);
    else
        printf("%sno node since %s s: this is the last state%s" LINE_REST "\n", c->bad,
               fixed_text(staleness.age_ms, 3, 1, text), c->off);
}

static void screen_draw(struct live *live) {
    const struct colours c = colours_for(stdout);
    rate_measure(live);
    fputs(SCREEN_HOME, stdout);
    printf("%sThe book, live%s   %s" LINE_REST "\n", c.bold, c.off, live->options->where);
    staleness_print(live, &c);
    puts(LINE_REST);
    fputs(SCREEN_REST, stdout);
    book_print(&live->view);
}

static void live_show(struct live *live) {
    if (live->options->json)
        book_json(&live->view);
    else if (live->screen)
        screen_draw(live);
    else
        line_print(&live->view);
    fflush(stdout);
}

/* ---- Again and again ---- */

static size_t depth_fitting(const struct live *live) {
    size_t depth = (size_t)live->options->depth;
    struct winsize size;
    if (live->screen && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > LINES_AROUND &&
        depth > size.ws_row - LINES_AROUND)
        depth = size.ws_row - LINES_AROUND;
    return depth;
}

/* Until the state is another than at the last look. TIMEOUT: not within a second. */
static shelf_result change_await(const struct live *live) {
    if (live->screen) {
        const struct timespec frame = {.tv_nsec = FRAME_MS * 1000000L};
        nanosleep(&frame, NULL); /* a signal may cut it short */
    }
    return shelf_wait(live->store->s, live->store->state, sizeof(struct state), live->view.index, SLEEP_MS);
}

static bool live_is_done(const struct live *live) {
    return stop_wanted || ferror(stdout) ||
           (live->options->updates && live->updates >= live->options->updates);
}

/* Looks again. After a new node has come, memory counts as changed though it says the same: then there is nothing to show. */
static shelf_result book_renew(struct live *live) {
    uint64_t position = live->view.state.position, trades = live->view.state.tally.trades;
    shelf_result result = book_look(live->store, depth_fitting(live), &live->view);
    bool same = position == live->view.state.position && trades == live->view.state.tally.trades;
    if (result == SHELF_OK && (live->screen || !same)) {
        live->updates++;
        live_show(live);
    }
    return result;
}

/* UNAVAILABLE: the node has died in the middle of a change to the book, and there is not yet another one. */
static shelf_result change_follow(struct live *live) {
    shelf_result result = change_await(live);
    if (result == SHELF_OK)
        result = book_renew(live);
    if (result == SHELF_TIMEOUT) {
        if (live->screen)
            live_show(live);
        result = SHELF_OK;
    } else if (result == SHELF_UNAVAILABLE) {
        result = node_await(live->store->s);
    }
    return result;
}

int book_follow(const struct options *options, struct store *store) {
    static struct live live; /* large, and there is one */
    live = (struct live){.options = options, .store = store};
    live.screen = !options->json && isatty(STDOUT_FILENO);

    shelf_result result = book_look(store, depth_fitting(&live), &live.view);
    if (result != SHELF_OK)
        return shelf_failed("reading the book", result);
    life_stoppable();
    if (live.screen) {
        setvbuf(stdout, NULL, _IOFBF, 1 << 16); /* a whole screen at once */
        fputs(SCREEN_BEGIN, stdout);
    }
    live.updates = 1;
    live_show(&live);
    while (result == SHELF_OK && !live_is_done(&live))
        result = change_follow(&live);
    if (live.screen) {
        fputs(SCREEN_END, stdout);
        book_print(&live.view);
    }
    return result == SHELF_OK ? EXIT_CODE_OK : shelf_failed("following the book", result);
}
