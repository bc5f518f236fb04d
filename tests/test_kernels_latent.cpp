/* test_kernels_latent.cpp: the latent kernels against their scalar twins; linked to the emulated kernels, and, with
 * QUIRE_TEST_GPU, to those that nvcc compiled. Appends must agree bit for bit, attention within a stated bound of an
 * oracle that computes in float64. */
#include <csetjmp>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
extern "C" {
#include "support/testing.h"

#include "device/host_latent.h"
}
#include "support/kernel_problem.h"

static void need_device()
{
    const char *why = device_missing();
    if (why)
        SKIP_BECAUSE("%s", why);
}

enum { LAYERS = 2, LAYER = 1, ROW = 576, VALUES = 512 };

/* Latent pages on the host, with a gap after each layer; 0xff until something is stored. */
struct LatentPages {
    LatentPages(quire_dtype dtype, int block_tokens, int blocks, int row = ROW, int values = VALUES)
    {
        const int64_t element = static_cast<int64_t>(quire__dtype_bytes(dtype));
        pages.dtype = dtype;
        pages.block_tokens = block_tokens;
        pages.kv_heads = 1;
        pages.head_dim = row;
        pages.value_dim = values;
        pages.token_stride = row * element;
        pages.head_stride = block_tokens * pages.token_stride;
        pages.layer_stride = pages.head_stride + 16;
        pages.block_stride = LAYERS * pages.layer_stride;
        bytes.assign(static_cast<size_t>(pages.block_stride * blocks), 0xff);
        pages.arena = bytes.data();
    }
    LatentPages(const LatentPages &) = delete;
    LatentPages &operator=(const LatentPages &) = delete;

    quire__pages pages = {};
    Bytes bytes;
};

static void latent_append_stores_the_bits_of_the_oracle(void **)
{
    need_device();
    Random random(test_seed("latent append", 91));
    int number = 0;
    for (quire_dtype cache : {QUIRE_DTYPE_F32, QUIRE_DTYPE_F16, QUIRE_DTYPE_BF16}) {
        for (quire_dtype input : {QUIRE_DTYPE_F32, QUIRE_DTYPE_F16, QUIRE_DTYPE_BF16}) {
            const int tokens = 9, gap = number++ % 2 * 3; /* 3: no 16-byte access is possible */
            const int row = number % 3 == 0 ? 40 : ROW, values = number % 3 == 0 ? 40 : VALUES;
            LatentPages host(cache, 4, 5, row, values);
            HostTensor latent(input, tokens, 1, values, 0, gap), rope(input, tokens, 1, row - values + 8, 0, gap);
            for (int token = 0; token < tokens; token++) {
                for (int i = 0; i < values; i++)
                    latent.store(token, 0, i, random.normal());
                for (int i = 0; i < row - values; i++)
                    rope.store(token, 0, i, i == 3 && cache == input ? NAN : random.normal());
            }
            std::vector<int64_t> slots = {17, 3, 0, -1, 8, 9, 19, 12, 5};
            DeviceArray<unsigned char> arena(host.bytes), latent_device(latent.bytes), rope_device(rope.bytes);
            DeviceArray<int64_t> slots_device(slots);
            quire__append_args args = {host.pages, LAYER, tokens, latent.tensor, rope.tensor, slots.data(), {}};
            quire__host_latent_append(&args);
            args.pages.arena = arena.data();
            args.k.data = latent_device.data();
            args.v.data = rope_device.data();
            args.slots = slots_device.data();
            assert_int_equal(quire__cuda_latent_append(&args, nullptr), QUIRE_OK);
            assert_true(arena.read() == host.bytes);
        }
    }
}

