// SPDX-License-Identifier: Apache-2.0
/* findings.h: what `shelf verify` found. */
#ifndef CMD_FINDINGS_H
#define CMD_FINDINGS_H

#include <stddef.h>
#include <stdint.h>

#define FINDINGS_MAX     1000u /* that are kept; the others are counted */
#define FINDING_NOWHERE  UINT64_MAX
#define FINDING_WHAT_MAX 200u

enum severity {
    SEVERITY_HARMLESS, /* expected after a crash, or repaired by the next open */
    SEVERITY_DAMAGE,   /* bytes that were promised are wrong */
};

struct finding {
    enum severity severity;
    char file[64];   /* "" if it is not about a file */
    uint64_t offset; /* in the file, or FINDING_NOWHERE */
    uint64_t index;  /* of the record that it is about; 0: of none */
    char what[FINDING_WHAT_MAX];
    const char *todo; /* static */
};

struct findings {
    struct finding *items; /* owned; count of them, at most FINDINGS_MAX */
    size_t count;
    size_t harmless, damage; /* all, also those that were not kept */
};

void finding_add(struct findings *findings, enum severity severity, const char *file, uint64_t offset,
                 uint64_t index, const char *todo, const char *format, ...)
    __attribute__((format(printf, 7, 8)));
void findings_free(struct findings *findings);

#endif
