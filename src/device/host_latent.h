/* host_latent.h: the scalar twins of the latent kernels (kernels/latent.cu), their oracle; see host_ops.h. Any head_dim,
 * f32, f16 and bf16 rows. Attention accumulates in double and takes decode selections only. */
#ifndef QUIRE_HOST_LATENT_H
#define QUIRE_HOST_LATENT_H

#include "kernels/launch.h"

void quire__host_latent_append(const quire__append_args *args);
void quire__host_latent_attend(const quire__attend_args *args);

#endif