/* Rows of a few sequences in random blocks, q, and what the oracle says. */
class LatentProblem
{
  public:
    LatentProblem(quire_dtype dtype, quire_dtype q_dtype, int heads, int block_tokens, const std::vector<int> &contexts,
                  float size, Random &random)
        : tokens_(static_cast<int>(contexts.size())), heads_(heads), host_(dtype, block_tokens, blocks_of(contexts, block_tokens)),
          q_(q_dtype, tokens_, heads, ROW, 0, random.below(2) * 8), reference_(QUIRE_DTYPE_F32, tokens_, heads, VALUES, 0, 0)
    {
        const int widest = *std::max_element(contexts.begin(), contexts.end()) / block_tokens + 1;
        std::vector<int32_t> order;
        for (int i = 0; i < blocks_of(contexts, block_tokens); i++)
            order.push_back(i);
        random.shuffle(order);
        table_.assign(contexts.size() * static_cast<size_t>(widest), INT32_MAX / 2);
        size_t used = 0;
        for (int row = 0; row < tokens_; row++) {
            const int context = contexts[static_cast<size_t>(row)];
            for (int i = 0; i * block_tokens < context; i++)
                table_[static_cast<size_t>(row * widest + i)] = order[used++];
            rows_.push_back(row);
            positions_.push_back(context - 1);
            fill_row(row * widest, context, random);
        }
        for (int token = 0; token < tokens_; token++) {
            for (int i = 0; i < heads * ROW; i++)
                q_.store(token, i / ROW, i % ROW, random.normal() * size);
        }
        args_.pages = host_.pages;
        args_.layer = LAYER;
        args_.query_heads = heads;
        args_.scale = 1.0f / 24.0f / size;
        args_.q = q_.tensor;
        args_.out = reference_.tensor;
        args_.block_table = table_.data();
        args_.table_stride = widest;
        args_.token_rows = rows_.data();
        args_.positions = positions_.data();
        args_.count = tokens_;
        quire__host_latent_attend(&args_);
    }

    /* Out of the kernel, f32: for all tokens, or for one. */
    Bytes run(int only, int split_tokens, int longest, quire_status *status)
    {
        HostTensor out(QUIRE_DTYPE_F32, tokens_, heads_, VALUES, 0, 0, 0xee);
        DeviceArray<unsigned char> arena(host_.bytes), q(q_.bytes), out_device(out.bytes);
        DeviceArray<int32_t> table(table_), rows(rows_), positions(positions_),
            select(only < 0 ? std::vector<int32_t>() : std::vector<int32_t>{only});
        quire__attend_args args = args_;
        args.pages.arena = arena.data();
        args.q.data = q.data();
        args.out = out.tensor;
        args.out.data = out_device.data();
        args.block_table = table.data();
        args.token_rows = rows.data();
        args.positions = positions.data();
        args.select = only < 0 ? nullptr : select.data();
        args.count = only < 0 ? tokens_ : 1;
        args.longest_context = longest;
        args.split_tokens = split_tokens;
        args.work_floats = static_cast<int64_t>(args.count) * heads_ * ((longest + split_tokens - 1) / split_tokens) *
                           (VALUES + 2);
        DeviceArray<float> work(std::vector<float>(static_cast<size_t>(args.work_floats), NAN));
        args.work = work.data();
        *status = quire__cuda_latent_attend(&args, nullptr);
        return out_device.read();
    }

    const float *token(const Bytes &out, int token) const
    {
        return reinterpret_cast<const float *>(out.data()) + static_cast<size_t>(token * heads_) * VALUES;
    }
    size_t token_size() const
    {
        return static_cast<size_t>(heads_) * VALUES * sizeof(float);
    }
    int tokens() const
    {
        return tokens_;
    }
    int longest() const
    {
        return *std::max_element(positions_.begin(), positions_.end()) + 1;
    }
    int position(int token) const
    {
        return positions_[static_cast<size_t>(token)];
    }

    /* The largest |out - reference| / |reference| of any token and head, as lengths of vectors. */
    double error(const Bytes &out) const
    {
        const float *want = reinterpret_cast<const float *>(reference_.bytes.data());
        const float *got = reinterpret_cast<const float *>(out.data());
        double worst = 0;
        for (int head = 0; head < tokens_ * heads_; head++) {
            double difference = 0, length = 0;
            for (int i = head * VALUES; i < (head + 1) * VALUES; i++) {
                difference += (static_cast<double>(got[i]) - want[i]) * (static_cast<double>(got[i]) - want[i]);
                length += static_cast<double>(want[i]) * want[i];
            }
            const double error = length > 0 ? std::sqrt(difference / length) : difference == 0 ? 0 : INFINITY;
            worst = error > worst || error != error ? (error == error ? error : INFINITY) : worst;
        }
        return worst;
    }

    quire__attend_args args_ = {};

  private:
    static int blocks_of(const std::vector<int> &contexts, int block_tokens)
    {
        int blocks = 2;
        for (int context : contexts)
            blocks += (context + block_tokens - 1) / block_tokens;
        return blocks;
    }
    void fill_row(int first, int context, Random &random)
    {
        const quire__pages &pages = host_.pages;
        for (int token = 0; token < context; token++) {
            unsigned char *to = pages.arena +
                                table_[static_cast<size_t>(first + token / pages.block_tokens)] * pages.block_stride +
                                LAYER * pages.layer_stride + token % pages.block_tokens * pages.token_stride;
            for (int i = 0; i < ROW; i++)
                quire__dtype_store(pages.dtype, to + i * 2, random.normal());
        }
    }

