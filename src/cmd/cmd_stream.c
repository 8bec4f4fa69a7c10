// SPDX-License-Identifier: Apache-2.0
/* cmd_stream.c: `shelf append` and `shelf tail`: records of streams, for people and scripts. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cmd/arguments.h"
#include "cmd/bytes.h"
#include "cmd/output.h"
#include "cmd/shelf_use.h"
#include "cmd/words.h"

#define WAIT_MS 500u /* how soon an interruption is noticed */

struct flow { /* a stream that a command works on */
    const struct call *call;
    const char *path;
    char region_name[SHELF_NAME_MAX + 1], stream_name[SHELF_NAME_MAX + 1];
    shelf *s;
    shelf_region region;
    shelf_stream stream;
    bool stream_missing;

    /* append */
    struct shelf_stream_options options;
    struct bytes record; /* tail: room for one */
    uint64_t time_ms;
    struct shelf_receipt receipt;

    /* tail */
    uint64_t position; /* of the next record to show; append: of the record */
    uint64_t wanted;   /* how many of the newest, if no position is given */
    bool placed;       /* `position` is set */
    bool found;
    uint64_t index; /* of the last look */
    uint64_t lost;  /* records that retention removed before they were shown */
};

static int flow_open(const struct call *call, uint32_t flags, struct flow *flow) {
    const char *place = call_argument(call, 1);
    flow->call = call;
    flow->path = path_plain(call_argument(call, 0));
    if (!place_split(place, flow->region_name, flow->stream_name)) {
        return fail(call, SHELF_INVALID,
                    "'%s' is no REGION/STREAM: two names with a slash between them, each of 1 to %u bytes",
                    place, SHELF_NAME_MAX);
    }
    shelf_result result = shelf_use_open(flow->path, flags, &flow->s);
    if (result != SHELF_OK) {
        return shelf_use_refuse(call, flow->path, result);
    }
    result = shelf_region_open(flow->s, flow->region_name, &flow->region);
    return result == SHELF_OK ? 0 : region_refuse(call, flow->path, flow->region_name, result);
}

static int flow_close(struct flow *flow, int code) {
    free(flow->record.at);
    return flow->s ? close_finish(flow->call, flow->s, code) : code;
}

static int flow_refuse(const struct flow *flow, shelf_result result) {
    if (result == SHELF_NOT_FOUND && flow->stream_missing) {
        return fail(flow->call, result, "%s: region '%s' has no stream '%s'; `shelf append` makes it",
                    flow->path, flow->region_name, flow->stream_name);
    }
    return fail_call(flow->call, result, "%s: %s/%s", flow->path, flow->region_name, flow->stream_name);
}

static shelf_result stream_open(shelf_tx *tx, struct flow *flow) {
    shelf_result result = shelf_stream_open(tx, flow->region, flow->stream_name, &flow->stream);
    flow->stream_missing = result == SHELF_NOT_FOUND;
    return result;
}

/* ---- append -------------------------------------------------------------------------------------------------------- */

static shelf_result append_body(shelf_tx *tx, void *context) {
    struct flow *flow = context;
    shelf_result result = stream_open(tx, flow);
    if (result == SHELF_NOT_FOUND) {
        result = shelf_stream_create(tx, flow->region, flow->stream_name, &flow->options, &flow->stream);
    }
    return result != SHELF_OK ? result
                              : shelf_stream_append(tx, flow->stream, flow->time_ms, flow->record.at,
                                                    flow->record.size, &flow->position);
}

static int append_parse(const struct call *call, struct flow *flow) {
    const char *bytes_max = call_option(call, "keep-bytes"), *age_max = call_option(call, "keep-time");
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    flow->time_ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
    if (bytes_max && !size_parse(bytes_max, &flow->options.bytes_max)) {
        return fail(call, SHELF_INVALID, "'%s' is no size; write bytes, or a number with K, M, G or T",
                    bytes_max);
    }
    if (age_max && !time_parse(age_max, &flow->options.age_max_ms)) {
        return fail(call, SHELF_INVALID, "'%s' is no time; write a number with ms, s, m, h or d", age_max);
    }
    return bytes_parse(call, call_argument(call, 2), true, &flow->record);
}

static int append_run(struct flow *flow) {
    shelf_result result = shelf_run(flow->s, SHELF_READ_WRITE, append_body, flow, 0, &flow->receipt);
    if (result != SHELF_OK) {
        return flow_refuse(flow, result);
    }
    if (flow->call->json) {
        return json_finish(stdout,
                           json_pack("{s:I, s:I, s:I, s:I}", "position", (json_int_t)flow->position, "index",
                                     (json_int_t)flow->receipt.index, "time_ms", (json_int_t)flow->time_ms,
                                     "size", (json_int_t)flow->record.size));
    }
    return SHELF_OK;
}

