/* demo_texts.h: the texts that ship with the example and that quire-demo's workloads are made of.
 *
 * Errors: see error.h.
 */
#ifndef INFER_DEMO_TEXTS_H
#define INFER_DEMO_TEXTS_H

#include "error.h"

#include <stddef.h>

enum { DEMO_QUESTIONS = 32, DEMO_LETTERS = 8, DEMO_PIECES = 32, DEMO_PIECE_CHARACTERS = 800 };

/* Zero-initialise. */
typedef struct demo_texts {
    char *handbook, *letters;
    char *questions_file, *letter_questions_file; /* what the arrays below point into */
    char *question[DEMO_QUESTIONS], *letter[DEMO_LETTERS], *letter_question[DEMO_QUESTIONS];
    size_t questions, letter_count, letter_questions; /* two questions a letter, in the letters' order */
    char *piece[DEMO_PIECES]; /* handbook and letters in pieces of a few paragraphs */
    size_t pieces;
} demo_texts;

int demo_texts_read(demo_texts *texts, const char *folder, infer_error *error);
void demo_texts_free(demo_texts *texts);

#endif
