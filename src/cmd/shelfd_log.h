// SPDX-License-Identifier: Apache-2.0
/*
 * shelfd_log.h: what shelfd tells on standard error: one line an event. Events have names that stay (docs/operations.md has them
 * all); nothing that users store, no key, no value, is ever in one.
 */
#ifndef CMD_SHELFD_LOG_H
#define CMD_SHELFD_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };
enum log_format { LOG_FORMAT_AUTO, LOG_FORMAT_TEXT, LOG_FORMAT_JOURNAL, LOG_FORMAT_JSON };
extern const char *const log_level_words[];  /* in the order of the enum; NULL ends it */
extern const char *const log_format_words[]; /* the same */

/* X(id, name, level, what it means) */
#define LOG_EVENT_LIST(X)                                                                                  \
    X(STARTING, "starting", INFO, "the configuration is right; the directory is opened next")              \
    X(VARIABLE_UNKNOWN, "variable-unknown", WARNING, "a variable SHELF_... looks misspelt")                \
    X(MARK_FAILED, "mark-failed", WARNING,                                                                 \
      "the file `daemon` cannot be written: programs that open the directory may take it")                 \
    X(RECOVERED, "recovered", INFO, "the data is in memory: what was replayed, what was cut off")          \
    X(SERVING, "serving", INFO, "programs can attach")                                                     \
    X(CLIENT_ATTACHED, "client.attached", DEBUG, "a program has attached")                                 \
    X(CLIENT_GONE, "client.gone", DEBUG, "it has ended, or has closed its shelf")                          \
    X(CLIENT_REFUSED, "client.refused", WARNING, "a program could not attach, and why")                    \
    X(CLIENT_BROKE_RULE, "client.broke-rule", WARNING,                                                     \
      "a program was disconnected: what it sent makes no sense")                                           \
    X(DOOR, "door", INFO, "anything else about programs that attach")                                      \
    X(CLUSTER_MADE, "cluster-made", INFO, "there was no cluster of that name; this node has made it")      \
    X(NODE_EMPTIED, "node-emptied", WARNING,                                                               \
      "the directory of a node has lost its shelf: it joins anew, and gets everything from the others")    \
    X(NODE_REPLACED, "node-replaced", ERROR, "another directory has become the node of this number")       \
    X(NODE_FORGOTTEN, "node-forgotten", INFO, "a number whose address another node has now is given up")   \
    X(ROLE_PRIMARY, "role-primary", INFO, "this node takes commits from now on")                           \
    X(ROLE_BACKUP, "role-backup", INFO, "this node keeps a copy that counts")                              \
    X(ROLE_LEARNER, "role-learner", INFO, "this node gets what it lacks, and does not count yet")          \
    X(SET_CHANGED, "set-changed", INFO, "who leads, and who is in sync")                                   \
    X(PEER_CONNECTED, "peer-connected", INFO, "another node can be reached")                               \
    X(PEER_LOST, "peer-lost", WARNING, "it cannot, and why")                                               \
    X(PEERS_NOT_STORED, "peers-not-stored", WARNING,                                                       \
      "the others' addresses cannot be kept in the directory")                                             \
    X(COORDINATOR_BACK, "coordinator-back", INFO, "etcd answers")                                          \
    X(COORDINATOR_LOST, "coordinator-lost", WARNING,                                                       \
      "etcd does not answer: commits go on, but nobody can take over and the set cannot change")           \
    X(COORDINATOR_REFUSED, "coordinator-refused", ERROR, "what etcd says cannot be right, and why")        \
    X(NO_SPACE, "no-space", WARNING, "the disk is full: reads go on, writers are told")                    \
    X(SPACE_AGAIN, "space-again", INFO, "there is space again")                                            \
    X(NODE_SILENT, "node-silent", ERROR, "the node has not answered in time; no watchdog pings")           \
    X(NODE_ANSWERS, "node-answers", INFO, "it does again")                                                 \
    X(DISK_FAULT, "disk-fault", ERROR, "the disk failed; the node has stopped and shelfd ends with 17")    \
    X(REOPENING, "reopening", INFO,                                                                        \
      "another node's checkpoint was installed: the directory is opened again")                            \
    X(STOPPING, "stopping", INFO, "a signal: it ends; a lone node writes a checkpoint first")              \
    X(STOPPED, "stopped", INFO, "the directory is free")                                                   \
    X(QUIT, "quit", WARNING, "a signal while it opened or stopped: ended at once, without a checkpoint")   \
    X(CHECKPOINT_FAILED, "checkpoint-failed", ERROR, "no last checkpoint; the next start replays the log") \
    X(FAILED, "failed", ERROR, "it cannot start, or go on; the reason, and the exit code")

enum log_event {
#define X(id, ...) LOG_EVENT_##id,
    LOG_EVENT_LIST(X)
#undef X
        LOG_EVENT_COUNT
};

struct log_field {
    const char *name;
    const char *text; /* NULL: it is the number */
    uint64_t number;
};
#define FIELD_TEXT(name, text)     ((struct log_field){(name), (text), 0})
#define FIELD_NUMBER(name, number) ((struct log_field){(name), NULL, (number)})

/* The event of that name; `otherwise` if there is none. */
enum log_event log_event_find(const char *name, enum log_event otherwise);

/* AUTO looks at what standard error is. Any thread may write. */
void log_begin(enum log_format format, enum log_level level);
void log_fields(enum log_event event, const struct log_field *fields, size_t count);
#define log_event(event, ...)                                    \
    log_fields((event), (const struct log_field[]){__VA_ARGS__}, \
               sizeof((const struct log_field[]){__VA_ARGS__}) / sizeof(struct log_field))

#endif
