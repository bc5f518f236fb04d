/* utf8.h - strict UTF-8: shortest forms only, no surrogates, at most U+10FFFF. Stateless. */
#ifndef INFER_UTF8_H
#define INFER_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The bytes of the character that `text` begins with, and its code point; 0 when it is ill-formed or when
 * `length` is 0. */
size_t utf8_decode(const char *text, size_t length, uint32_t *point);

/* True when all of the text is well-formed. Otherwise false, and *bad_offset (may be NULL) is the first byte
 * of the first ill-formed sequence. */
bool utf8_check(const char *text, size_t length, size_t *bad_offset);

#endif
