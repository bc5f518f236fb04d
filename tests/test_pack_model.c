/* test_pack_model.c: the KV that a real model makes of real text packs and unpacks bit for bit, and how small it gets,
 * per layer. Needs QUIRE_MODEL. */
#include "support/testing.h"

#include <stdio.h>
#include <string.h>

#include "backend_host.h"
#include "device/host_pack.h"
#include "forward.h"
#include "tokenizer.h"

enum { MOST_TOKENS = 1024, CHUNK = 128, BLOCK_TOKENS = 16 };

typedef struct rig {
    gguf_file *file;
    tokenizer *tokenizer;
    backend *backend;
    model *model;
    forward *forward;
    token_list text;
} rig;

/* The text that the demo is about, in tokens. */
static void read_text(rig *rig)
{
    infer_error error;
    char path[1024], *text = malloc(1 << 16);
    snprintf(path, sizeof path, "%s/examples/infer/texts/handbook.txt", QUIRE_SOURCE_DIR);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    size_t length = fread(text, 1, 1 << 16, file);
    fclose(file);
    if (tokenizer_encode(rig->tokenizer, text, length, false, &rig->text, &error)) fail_msg("%s", error.text);
    free(text);
}

static void rig_open(rig *rig, const char *path)
{
    infer_error error;
    if (gguf_open(&rig->file, path, &error) || tokenizer_open(&rig->tokenizer, rig->file, &error) ||
        backend_host_open(&rig->backend, 0, &error) || model_open(&rig->model, rig->file, rig->backend, 0, &error) ||
        forward_open(&rig->forward, rig->model, CHUNK, 1, &error))
        fail_msg("%s", error.text);
    read_text(rig);
}

static void rig_close(rig *rig)
{
    token_list_free(&rig->text);
    forward_close(rig->forward);
    model_close(rig->model);
    rig->backend->ops->close(rig->backend);
    tokenizer_close(rig->tokenizer);
    gguf_close(rig->file);
}

/* K of every layer, then V: units that were coded and their escapes. */
typedef struct tally {
    uint64_t units, raw_units, escapes;
} tally;

static void count_slots(const quire__pack_args *args, uint32_t layers, const quire__pack_shape *shape, tally *tallies)
{
    int32_t units_a_part = shape->units / (int32_t)(2 * layers);
    for (int32_t i = 0; i < args->count * shape->units; i++) {
        quire__pack_header header;
        int32_t part = i % shape->units / units_a_part;
        tally *t = &tallies[part % 2 * (int32_t)layers + part / 2];
        memcpy(&header, args->packed + (int64_t)i * args->slot_bytes, sizeof header);
        t->units++;
        t->raw_units += args->status[i] != QUIRE__PACK_DONE;
        t->escapes += header.escapes;
    }
}

static double ratio_of(const tally *t, const quire__pack_shape *shape)
{
    double coded = QUIRE__PACK_HEADER_BYTES + 1.5 * shape->unit_elements;
    double bytes = (double)(t->units - t->raw_units) * coded + 4.0 * (double)t->escapes +
                   (double)t->raw_units * 2.0 * shape->unit_elements;
    return bytes / ((double)t->units * 2.0 * shape->unit_elements);
}

static void report(const tally *tallies, uint32_t layers, const quire__pack_shape *shape)
{
    uint64_t units = 0, raw = 0;
    print_message("units of %d elements, slots of %d bytes (%.4f of raw)\n", shape->unit_elements, shape->slot_bytes,
                  shape->slot_bytes / (2.0 * shape->unit_elements));
    print_message("layer   K: used  escapes   raw   V: used  escapes   raw\n");
    for (uint32_t layer = 0; layer < layers; layer++) {
        const tally *k = &tallies[layer], *v = &tallies[layers + layer];
        print_message("%5u    %.4f  %6.3f%%  %4llu    %.4f  %6.3f%%  %4llu\n", layer, ratio_of(k, shape),
                      100.0 * (double)k->escapes / ((double)k->units * shape->unit_elements),
                      (unsigned long long)k->raw_units, ratio_of(v, shape),
                      100.0 * (double)v->escapes / ((double)v->units * shape->unit_elements),
                      (unsigned long long)v->raw_units);
        units += k->units + v->units;
        raw += k->raw_units + v->raw_units;
    }
    print_message("%llu units, %llu of them raw\n", (unsigned long long)units, (unsigned long long)raw);
    assert_true(raw * 100 < units); /* less than one in a hundred travels raw */
}

