// SPDX-License-Identifier: Apache-2.0
/* words.h: what people type: sizes, times, and words that are nearly right. */
#ifndef CMD_WORDS_H
#define CMD_WORDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WORD_MAX 32u /* longer words are near to nothing */

/* Is `word` closer to what was typed than anything before it? Then *best becomes its distance. Begin with one more than
 * the number of mistakes that are forgiven. */
bool word_is_close(const char *typed, const char *word, size_t *best);

/* "64M", "4096", "1G"; units are powers of 1024. False if it is none, or does not fit. */
bool size_parse(const char *text, uint64_t *ret_size);
/* "500ms", "30s", "5m", "1h", "30d"; the unit has to be there. */
bool time_parse(const char *text, uint64_t *ret_ms);

#endif
