/* forward.h: the forward pass of a model over one step of a Quire cache.
 *
 * This is where an engine meets Quire: between quire_step_submit and quire_step_commit, each layer calls quire_append
 * and quire_attend_with on the view of its group, and nothing else knows about blocks.
 *
 * Errors: see error.h.
 */
#ifndef INFER_FORWARD_H
#define INFER_FORWARD_H

#include "model.h"
#include "quire/quire.h"

typedef struct forward forward;

/* Work space for steps of up to `most_tokens` tokens and `most_logits` rows of logits. The model must outlive it. */
int forward_open(forward **out, const model *model, uint32_t most_tokens, uint32_t most_logits, infer_error *error);
void forward_close(forward *forward); /* NULL is allowed */

/* Computes the tokens of a submitted step, whose ids are given in its order, and stores their K and V. `logits` is host
 * memory, [count][backend_stride(vocabulary)]; row i is that of token wanted[i], an index into the step's tokens. */
int forward_run(forward *forward, quire_step *step, const int32_t *ids, const int32_t *wanted, uint32_t count,
                float *logits, infer_error *error);
/* The same for a step for a graph (quire_step_graph), with ids for its empty rows too: captured by backends that can, and
 * replayed in later steps of the same shape. */
int forward_repeat(forward *forward, quire_step *step, const int32_t *ids, const int32_t *wanted, uint32_t count,
                   float *logits, infer_error *error);

#endif
