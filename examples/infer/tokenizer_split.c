#include "tokenizer_split.h"
#include "unicode_tables.h"
#include "utf8.h"

#include <stdint.h>
#include <string.h>

typedef enum glyph_class { GLYPH_END, GLYPH_LETTER, GLYPH_NUMBER, GLYPH_SPACE, GLYPH_SYMBOL } glyph_class;

typedef struct glyph {
    glyph_class class;
    uint32_t point;
    size_t size;                  /* bytes; 0 at the end of the text */
} glyph;

typedef struct reader {
    const char *text;
    size_t length;
    bool numbers_end;             /* SPLIT_SMOLLM: a number ends the text of the rule that scans up to it */
} reader;

static bool in_ranges(const unicode_range *ranges, size_t count, uint32_t point)
{
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (point > ranges[middle].last) low = middle + 1;
        else high = middle;
    }
    return low < count && point >= ranges[low].first;
}

#define IN(table, point) in_ranges(table, sizeof(table) / sizeof *(table), point)

static glyph_class classify(uint32_t point)
{
    if (point < 0x80) {
        if ((point | 0x20) - 'a' < 26) return GLYPH_LETTER;
        if (point - '0' < 10) return GLYPH_NUMBER;
        return point == ' ' || point - '\t' < 5 ? GLYPH_SPACE : GLYPH_SYMBOL;
    }
    if (IN(unicode_letters, point)) return GLYPH_LETTER;
    if (IN(unicode_numbers, point)) return GLYPH_NUMBER;
    if (IN(unicode_spaces, point)) return GLYPH_SPACE;
    return GLYPH_SYMBOL;
}

static glyph peek(const reader *r, size_t at)
{
    glyph g = { GLYPH_END, 0, 0 };
    if (at >= r->length) return g;
    g.size = utf8_decode(r->text + at, r->length - at, &g.point);
    if (!g.size) return (glyph){ GLYPH_SYMBOL, UINT32_MAX, 1 };
    g.class = classify(g.point);
    if (g.class == GLYPH_NUMBER && r->numbers_end) return (glyph){ GLYPH_END, 0, 0 };
    return g;
}

/* The end of the run of this class from `at`, at most `limit` characters long. */
static size_t skip_run(const reader *r, size_t at, glyph_class class, size_t limit)
{
    for (; limit; limit--) {
        glyph g = peek(r, at);
        if (g.class != class) break;
        at += g.size;
    }
    return at;
}

/* 's 't 'm 'd 're 've 'll: the bytes that it takes, or 0. */
static size_t contraction(const reader *r, size_t at, bool any_case)
{
    if (r->text[at] != '\'' || r->length - at < 2) return 0;
    char fold = any_case ? 0x20 : 0;
    char first = (char)(r->text[at + 1] | fold);
    if (first == 's' || first == 't' || first == 'm' || first == 'd') return 2;
    if (r->length - at < 3) return 0;
    char second = (char)(r->text[at + 2] | fold);
    bool found = (first == 'r' && second == 'e') || (first == 'v' && second == 'e') ||
                 (first == 'l' && second == 'l');
    return found ? 3 : 0;
}

/* \s+(?!\S)|\s+ : a run of spaces leaves its last one to what follows, unless it is alone or nothing does. */
static size_t space_piece(const reader *r, size_t at)
{
    size_t last = at, end = at;
    for (glyph g = peek(r, at); g.class == GLYPH_SPACE; g = peek(r, end)) {
        last = end;
        end += g.size;
    }
    return last > at && peek(r, end).class != GLYPH_END ? last : end;
}

static size_t gpt2_piece(const reader *r, size_t at)
{
    size_t taken = contraction(r, at, false);
    if (taken) return at + taken;
    glyph first = peek(r, at);
    size_t start = first.point == ' ' ? at + 1 : at;
    glyph_class class = peek(r, start).class;
    if (class != GLYPH_END && class != GLYPH_SPACE) return skip_run(r, start, class, SIZE_MAX);
    return space_piece(r, at);
}

static bool is_newline(glyph g)
{
    return g.point == '\r' || g.point == '\n';
}

/* \s*[\r\n]+ : the end of the last newline in the run of spaces at `at`; `at` when it has none. */
static size_t newline_piece(const reader *r, size_t at)
{
    size_t end = at;
    for (glyph g = peek(r, at); g.class == GLYPH_SPACE; g = peek(r, at)) {
        at += g.size;
        if (is_newline(g)) end = at;
    }
    return end;
}

static size_t llama3_piece(const reader *r, size_t at, size_t digits)
{
    size_t taken = contraction(r, at, true);
    if (taken) return at + taken;
    glyph first = peek(r, at);
    if (first.class == GLYPH_LETTER) return skip_run(r, at, GLYPH_LETTER, SIZE_MAX);
    if (first.class == GLYPH_NUMBER) return skip_run(r, at, GLYPH_NUMBER, digits);
    if (!is_newline(first) && peek(r, at + first.size).class == GLYPH_LETTER)
        return skip_run(r, at + first.size, GLYPH_LETTER, SIZE_MAX);
    size_t start = first.point == ' ' ? at + 1 : at;
    size_t end = skip_run(r, start, GLYPH_SYMBOL, SIZE_MAX);
    if (end > start) {
        while (is_newline(peek(r, end))) end++;
        return end;
    }
    end = newline_piece(r, at);
    return end > at ? end : space_piece(r, at);
}

bool split_find(const char *name, size_t length, split_rule *rule)
{
    static const struct {
        const char *name;
        split_rule rule;
    } names[] = {
        { "gpt-2", SPLIT_GPT2 },        { "smollm", SPLIT_SMOLLM },   { "llama-bpe", SPLIT_LLAMA3 },
        { "llama3", SPLIT_LLAMA3 },     { "qwen2", SPLIT_QWEN2 },     { "starcoder", SPLIT_SMOLLM },
        { "command-r", SPLIT_SMOLLM },
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strlen(names[i].name) != length || memcmp(names[i].name, name, length)) continue;
        *rule = names[i].rule;
        return true;
    }
    return false;
}

size_t split_next(split_rule rule, const char *text, size_t length, size_t at)
{
    reader r = { text, length, false };
    switch (rule) {
    case SPLIT_GPT2:
        break;
    case SPLIT_SMOLLM: {
        glyph first = peek(&r, at);
        if (first.class == GLYPH_NUMBER) return at + first.size;
        r.numbers_end = true;
        break;
    }
    case SPLIT_LLAMA3:
        return llama3_piece(&r, at, 3);
    case SPLIT_QWEN2:
        return llama3_piece(&r, at, 1);
    }
    return gpt2_piece(&r, at);
}
