// SPDX-License-Identifier: Apache-2.0
/* coordinator.c: what all coordinators share. See coordinator.h. */
#include "core/coordinator.h"

#include <string.h>

#include "base/bits.h"
#include "base/crc.h"

const char *coordinator_ask_problem(const struct coordinator_ask *ask) {
    if (ask->act < COORDINATOR_GET || ask->act > COORDINATOR_REMOVE) {
        return "there is no such act";
    }
    if (ask->id.kind != REGISTER_CONFIGURATION && ask->id.kind != REGISTER_NODE) {
        return "there is no such kind of register";
    }
    if (ask->act == COORDINATOR_SWAP && (ask->size == 0 || ask->size > REGISTER_VALUE_MAX)) {
        return "a register holds 1 to 2048 bytes";
    }
    if (ask->act == COORDINATOR_REMOVE && ask->id.kind == REGISTER_CONFIGURATION) {
        return "the configuration of a group is never removed";
    }
    return ask->act == COORDINATOR_REMOVE && ask->expected == 0 ? "there is nothing to remove" : NULL;
}

/* ---- Registers and news -------------------------------------------------------------------------------------------- */

static struct coordinator_table_entry *table_find(struct coordinator_table *table, struct register_id id) {
    for (uint32_t i = 0; i < REGISTERS_MAX; i++) {
        struct coordinator_table_entry *entry = &table->entries[i];
        if (entry->used && register_id_same(entry->id, id)) {
            return entry;
        }
    }
    return NULL;
}

static struct coordinator_table_entry *table_add(struct coordinator_table *table, struct register_id id) {
    for (uint32_t i = 0; i < REGISTERS_MAX; i++) {
        struct coordinator_table_entry *entry = &table->entries[i];
        if (!entry->used) {
            *entry = (struct coordinator_table_entry){.id = id, .used = true};
            return entry;
        }
    }
    return NULL;
}

bool coordinator_table_begin(struct coordinator_table *table, uint64_t at) {
    if (at < table->changed_at || at < table->read_at) {
        return false;
    }
    for (uint32_t i = 0; i < REGISTERS_MAX; i++) {
        table->entries[i].seen = false;
    }
    table->reading = true;
    return true;
}

bool coordinator_table_set(struct coordinator_table *table, struct register_id id,
                           const struct register_state *state, bool *ret_changed) {
    struct coordinator_table_entry *entry = table_find(table, id);
    bool changed = false;
    if (table->reading || state->revision > table->read_at) {
        entry = entry ? entry : table_add(table, id);
        if (!entry) {
            return false;
        }
        entry->seen = true;
        changed = state->revision > entry->state.revision && state->revision > entry->removed_at;
    }
    if (changed) {
        entry->state = *state;
        entry->told = false;
        table->changed_at = max_u64(table->changed_at, state->revision);
    }
    if (ret_changed) {
        *ret_changed = changed;
    }
    return true;
}

static bool entry_remove(struct coordinator_table *table, struct coordinator_table_entry *entry,
                         uint64_t at) {
    if (entry->state.revision == 0 || at <= entry->state.revision) {
        return false;
    }
    entry->state = (struct register_state){0};
    entry->removed_at = at;
    entry->told = false;
    table->changed_at = max_u64(table->changed_at, at);
    return true;
}

void coordinator_table_remove(struct coordinator_table *table, struct register_id id, uint64_t at) {
    struct coordinator_table_entry *entry = table_find(table, id);
    if (entry && at > table->read_at) {
        (void)entry_remove(table, entry, at);
    }
}

bool coordinator_table_end(struct coordinator_table *table, uint64_t at) {
    bool removed = false;
    for (uint32_t i = 0; i < REGISTERS_MAX; i++) {
        struct coordinator_table_entry *entry = &table->entries[i];
        if (entry->used && !entry->seen) {
            removed |= entry_remove(table, entry, at);
        }
    }
    table->reading = false;
    table->complete = true;
    table->read_at = at;
    return removed;
}

static uint64_t entry_changed_at(const struct coordinator_table_entry *entry) {
    return entry->state.revision != 0 ? entry->state.revision : entry->removed_at;
}

/* The place of the oldest change that has not been told; REGISTERS_MAX: there is none. */
static uint32_t table_untold(const struct coordinator_table *table) {
    uint32_t first = REGISTERS_MAX;
    for (uint32_t i = 0; i < REGISTERS_MAX; i++) {
        const struct coordinator_table_entry *entry = &table->entries[i];
        if (entry->used && !entry->told &&
            (first == REGISTERS_MAX || entry_changed_at(entry) < entry_changed_at(&table->entries[first]))) {
            first = i;
        }
    }
    return first;
}