    int tokens_, heads_;
    LatentPages host_;
    HostTensor q_, reference_;
    std::vector<int32_t> table_, rows_, positions_;
};

static void latent_attention_is_within_its_bound_of_float64(void **)
{
    need_device();
    Random random(test_seed("latent attend", 92));
    int number = 0;
    for (quire_dtype cache : {QUIRE_DTYPE_BF16, QUIRE_DTYPE_F16}) {
        const double bound = cache == QUIRE_DTYPE_BF16 ? 8e-3 : 1e-3;
        double worst = 0;
        for (int heads : {1, 16, 20, 32, 64, 100}) {
            if (test_is_small() && heads != 20 && heads != 100)
                continue;
            const int block_tokens = 1 << number % 7;
            const quire_dtype q = number % 3 == 0 ? QUIRE_DTYPE_F32 : number % 3 == 1 ? QUIRE_DTYPE_F16 : QUIRE_DTYPE_BF16;
            LatentProblem problem(cache, q, heads, block_tokens, {1 + random.below(60), 32, 130 + random.below(30)},
                                  number % 4 == 3 ? 300.0f : 1.0f, random);
            quire_status status;
            const Bytes out = problem.run(-1, number % 2 ? 64 : 128, problem.longest(), &status);
            assert_int_equal(status, QUIRE_OK);
            worst = std::max(worst, problem.error(out));
            number++;
        }
        print_message("latent attention, %s: relative error %.1e (bound %.1e)\n", quire_dtype_name(cache), worst, bound);
        assert_true(worst <= bound);
    }
}

static void latent_bits_do_not_depend_on_the_batch(void **)
{
    need_device();
    Random random(test_seed("latent batch", 93));
    for (int heads : {16, 40}) {
        LatentProblem problem(QUIRE_DTYPE_BF16, QUIRE_DTYPE_BF16, heads, 16, {70, 64, 0, 33}, 1, random);
        quire_status status;
        const Bytes together = problem.run(-1, 64, 64 * 5, &status);
        assert_int_equal(status, QUIRE_OK);
        for (int token = 0; token < problem.tokens(); token++) {
            const Bytes alone = problem.run(token, 64, std::max(problem.position(token) + 1, 1), &status);
            assert_int_equal(status, QUIRE_OK);
            assert_memory_equal(problem.token(alone, token), problem.token(together, token), problem.token_size());
        }
        const std::vector<float> zeros(problem.token_size() / sizeof(float), 0.0f);
        assert_memory_equal(problem.token(together, 2), zeros.data(), problem.token_size()); /* no context */
    }
}

static void latent_launchers_refuse_what_they_have_no_kernel_for(void **)
{
    need_device();
    Random random(1);
    const auto with = [&](void (*spoil)(quire__attend_args &)) {
        LatentProblem problem(QUIRE_DTYPE_BF16, QUIRE_DTYPE_BF16, 2, 16, {3}, 1, random);
        quire_status status;
        spoil(problem.args_);
        (void)problem.run(-1, 64, 3, &status);
        return status;
    };
    assert_int_equal(with([](quire__attend_args &) {}), QUIRE_OK);
    assert_int_equal(with([](quire__attend_args &a) { a.pages.head_dim = 512; }), QUIRE_EUNSUPPORTED);
    assert_int_equal(with([](quire__attend_args &a) { a.pages.value_dim = 256; }), QUIRE_EUNSUPPORTED);
    assert_int_equal(with([](quire__attend_args &a) { a.pages.dtype = QUIRE_DTYPE_F32; }), QUIRE_EUNSUPPORTED);
    assert_int_equal(with([](quire__attend_args &a) { a.pages.value_dim = 0; }), QUIRE_EINVAL);
    assert_int_equal(with([](quire__attend_args &a) { a.pages.block_tokens = 3; }), QUIRE_EINVAL);
}

int main()
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(latent_append_stores_the_bits_of_the_oracle),
        cmocka_unit_test(latent_attention_is_within_its_bound_of_float64),
        cmocka_unit_test(latent_bits_do_not_depend_on_the_batch),
        cmocka_unit_test(latent_launchers_refuse_what_they_have_no_kernel_for),
    };
    return cmocka_run_group_tests(tests, nullptr, nullptr);
}
