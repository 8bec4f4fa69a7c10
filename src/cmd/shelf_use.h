// SPDX-License-Identifier: Apache-2.0
/* shelf_use.h: opening a shelf, finding a region, and the messages when that fails. */
#ifndef CMD_SHELF_USE_H
#define CMD_SHELF_USE_H

#include "cmd/command.h"

/* "dir:PATH" and PATH are the same to the command. */
const char *path_plain(const char *path);

/* "unix:PATH", or a path where a socket is. */
bool path_is_socket(const char *path);

/* Attaches to the node of the directory or socket, or becomes the node if the directory has none. */
shelf_result shelf_use_open(const char *path, uint32_t flags, shelf **ret_shelf);
/* Attaches only. NOT_FOUND: there is no node. */
shelf_result shelf_use_attach(const char *path, shelf **ret_shelf);
shelf_result shelf_use_close(shelf *s);
/* Closes; returns `code`, or if that is 0, what the close had to say. */
int close_finish(const struct call *call, shelf *s, int code);
/* Does this process keep the data, now? */
bool shelf_use_is_node(shelf *s);
/* Says why the open failed, and what would help. Returns the exit code. */
int shelf_use_refuse(const struct call *call, const char *path, shelf_result result);
/* Says that there is no such region, or what else went wrong. */
int region_refuse(const struct call *call, const char *path, const char *name, shelf_result result);

/* Drops what could not be finished; says so if that is not possible either. */
void region_undo(const struct call *call, shelf *s, const char *name);

/* "REGION/MAP" in two. False: it is none, or a part is empty or too long. */
bool place_split(const char *text, char ret_region[SHELF_NAME_MAX + 1], char ret_map[SHELF_NAME_MAX + 1]);

#endif
