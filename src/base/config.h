/* config.h: the one table of QUIRE_* variables. Caller over environment over default. docs/variables.md is generated
 * from it, and a test holds the two together. */
#ifndef QUIRE_CONFIG_H
#define QUIRE_CONFIG_H

#include "quire/quire.h"

typedef enum quire__variable_type {
    QUIRE__VARIABLE_COUNT, /* integer */
    QUIRE__VARIABLE_POWER, /* integer, a power of two */
    QUIRE__VARIABLE_BYTES, /* integer with an optional K, M, G or T (powers of 1024) */
    QUIRE__VARIABLE_CHOICE,
    QUIRE__VARIABLE_TEXT,
    QUIRE__VARIABLE_SWITCH /* 0 or 1 */
} quire__variable_type;

typedef struct quire__variable {
    const char *name;
    quire__variable_type type;
    const char *standard;    /* default, as one would write it */
    uint64_t least, most;    /* COUNT and BYTES */
    const char *const *choices; /* CHOICE: NULL-terminated */
    const char *unit;        /* "tokens", "bytes", "" */
    const char *help;        /* one sentence */
    const char *reader;      /* "library", "examples", "scripts", "tests": who reads it */
} quire__variable;

extern const quire__variable quire__variables[];
extern const size_t quire__variable_count;

/* What a variable takes, for errors and for the documentation: "1..256 tokens, a power of two", "off, restore". */
void quire__variable_range(const quire__variable *variable, char *text, size_t capacity);
/* The entry of a name, or NULL. */
const quire__variable *quire__variable_find(const char *name);
/* The known name that is most like an unknown one, or NULL when none is near. */
const char *quire__variable_nearest(const char *name);

/* Default and environment into *options (all but `groups`). A variable that is set but empty counts as not set.
 * `device` points into the environment or to a constant: a cache copies it at open. */
quire_status quire__config_read(quire_options *options);
/* The range check of every field but the groups, which cache/layout judges. Names the field and the range. */
quire_status quire__config_validate(const quire_options *options);
/* One line per library variable, "QUIRE_BLOCK_TOKENS=16 (environment|default|caller)", through the log at INFO; and once a
 * process a WARN line for each QUIRE_* name in the environment that is in no table, with the nearest known name. */
void quire__config_log(const quire_options *options);

#endif
