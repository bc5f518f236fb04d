#include "json_write.h"
#include "utf8.h"

#include <math.h>
#include <string.h>

static void write_text(FILE *file, const char *text, size_t length)
{
    size_t good = length, bad;
    fputc('"', file);
    if (!utf8_check(text, length, &bad)) good = bad;
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)text[i];
        if (i == good) {
            fputs("\\ufffd", file);
            good = utf8_check(text + i + 1, length - i - 1, &bad) ? length : i + 1 + bad;
        } else if (c == '"' || c == '\\') fprintf(file, "\\%c", c);
        else if (c == '\n') fputs("\\n", file);
        else if (c < 0x20 || c == 0x7f) fprintf(file, "\\u%04x", c);
        else fputc(c, file);
    }
    fputc('"', file);
}

static void begin_value(json_writer *json, const char *key)
{
    if (json->comma) fputc(',', json->file);
    json->comma = true;
    if (!key) return;
    write_text(json->file, key, strlen(key));
    fputc(':', json->file);
}

void json_begin(json_writer *json, const char *key, char bracket)
{
    begin_value(json, key);
    fputc(bracket, json->file);
    json->comma = false;
}

void json_end(json_writer *json, char bracket)
{
    fputc(bracket, json->file);
    json->comma = true;
}

void json_text(json_writer *json, const char *key, const char *text, size_t length)
{
    begin_value(json, key);
    write_text(json->file, text, length);
}

void json_string(json_writer *json, const char *key, const char *text)
{
    json_text(json, key, text, strlen(text));
}

void json_real(json_writer *json, const char *key, double value)
{
    begin_value(json, key);
    if (isfinite(value)) fprintf(json->file, "%.9g", value);
    else fputs("null", json->file);
}

void json_count(json_writer *json, const char *key, unsigned long long value)
{
    begin_value(json, key);
    fprintf(json->file, "%llu", value);
}

void json_bool(json_writer *json, const char *key, bool value)
{
    begin_value(json, key);
    fputs(value ? "true" : "false", json->file);
}
