/* perplexity.h: how well the model predicts a text with the cache's format of K and V.
 *
 * Errors: see error.h.
 */
#ifndef INFER_PERPLEXITY_H
#define INFER_PERPLEXITY_H

#include "session.h"

typedef struct perplexity_result {
    size_t tokens;     /* of the text */
    size_t scored;     /* all but the first of each window */
    uint32_t window;   /* tokens */
    double perplexity; /* e to the mean of -log p over the scored tokens */
} perplexity_result;

/* Cuts the text into windows of `window` tokens (0: 1024, or as long as a sequence may be) and computes each as a
 * sequence of its own, in a domain of its own, so that every K and V is written by this model and read back from the
 * cache. A window's last piece is shorter; one of a single token is left out. */
int perplexity_measure(const session *session, const char *text, uint32_t window, perplexity_result *result,
                       infer_error *error);
/* The same of a file. */
int perplexity_of_file(const session *session, const char *path, uint32_t window, perplexity_result *result,
                       infer_error *error);

#endif
