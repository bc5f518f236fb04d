/* compute.h: from a view to the arguments of a kernel; what the files with such calls share. */
#ifndef QUIRE_COMPUTE_H
#define QUIRE_COMPUTE_H

#include "device/device.h"

/* QUIRE_EINVAL, QUIRE_ESTATE: not a view of an open step, or no such layer. */
quire_status quire__compute_view(const quire_view *view, uint32_t layer, quire_cache **cache);
/* QUIRE_EINVAL: the text calls the tensor `name`. */
quire_status quire__compute_tensor(const quire_tensor *tensor, const char *name, uint32_t heads);
quire__pages quire__compute_pages(const quire_view *view, uint32_t layer);
/* Attention of `args->count` tokens by a decode kernel, in as many launches as the work space asks for. */
quire_status quire__compute_decode(const quire_cache *cache, quire__stream *stream, quire__kernel kernel,
                                   quire__attend_args args);

#endif