int cmd_append(const struct call *call) {
    struct flow flow = {.call = call};
    int code = append_parse(call, &flow);
    code = code == 0 ? flow_open(call, 0, &flow) : code;
    return flow_close(&flow, code == 0 ? append_run(&flow) : code);
}

/* ---- tail ---------------------------------------------------------------------------------------------------------- */

/* One record, so that what is shown was there at one moment. Moves flow->position to it if retention was faster. */
static shelf_result record_body(shelf_tx *tx, void *context) {
    struct flow *flow = context;
    uint64_t first, next;
    shelf_result result = stream_open(tx, flow);
    if (result == SHELF_OK) {
        result = shelf_stream_bounds(tx, flow->stream, &first, &next);
    }
    if (result != SHELF_OK) {
        return result;
    }
    if (!flow->placed) {
        flow->position = next - first > flow->wanted ? next - flow->wanted : first;
    }
    flow->index = shelf_tx_index(tx);
    flow->lost = flow->position < first ? first - flow->position : 0;
    flow->position += flow->lost;
    flow->found = flow->position < next;
    return flow->found ? shelf_stream_read(tx, flow->stream, flow->position, flow->record.at,
                                           SHELF_TX_BYTES_MAX, &flow->record.size, &flow->time_ms)
                       : SHELF_OK;
}

static int record_show(const struct flow *flow) {
    int code = SHELF_OK;
    if (flow->call->json) {
        json_t *object = json_pack("{s:I, s:I, s:I}", "position", (json_int_t)flow->position, "time_ms",
                                   (json_int_t)flow->time_ms, "size", (json_int_t)flow->record.size);
        bytes_json(object, "record", &flow->record);
        code = json_finish(stdout, object);
    } else {
        bytes_print(stdout, &flow->record, call_option(flow->call, "hex") != NULL);
        (void)putchar('\n');
    }
    return code;
}

static int tail_parse(const struct call *call, struct flow *flow) {
    const char *count = call_option(call, "count"), *from = call_option(call, "from");
    flow->wanted = 10;
    if (count && !size_parse(count, &flow->wanted)) {
        return fail(call, SHELF_INVALID, "'%s' is no number of records", count);
    }
    flow->placed = from != NULL;
    if (from && !size_parse(from, &flow->position)) {
        return fail(call, SHELF_INVALID, "'%s' is no position; the first record of a stream has 0", from);
    }
    flow->record.at = malloc(SHELF_TX_BYTES_MAX);
    return flow->record.at ? 0 : fail(call, SHELF_NO_MEMORY, "no memory for a record");
}

/* Until something has been appended, or the user has had enough. */
static shelf_result append_await(struct flow *flow) {
    shelf_result result;
    if (fflush(stdout) != 0) {
        return SHELF_OK; /* the reader of our output has gone: main() says so */
    }
    do {
        result = shelf_wait(flow->s, flow->stream.header, 2 * SHELF_LINE_SIZE, flow->index, WAIT_MS);
    } while ((result == SHELF_TIMEOUT || result == SHELF_UNAVAILABLE) && !interrupt_seen() &&
             !ferror(stdout));
    return result;
}

static int tail_run(struct flow *flow) {
    bool follow = call_option(flow->call, "follow") != NULL;
    interrupt_watch();
    while (!interrupt_seen() && !ferror(stdout)) {
        shelf_result result = shelf_run(flow->s, SHELF_READ_ONLY, record_body, flow, 0, NULL);
        if (result != SHELF_OK) {
            return flow_refuse(flow, result);
        }
        if (flow->lost > 0 && flow->placed) {
            remark(flow->call, "shelf tail: %llu records have been removed by the stream's retention",
                   (unsigned long long)flow->lost);
        }
        flow->placed = true;
        if (flow->found) {
            int code = record_show(flow);
            flow->position++;
            if (code != SHELF_OK) {
                return code;
            }
        } else if (!follow) {
            return SHELF_OK;
        } else if ((result = append_await(flow)) != SHELF_OK && !interrupt_seen()) {
            return flow_refuse(flow, result);
        }
    }
    return follow ? SHELF_OK : EXIT_INTERRUPTED;
}

int cmd_tail(const struct call *call) {
    struct flow flow = {.call = call};
    int code = tail_parse(call, &flow);
    code = code == 0 ? flow_open(call, SHELF_OPEN_NO_CHECKPOINT, &flow) : code;
    return flow_close(&flow, code == 0 ? tail_run(&flow) : code);
}
