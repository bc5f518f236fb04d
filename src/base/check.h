/* check.h: assertions of the library's own invariants: bugs, never bad input. On in debug builds (QUIRE_DEBUG). */
#ifndef QUIRE_CHECK_H
#define QUIRE_CHECK_H

#ifdef QUIRE_DEBUG
void quire__assert_failed(const char *expression, const char *file, int line) __attribute__((noreturn));
#define QUIRE__ASSERT(expression) ((expression) ? (void)0 : quire__assert_failed(#expression, __FILE__, __LINE__))
#else
#define QUIRE__ASSERT(expression) ((void)sizeof(expression))
#endif

#endif
