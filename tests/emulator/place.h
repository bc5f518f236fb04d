/*
 * place.h - where in the kernel's source an operation was called, for messages: "__syncthreads at append.cu:57".
 *
 * An operation takes `Place where = here("its name")` as its last parameter; the compiler evaluates the default at the
 * call, so the file and line are the caller's.
 */
#pragma once

namespace emu {

struct Place {
    const char *operation;
    const char *file;
    int line;
};

constexpr Place here(const char *operation, const char *file = __builtin_FILE(), int line = __builtin_LINE()) {
    return Place{operation, file, line};
}

bool same_operation(const Place &a, const Place &b);
bool same_place(const Place &a, const Place &b);

}  // namespace emu
