/* naive_write_back.h: between naive_book.c and naive_write_back.c. */
#ifndef QUIRE_TESTS_NAIVE_WRITE_BACK_H
#define QUIRE_TESTS_NAIVE_WRITE_BACK_H

#include "support/naive_book.h"

/* ---- of naive_book.c */
bool naive_in_flight(const naive_book *book, int block, int tier);
uint32_t naive_free_slots(const naive_book *book, int tier);
/* Plans the offload of the last of a path whose other blocks the host has. False: it cannot be. */
bool naive_offload(naive_book *book, const int *path, int count);

/* ---- of naive_write_back.c */
/* In place of the first of the order, if the host lacks that, the first that the last look secured. Those that were used
 * since are passed over for good; at most PASSED are passed over that cannot go yet. */
int naive_secured_victim(naive_book *book, int first);

#endif