bool coordinator_table_news_pending(const struct coordinator_table *table) {
    return (table->complete && !table->complete_told) || table_untold(table) != REGISTERS_MAX;
}

bool coordinator_table_news(struct coordinator_table *table, struct coordinator_news *ret_news) {
    uint32_t place = table_untold(table);
    if (place != REGISTERS_MAX) {
        struct coordinator_table_entry *entry = &table->entries[place];
        *ret_news = (struct coordinator_news){.kind = NEWS_CHANGED, .id = entry->id, .state = entry->state};
        entry->told = true;
        entry->used = entry->state.revision != 0;
        return true;
    }
    if (table->complete && !table->complete_told) {
        table->complete_told = true;
        *ret_news = (struct coordinator_news){.kind = NEWS_COMPLETE};
        return true;
    }
    return false;
}

/* ---- Memory -------------------------------------------------------------------------------------------------------- */

const char *coordinator_memory_problem(const struct coordinator_memory *memory) {
    if (memory->magic != COORDINATOR_MEMORY_MAGIC) {
        return "it is something else";
    }
    if (memory->format != COORDINATOR_MEMORY_FORMAT) {
        return "its format is not of this program";
    }
    return memory->count <= COORDINATOR_MEMORY_REGISTERS_MAX ? NULL : "it is damaged";
}

const char *coordinator_memory_store(struct coordinator_memory *memory, uint64_t store, uint64_t at,
                                     uint64_t floor) {
    if (memory->store != 0 && store != memory->store) {
        return "it is another store than before";
    }
    if (at < floor) {
        return "its revision has gone back";
    }
    memory->magic = COORDINATOR_MEMORY_MAGIC;
    memory->format = COORDINATOR_MEMORY_FORMAT;
    memory->store = store;
    memory->revision = max_u64(memory->revision, at);
    return NULL;
}

static const struct coordinator_memory_entry *memory_find(const struct coordinator_memory *memory,
                                                          struct register_id id) {
    for (uint32_t i = 0; i < memory->count; i++) {
        const struct coordinator_memory_entry *entry = &memory->entries[i];
        if (entry->kind == id.kind && entry->number == id.number) {
            return entry;
        }
    }
    return NULL;
}

/* Does this follow on what is remembered of the register? */
static const char *history_problem(const struct coordinator_memory_entry *old,
                                   const struct coordinator_memory_entry *new, uint64_t at) {
    if (new->revision < old->revision) {
        return at < old->revision ? NULL : "a configuration has gone back";
    }
    if (new->created != old->created) {
        return "a configuration was removed and made anew";
    }
    if (new->revision == old->revision) {
        return new->version == old->version &&new->crc == old->crc
                   ? NULL
                   : "a configuration has another content than before under the same revision";
    }
    return new->version > old->version ? NULL : "a configuration has another history than before";
}

const char *coordinator_memory_register(struct coordinator_memory *memory, struct register_id id,
                                        const struct register_state *state, struct register_history history,
                                        uint64_t at) {
    if (state->revision == 0 || state->revision > at || history.version == 0 ||
        history.created > state->revision) {
        return "its revisions contradict each other";
    }
    if (id.kind != REGISTER_CONFIGURATION) {
        return NULL;
    }
    const struct coordinator_memory_entry *found = memory_find(memory, id);
    struct coordinator_memory_entry entry = {.kind = id.kind,
                                             .number = id.number,
                                             .crc = crc32c(0, state->value, state->size),
                                             .created = history.created,
                                             .revision = state->revision,
                                             .version = history.version};
    if (!found) {
        if (memory->count == COORDINATOR_MEMORY_REGISTERS_MAX) {
            return "it has more groups than this program remembers";
        }
        memory->entries[memory->count++] = entry;
        return NULL;
    }
    const char *problem = history_problem(found, &entry, at);
    if (!problem && entry.revision > found->revision) {
        memory->entries[found - memory->entries] = entry;
    }
    return problem;
}

const char *coordinator_memory_absent(const struct coordinator_memory *memory, struct register_id id,
                                      uint64_t at) {
    const struct coordinator_memory_entry *found = memory_find(memory, id);
    return found && at >= found->revision ? "a configuration is gone" : NULL;
}