/* Packs the sequence's full blocks out of the arena, unpacks them elsewhere, compares. */
static void pack_blocks(const quire_view *view, int32_t blocks)
{
    int64_t page_bytes = view->layer_stride * view->layers;
    int64_t *offsets = malloc((size_t)blocks * sizeof *offsets);
    tally *tallies = calloc(2 * view->layers, sizeof *tallies);
    quire__parallel *parallel;
    quire__pack_shape shape;

    assert_int_equal(quire__parallel_open(&parallel, 1, NULL, NULL), QUIRE_OK);
    assert_int_equal(quire__pack_shape_make(&shape, page_bytes, view->kv_stride), QUIRE_OK);
    assert_int_equal(shape.units % (int32_t)(2 * view->layers), 0);
    quire__pack_args args = {.arena = view->arena,
                             .offsets = offsets,
                             .packed = malloc((size_t)(blocks * shape.packed_bytes)),
                             .status = malloc((size_t)(blocks * shape.units) * sizeof(int32_t)),
                             .page_bytes = page_bytes,
                             .unit_elements = shape.unit_elements,
                             .slot_bytes = shape.slot_bytes,
                             .count = blocks};
    for (int32_t i = 0; i < blocks; i++) offsets[i] = view->block_table[i] * view->block_stride;
    assert_int_equal(quire__host_pack_run(parallel, &args), QUIRE_OK);
    count_slots(&args, view->layers, &shape, tallies);

    unsigned char *back = malloc((size_t)(blocks * page_bytes));
    for (int32_t i = 0; i < blocks; i++) {
        memcpy(back + i * page_bytes, (unsigned char *)view->arena + offsets[i], (size_t)page_bytes);
        for (int32_t u = 0; u < shape.units; u++) /* what travels raw stays; all else must be written */
            if (args.status[i * shape.units + u] == QUIRE__PACK_DONE)
                memset(back + i * page_bytes + (int64_t)u * shape.unit_elements * 2, 0xee,
                       (size_t)shape.unit_elements * 2);
    }
    unsigned char *arena = args.arena;
    int64_t *places = malloc((size_t)blocks * sizeof *places);
    for (int32_t i = 0; i < blocks; i++) places[i] = i * page_bytes;
    args.arena = back;
    args.offsets = places;
    assert_int_equal(quire__host_unpack_run(parallel, &args), QUIRE_OK);
    for (int32_t i = 0; i < blocks; i++)
        assert_memory_equal(back + places[i], arena + offsets[i], (size_t)page_bytes);
    report(tallies, view->layers, &shape);
    free(places), free(back), free(args.packed), free(args.status), free(tallies), free(offsets);
    quire__parallel_close(parallel);
}

static void real_kv_packs_bit_for_bit_and_nearly_all_of_it(void **state)
{
    (void)state;
    const char *path = getenv("QUIRE_MODEL");
    if (!path || !*path) SKIP_BECAUSE("QUIRE_MODEL is not set");
    rig rig = { 0 };
    rig_open(&rig, path);
    const model_config *c = &rig.model->config;
    quire_group group = { .layers = c->layers, .kv_heads = c->kv_heads, .head_dim = c->head_dim,
                          .query_heads = c->heads, .dtype = QUIRE_DTYPE_BF16 };
    float *logits = malloc(backend_stride(c->vocabulary) * sizeof *logits);
    uint32_t count = rig.text.count < MOST_TOKENS ? (uint32_t)rig.text.count : MOST_TOKENS;
    quire_options options;
    quire_cache *cache;
    quire_seq seq;
    infer_error error;
    assert_int_equal(quire_options_init(&options, sizeof options), QUIRE_OK);
    options.groups = &group;
    options.group_count = 1;
    options.device = "host";
    options.block_tokens = BLOCK_TOKENS;
    options.device_bytes = 128u << 20;
    options.host_bytes = 0;
    options.parallel = backend_host_parallel;
    options.parallel_user = rig.backend;
    assert_int_equal(quire_cache_open(&cache, &options), QUIRE_OK);
    assert_int_equal(quire_seq_open(cache, NULL, &seq), QUIRE_OK);
    for (uint32_t done = 0; done < count;) {
        uint32_t n = count - done < CHUNK ? count - done : CHUNK;
        int32_t last = (int32_t)n - 1;
        quire_step *step;
        assert_int_equal(quire_step_begin(cache, NULL, &step), QUIRE_OK);
        assert_int_equal(quire_step_add(step, seq, rig.text.ids + done, n), QUIRE_OK);
        assert_int_equal(quire_step_submit(step), QUIRE_OK);
        const quire_view *view = quire_step_view(step, 0);
        if (forward_run(rig.forward, step, rig.text.ids + done, &last, 1, logits, &error)) fail_msg("%s", error.text);
        done += n;
        if (done == count) {
            print_message("%u tokens of text\n", count);
            pack_blocks(view, (int32_t)(count / BLOCK_TOKENS));
        }
        assert_int_equal(quire_step_commit(step), QUIRE_OK);
    }
    quire_cache_close(cache);
    free(logits);
    rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(real_kv_packs_bit_for_bit_and_nearly_all_of_it) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
