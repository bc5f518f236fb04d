#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>

static _Thread_local char error_text[512];

void quire__set_error_text(const char *format, ...)
{
    /* Formatted aside first: an argument may be the current text. */
    char text[sizeof(error_text)];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    snprintf(error_text, sizeof(error_text), "%s", text);
}

const char *quire_error_text(void)
{
    return error_text;
}

const char *quire_status_name(quire_status status)
{
    switch (status) {
    case QUIRE_OK: return "QUIRE_OK";
    case QUIRE_EINVAL: return "QUIRE_EINVAL";
    case QUIRE_ENOMEM: return "QUIRE_ENOMEM";
    case QUIRE_EFULL: return "QUIRE_EFULL";
    case QUIRE_ERANGE: return "QUIRE_ERANGE";
    case QUIRE_ESTALE: return "QUIRE_ESTALE";
    case QUIRE_EAGAIN: return "QUIRE_EAGAIN";
    case QUIRE_ESTATE: return "QUIRE_ESTATE";
    case QUIRE_EDEVICE: return "QUIRE_EDEVICE";
    case QUIRE_ETIMEOUT: return "QUIRE_ETIMEOUT";
    case QUIRE_EUNSUPPORTED: return "QUIRE_EUNSUPPORTED";
    case QUIRE_ECORRUPT: return "QUIRE_ECORRUPT";
    case QUIRE_EPEER: return "QUIRE_EPEER";
    }
    return "unknown quire_status";
}
