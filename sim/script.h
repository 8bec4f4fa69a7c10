// SPDX-License-Identifier: Apache-2.0
//
// Golden transcripts: a file of commands and of everything that they must cause, to be read by people.
//
//     # a comment                      kept as it is
//     > start                          a command
//     life 1 begins: a new shelf       what it causes, down to the next command
//
// Commands:
//     start                            the node's process begins
//     ios [WORD]                       carries out ios, oldest first, until none is left [or: only files of that kind]
//     io [WORD]                        only the oldest one [of that kind]
//     session NAME                     opens or resumes a session, which the following commands use
//     create NAME PAGES, grow REGION PAGES, drop REGION
//     write REGION OFFSET TEXT         a commit that read nothing
//     change REGION OFFSET TEXT        a commit that read what it changes
//     add REGION OFFSET NUMBER         a commutative operation
//     again                            the last commit once more, under the same sequence
//     outcome SEQUENCE
//     show REGION OFFSET SIZE          bytes of the image
//     tick MS, checkpoint, close
//     kill [N], power [N]              the end of the process, of the machine: nothing is done of the ios under way,
//                                      but of a write to the log its first N sectors
//     rot INDEX                        a bit of that record changes
//     newer                            all superblocks say that a later version of Shelf wrote them
//     full, space                      the disk has no space left, has space again

#ifndef SIM_SCRIPT_H
#define SIM_SCRIPT_H

#include <stdbool.h>

// Runs the file's commands and compares. `accept`: writes what happened into the file instead.
int script_run(const char *path, bool accept);

#endif
