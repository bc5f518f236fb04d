/* The geometry of a block: what a group may be, and where its bytes are. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "cache/layout.h"

static quire_options defaults(const quire_group *group)
{
    quire_options options;

    assert_int_equal(quire_options_init(&options, sizeof options), QUIRE_OK);
    options.groups = group;
    options.group_count = group != NULL ? 1 : 0;
    options.block_tokens = 16;
    options.dtype = QUIRE_DTYPE_BF16;
    return options;
}

static void refused(const quire_options *options, quire_status status, const char *named)
{
    quire__layout layout;

    assert_int_equal(quire__layout_make(&layout, options, options->group_count > 1), status);
    if (strstr(quire_error_text(), named) == NULL)
        fail_msg("the text does not name %s: %s", named, quire_error_text());
}

static void a_group_out_of_range_is_refused_by_its_field(void **state)
{
    static const float bad_scales[] = {1, 1, 0, 1};
    static const struct {
        quire_group group;
        const char *said;
    } cases[] = {
        {{.layers = 0, .kv_heads = 1, .head_dim = 64}, "group.layers"},
        {{.layers = 1025, .kv_heads = 1, .head_dim = 64}, "group.layers"},
        {{.layers = 1, .kv_heads = 0, .head_dim = 64}, "group.kv_heads"},
        {{.layers = 1, .kv_heads = 1, .head_dim = 60}, "group.head_dim"},
        {{.layers = 1, .kv_heads = 1, .head_dim = 520}, "group.head_dim"},
        {{.layers = 1, .kv_heads = 2, .head_dim = 64, .query_heads = 3}, "group.query_heads"},
        {{.layers = 1, .kv_heads = 2, .head_dim = 64, .dtype = (quire_dtype)9}, "group.dtype"},
        {{.layers = 1, .kv_heads = 2, .head_dim = 64, .scales = bad_scales}, "group.scales"},
        {{.layers = 1, .kv_heads = 2, .head_dim = 64, .dtype = QUIRE_DTYPE_FP8_E4M3, .scales = bad_scales},
         "group.scales[2]"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        quire_options options = defaults(&cases[i].group);
        refused(&options, QUIRE_EINVAL, cases[i].said);
    }
}

#define FIRST {.layers = 1, .kv_heads = 1, .head_dim = 8}

static void groups_beside_the_first_are_checked_as_it_is_and_for_their_lifetimes(void **state)
{

    static const struct {
        quire_group groups[2];
        uint32_t count;
        quire_status status;
        const char *said;
    } cases[] = {
        {{{.layers = 1, .kv_heads = 1, .head_dim = 8, .window = 4}}, 1, QUIRE_EINVAL, "first group keeps all"},
        {{{.layers = 1, .state_bytes = 16}}, 1, QUIRE_EINVAL, "first group keeps all"},
        {{FIRST, {.layers = 1, .kv_heads = 1, .head_dim = 60}}, 2, QUIRE_EINVAL, "group.head_dim"},
        {{FIRST, {.layers = 1, .state_bytes = 24}}, 2, QUIRE_EINVAL, "state_bytes"},
        {{FIRST, {.layers = 1, .state_bytes = 32, .kv_heads = 1}}, 2, QUIRE_EINVAL, "neither heads"},
        {{FIRST, {.layers = 1, .kv_heads = 1, .head_dim = 16, .value_dim = 8, .window = 4}}, 2, QUIRE_EUNSUPPORTED, "latent"},
        {{FIRST, FIRST}, QUIRE_GROUPS + 1, QUIRE_EUNSUPPORTED, "group_count"},
    };
    quire_options options = defaults(NULL);

    (void)state;
    refused(&options, QUIRE_EINVAL, "groups");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        options.groups = cases[i].groups;
        options.group_count = cases[i].count;
        refused(&options, cases[i].status, cases[i].said);
    }
}

static void llama_3_8b_is_two_mebibytes_a_block(void **state)
{
    static const quire_group group = {.layers = 32, .kv_heads = 8, .head_dim = 128, .query_heads = 32};
    quire_options options = defaults(&group);
    quire__layout layout;

    (void)state;
    assert_int_equal(quire__layout_make(&layout, &options, 0), QUIRE_OK);
    assert_int_equal(layout.block_bytes, 2 << 20);
    assert_int_equal(layout.token_stride, 256);
    assert_int_equal(layout.head_stride, 16 * 256);
    assert_int_equal(layout.kv_stride, 8 * 16 * 256);
    assert_int_equal(layout.layer_stride, 2 * 8 * 16 * 256);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_group_out_of_range_is_refused_by_its_field),
        cmocka_unit_test(groups_beside_the_first_are_checked_as_it_is_and_for_their_lifetimes),
        cmocka_unit_test(llama_3_8b_is_two_mebibytes_a_block),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
