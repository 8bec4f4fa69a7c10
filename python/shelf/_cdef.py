# SPDX-License-Identifier: Apache-2.0
"""The declarations of shelf.h. Written by `tools/check-cdef --fix`; a change here would be lost."""

CDEF = """
#define SHELF_NULL 0
#define SHELF_LINE_SIZE 64
#define SHELF_NAME_MAX 55
#define SHELF_TX_BYTES_MAX 16777216
#define SHELF_TX_LINES_READ_MAX 1048576
#define SHELF_TX_OPERATIONS_MAX 4096
#define SHELF_TX_RESULTS_MAX 12
#define SHELF_SESSION_WINDOW 64
#define SHELF_SESSIONS_MAX 1024
#define SHELF_REGIONS_MAX 1024
#define SHELF_REGION_BYTES_MAX 1099511627776
#define SHELF_NODES_MAX 32
#define SHELF_ADDRESS_MAX 256

typedef enum shelf_result {
    SHELF_OK = (0), SHELF_CONFLICT = (1), SHELF_UNKNOWN = (2), SHELF_UNAVAILABLE = (3), SHELF_NO_SPACE = (4),
        SHELF_TOO_LARGE = (5), SHELF_DENIED = (6), SHELF_INVALID = (7), SHELF_EXPIRED = (8), SHELF_CORRUPT =
        (9), SHELF_NOT_FOUND = (10), SHELF_EXISTS = (11), SHELF_FENCED = (12), SHELF_LAYOUT = (13),
        SHELF_TIMEOUT = (14), SHELF_BUSY = (15), SHELF_FORMAT = (16), SHELF_IO = (17), SHELF_NO_MEMORY = (18),
        SHELF_ABORTED = (19),
} shelf_result;
const char *shelf_version(void);
const char *shelf_result_name(shelf_result result);
const char *shelf_result_text(shelf_result result);
const char *shelf_detail(void);
typedef uint64_t shelf_addr;
typedef uint16_t shelf_region;
typedef struct shelf shelf;
typedef enum shelf_backend {
    SHELF_BACKEND_AUTO = 0, SHELF_BACKEND_URING = 1, SHELF_BACKEND_PLAIN = 2,
} shelf_backend;
enum {
    SHELF_OPEN_CREATE = 1u << 0, SHELF_OPEN_EXCLUSIVE = 1u << 1, SHELF_OPEN_NO_CHECKPOINT = 1u << 2,
        SHELF_OPEN_ALONE = 1u << 3,
};
struct shelf_options {
    uint32_t flags;
    shelf_backend backend;
    uint64_t log_bytes_max;
    uint64_t checkpoint_log_bytes;
    uint32_t checkpoint_interval_ms;
    uint32_t commit_deadline_ms;
    uint64_t session_idle_ms;
    uint64_t session_named_idle_ms;
    uint32_t open_deadline_ms;
    uint32_t reserved32;
    uint64_t reserved[7];
};
shelf_result shelf_open(const char *where, const struct shelf_options *options, shelf **ret_shelf);
shelf_result shelf_close(shelf *s);
shelf_result shelf_checkpoint(shelf *s, uint64_t *ret_index);
uint64_t shelf_applied(const shelf *s);
struct shelf_info {
    uint64_t applied;
    uint64_t epoch;
    uint64_t checkpoint;
    uint64_t records;
    uint64_t commits;
    uint64_t conflicts;
    uint64_t log_bytes;
    uint64_t log_bytes_live;
    uint64_t recovered_records;
    uint64_t recovered_cut_bytes;
    shelf_backend backend;
    shelf_result state;
};
shelf_result shelf_info_get(shelf *s, struct shelf_info *ret_info);
struct shelf_staleness {
    uint64_t index;
    uint64_t age_ms;
    bool connected;
};
shelf_result shelf_staleness_get(shelf *s, struct shelf_staleness *ret_staleness);
struct shelf_stats {
    uint64_t commits;
    uint64_t conflicts;
    uint64_t failures;
    uint64_t retries;
    uint64_t commit_ns;
    uint64_t commit_ns_max;
    uint64_t waits, wakes;
    uint64_t reconnects;
    uint64_t takeovers;
    uint64_t replicas_held;
    bool is_node;
};
shelf_result shelf_stats_get(shelf *s, struct shelf_stats *ret_stats);
struct shelf_client_info {
    uint64_t client;
    uint64_t attached_ms;
    uint64_t commits;
    uint64_t bytes;
    uint64_t pending_bytes;
    uint32_t pending;
    uint32_t regions;
    uint32_t process;
    uint32_t owner, group;
    uint32_t waiters;
    char program[32];
};
shelf_result shelf_client_list(shelf *s, struct shelf_client_info *ret_infos, size_t count_max, size_t
    *ret_count);
enum shelf_part {
    SHELF_PART_LEARNER = 0, SHELF_PART_BACKUP = 1, SHELF_PART_PRIMARY = 2,
};
struct shelf_node_info {
    uint64_t node;
    enum shelf_part part;
    bool connected;
    bool known;
    uint64_t index;
    uint64_t behind_records, behind_bytes;
    uint64_t silent_ms;
    char address[256u];
};
struct shelf_cluster_info {
    char name[64];
    uint64_t node;
    enum shelf_part part;
    bool serves;
    bool changing;
    uint64_t primary;
    uint64_t epoch;
    uint64_t silent_ms;
    uint32_t in_sync;
    uint32_t copies, copies_min;
    bool coordinator_reachable;
    bool coordinator_refused;
    uint64_t coordinator_ms;
    char coordinator[256];
    char coordinator_text[256];
    uint32_t node_count;
    struct shelf_node_info nodes[32u];
};
shelf_result shelf_cluster_get(shelf *s, struct shelf_cluster_info *ret_info);
struct shelf_region_info {
    char name[55u + 1];
    shelf_region region;
    uint64_t size;
    uint64_t size_max;
    uint64_t floor;
    uint32_t owner, group;
    uint32_t mode;
    uint32_t reserved;
};
shelf_result shelf_region_create(shelf *s, const char *name, uint64_t size, uint64_t size_max, shelf_region
    *ret_region);
shelf_result shelf_region_open(shelf *s, const char *name, shelf_region *ret_region);
shelf_result shelf_region_grow(shelf *s, shelf_region region, uint64_t size);
shelf_result shelf_region_access(shelf *s, shelf_region region, uint32_t owner, uint32_t group, uint32_t mode);
shelf_result shelf_region_drop(shelf *s, const char *name);
shelf_result shelf_region_info_get(shelf *s, shelf_region region, struct shelf_region_info *ret_info);
shelf_result shelf_region_list(shelf *s, struct shelf_region_info *ret_infos, size_t count_max, size_t
    *ret_count);
typedef struct shelf_tx shelf_tx;
enum {
    SHELF_READ_ONLY = 1u << 0, SHELF_READ_WRITE = 1u << 1, SHELF_FRESH = 1u << 2,
};
enum shelf_durability {
    SHELF_DURABLE_NOT = 0, SHELF_DURABLE_LOCAL = 1, SHELF_DURABLE_MAJORITY = 2,
};
struct shelf_receipt {
    uint64_t index;
    uint64_t epoch;
    uint64_t sequence;
    enum shelf_durability durability;
    bool replayed;
    uint32_t result_count;
    uint64_t results[12u];
};
shelf_result shelf_begin(shelf *s, unsigned flags, shelf_tx **ret_tx);
shelf_result shelf_read(shelf_tx *tx, shelf_addr from, void *to, size_t size);
shelf_result shelf_view(shelf_tx *tx, shelf_addr from, size_t size, const void **ret_bytes);
shelf_result shelf_check(shelf_tx *tx);
void shelf_prefetch(shelf_tx *tx, shelf_addr from, size_t size);
shelf_result shelf_write(shelf_tx *tx, shelf_addr to, const void *from, size_t size);
shelf_result shelf_add(shelf_tx *tx, shelf_addr word, uint64_t operand);
shelf_result shelf_min(shelf_tx *tx, shelf_addr word, uint64_t operand);
shelf_result shelf_max(shelf_tx *tx, shelf_addr word, uint64_t operand);
shelf_result shelf_and(shelf_tx *tx, shelf_addr word, uint64_t operand);
shelf_result shelf_or(shelf_tx *tx, shelf_addr word, uint64_t operand);
shelf_result shelf_commit(shelf_tx *tx, struct shelf_receipt *ret_receipt);
void shelf_abort(shelf_tx *tx);
shelf_result shelf_commit_async(shelf_tx *tx, uint64_t tag);
struct shelf_completion {
    uint64_t tag;
    shelf_result result;
    struct shelf_receipt receipt;
};
int shelf_completion_fd(shelf *s);
size_t shelf_completions(shelf *s, struct shelf_completion *ret_completions, size_t count_max);
typedef shelf_result (*shelf_body)(shelf_tx *tx, void *context);
shelf_result shelf_run(shelf *s, unsigned flags, shelf_body body, void *context, uint32_t deadline_ms, struct
    shelf_receipt *ret_receipt);
shelf_result shelf_wait(shelf *s, shelf_addr address, uint64_t length, uint64_t since_index, uint32_t
    timeout_ms);
uint64_t shelf_tx_index(const shelf_tx *tx);
shelf *shelf_tx_shelf(const shelf_tx *tx);
uint32_t shelf_tx_hint(const shelf_tx *tx);
typedef struct shelf_session shelf_session;
shelf_result shelf_session_open(shelf *s, const char *name, shelf_session **ret_session);
void shelf_session_close(shelf_session *session);
shelf_result shelf_session_expire(shelf_session *session);
uint64_t shelf_session_last(const shelf_session *session);
shelf_result shelf_session_begin(shelf_session *session, unsigned flags, shelf_tx **ret_tx);
shelf_result shelf_tx_sequence_set(shelf_tx *tx, uint64_t sequence);
shelf_result shelf_session_run(shelf_session *session, uint64_t sequence, shelf_body body, void *context,
    uint32_t deadline_ms, struct shelf_receipt *ret_receipt);
shelf_result shelf_session_outcome(shelf_session *session, uint64_t sequence, struct shelf_receipt
    *ret_receipt);
shelf_result shelf_format(shelf_tx *tx, shelf_region region);
shelf_result shelf_alloc(shelf_tx *tx, shelf_region region, size_t size, shelf_addr *ret_address);
shelf_result shelf_free(shelf_tx *tx, shelf_addr address);
shelf_result shelf_alloc_size(shelf_tx *tx, shelf_addr address, size_t *ret_size);
struct shelf_alloc_sums {
    uint64_t total, live, free, overhead;
    uint64_t blocks_live;
};
shelf_result shelf_alloc_audit(shelf_tx *tx, shelf_region region, struct shelf_alloc_sums *ret_audit);
struct shelf_root {
    char name[55u + 1];
    uint64_t type;
    uint64_t layout;
    shelf_addr address;
};
shelf_result shelf_root_set(shelf_tx *tx, shelf_region region, const struct shelf_root *root);
shelf_result shelf_root_get(shelf_tx *tx, shelf_region region, const char *name, uint64_t type, uint64_t layout,
    shelf_addr *ret_address);
shelf_result shelf_root_remove(shelf_tx *tx, shelf_region region, const char *name);
shelf_result shelf_root_at(shelf_tx *tx, shelf_region region, size_t position, struct shelf_root *ret_root);
struct shelf_field {
    const char *name;
    uint32_t offset, size;
};
uint64_t shelf_layout_hash(const char *type, size_t size, const struct shelf_field *fields, size_t count);
typedef struct shelf_map {
    shelf_addr header;
} shelf_map;
shelf_result shelf_map_open(shelf_tx *tx, shelf_region region, const char *name, shelf_map *ret_map);
shelf_result shelf_map_create(shelf_tx *tx, shelf_region region, const char *name, shelf_map *ret_map);
shelf_result shelf_map_drop(shelf_tx *tx, shelf_region region, const char *name);
shelf_result shelf_map_get(shelf_tx *tx, shelf_map map, const void *key, size_t key_size, void *value, size_t
    value_max, size_t *ret_size);
struct shelf_map_item {
    const void *key;
    size_t key_size;
    void *value;
    size_t value_max;
    size_t value_size;
    shelf_result result;
};
shelf_result shelf_map_get_many(shelf_tx *tx, shelf_map map, struct shelf_map_item *items, size_t count);
shelf_result shelf_map_put(shelf_tx *tx, shelf_map map, const void *key, size_t key_size, const void *value,
    size_t value_size);
shelf_result shelf_map_delete(shelf_tx *tx, shelf_map map, const void *key, size_t key_size);
struct shelf_map_cursor {
    uint64_t state[4];
};
shelf_result shelf_map_next(shelf_tx *tx, shelf_map map, struct shelf_map_cursor *cursor, void *key, size_t
    key_max, size_t *ret_key_size, void *value, size_t value_max, size_t *ret_value_size);
shelf_result shelf_map_count(shelf_tx *tx, shelf_map map, uint64_t *ret_count);
shelf_result shelf_map_verify(shelf_tx *tx, shelf_map map);
typedef struct shelf_stream {
    shelf_addr header;
} shelf_stream;
struct shelf_stream_options {
    uint64_t bytes_max;
    uint64_t age_max_ms;
};
shelf_result shelf_stream_open(shelf_tx *tx, shelf_region region, const char *name, shelf_stream *ret_stream);
shelf_result shelf_stream_create(shelf_tx *tx, shelf_region region, const char *name, const struct
    shelf_stream_options *options, shelf_stream *ret_stream);
shelf_result shelf_stream_drop(shelf_tx *tx, shelf_region region, const char *name);
shelf_result shelf_stream_append(shelf_tx *tx, shelf_stream stream, uint64_t time_ms, const void *bytes, size_t
    size, uint64_t *ret_position);
shelf_result shelf_stream_read(shelf_tx *tx, shelf_stream stream, uint64_t position, void *bytes, size_t
    bytes_max, size_t *ret_size, uint64_t *ret_time_ms);
shelf_result shelf_stream_bounds(shelf_tx *tx, shelf_stream stream, uint64_t *ret_first, uint64_t *ret_next);
shelf_result shelf_stream_trim(shelf_tx *tx, shelf_stream stream, uint64_t position);
shelf_result shelf_stream_verify(shelf_tx *tx, shelf_stream stream);
"""
