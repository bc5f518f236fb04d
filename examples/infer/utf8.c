#include "utf8.h"

size_t utf8_decode(const char *text, size_t length, uint32_t *point)
{
    /* By length: the least code point that needs it. Anything below is an overlong form. */
    static const uint32_t least[5] = { 0, 0, 0x80, 0x800, 0x10000 };
    const unsigned char *bytes = (const unsigned char *)text;
    if (!length) return 0;
    unsigned char lead = bytes[0];
    if (lead < 0x80) {
        *point = lead;
        return 1;
    }
    size_t size = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
    if (lead < 0xc2 || lead > 0xf4 || size > length) return 0;
    uint32_t value = lead & (0x7fu >> size);
    for (size_t i = 1; i < size; i++) {
        if ((bytes[i] & 0xc0) != 0x80) return 0;
        value = value << 6 | (bytes[i] & 0x3fu);
    }
    if (value < least[size] || value > 0x10ffff || (value >= 0xd800 && value <= 0xdfff)) return 0;
    *point = value;
    return size;
}

bool utf8_check(const char *text, size_t length, size_t *bad_offset)
{
    for (size_t at = 0; at < length;) {
        uint32_t point;
        size_t size = utf8_decode(text + at, length - at, &point);
        if (!size) {
            if (bad_offset) *bad_offset = at;
            return false;
        }
        at += size;
    }
    return true;
}
