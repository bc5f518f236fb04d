/* test_kernels_shared.cpp: attention over shared prefixes equals plain attention: the oracle is the decode twin over the
 * same tokens, in float64. Linked to the emulated kernels, and, with QUIRE_TEST_GPU, to those that nvcc compiled. */
#include <csetjmp>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
extern "C" {
#include "support/testing.h"
}
#include "support/kernel_problem.h"

static void need_device()
{
    const char *why = device_missing();
    if (why)
        SKIP_BECAUSE("%s", why);
}

struct Group {
    int members, prefix; /* tokens, a multiple of the block */
};

/* Groups of sequences, a decode token each, in a random order within the step, and what the oracle says. */
class SharedProblem
{
  public:
    SharedProblem(const PageShape &shape, int group_size, quire_dtype q_dtype, const std::vector<Group> &groups,
                  int most_tail, float size, Random &random)
        : shape_(with_room(shape, groups, most_tail)), tokens_(count_members(groups)), heads_(shape.kv_heads * group_size),
          host_(shape_, random), q_(q_dtype, tokens_, heads_, shape.head_dim, 0, 0),
          reference_(QUIRE_DTYPE_F32, tokens_, heads_, shape.head_dim, 0, 0)
    {
        fill_pages(random);
        for (int i = 0; i < tokens_; i++)
            select_.push_back(i);
        random.shuffle(select_);
        lay_out(groups, most_tail, random);
        for (int token = 0; token < tokens_; token++) {
            for (int i = 0; i < heads_ * shape.head_dim; i++)
                q_.store(token, i / shape.head_dim, i % shape.head_dim, random.normal() * size);
        }
        args_.attend.pages = host_.pages;
        args_.attend.layer = 1;
        args_.attend.query_heads = heads_;
        args_.attend.scale = 1.0f / std::sqrt(static_cast<float>(shape.head_dim)) / size;
        args_.attend.q = q_.tensor;
        args_.attend.out = reference_.tensor;
        args_.attend.block_table = table_.data();
        args_.attend.table_stride = table_stride_;
        args_.attend.token_rows = token_rows_.data();
        args_.attend.positions = positions_.data();
        args_.attend.select = select_.data();
        args_.attend.count = tokens_;
        args_.group_count = static_cast<int32_t>(groups.size());
        quire__host_attend_decode(&args_.attend);
    }

    quire_status run(int prefix_split, int tail_split)
    {
        HostTensor out(QUIRE_DTYPE_F32, tokens_, heads_, shape_.head_dim, 0, 0, 0xee);
        DeviceArray<unsigned char> arena(host_.bytes), q(q_.bytes), out_device(out.bytes);
        DeviceArray<int32_t> table(table_), rows(token_rows_), positions(positions_), select(select_), prefixes(prefixes_);
        DeviceArray<quire__shared_group> groups(groups_);
        quire__shared_args args = args_;
        args.attend.pages.arena = arena.data();
        args.attend.q.data = q.data();
        args.attend.out = out.tensor;
        args.attend.out.data = out_device.data();
        args.attend.block_table = table.data();
        args.attend.token_rows = rows.data();
        args.attend.positions = positions.data();
        args.attend.select = select.data();
        args.groups = groups.data();
        args.prefix_tokens = prefixes.data();
        args.prefix_split = prefix_split;
        args.attend.split_tokens = tail_split;
        args.attend.work_floats = static_cast<int64_t>(tokens_) * heads_ *
                                  ((args.longest_prefix + prefix_split - 1) / prefix_split +
                                   4 * ((args.longest_tail + tail_split - 1) / tail_split)) *
                                  (shape_.head_dim + 2);
        DeviceArray<float> work(std::vector<float>(static_cast<size_t>(args.attend.work_floats), NAN));
        args.attend.work = work.data();
        const quire_status status = quire__cuda_attend_shared(&args, nullptr);
        out_ = out_device.read();
        return status;
    }

    /* The largest |out - reference| / |reference| of any token and head, as lengths of vectors. */
    double error() const
    {
        const float *want = reinterpret_cast<const float *>(reference_.bytes.data());
        const float *got = reinterpret_cast<const float *>(out_.data());
        double worst = 0;
        for (int head = 0; head < tokens_ * heads_; head++) {
            double difference = 0, length = 0;
            for (int i = head * shape_.head_dim; i < (head + 1) * shape_.head_dim; i++) {
                difference += (static_cast<double>(got[i]) - want[i]) * (static_cast<double>(got[i]) - want[i]);
                length += static_cast<double>(want[i]) * want[i];
            }
            const double error = std::sqrt(difference / length);
            worst = error == error ? std::max(worst, error) : INFINITY;
        }
        return worst;
    }

    quire__shared_args args_ = {};

  private:
    static int count_members(const std::vector<Group> &groups)
    {
        int count = 0;
        for (const Group &group : groups)
            count += group.members;
        return count;
    }
    static PageShape with_room(const PageShape &shape, const std::vector<Group> &groups, int most_tail)
    {
        PageShape pages = shape;
        pages.blocks = 3;
        for (const Group &group : groups)
            pages.blocks += group.prefix / shape.block_tokens + group.members * (most_tail / shape.block_tokens + 1);
        return pages;
    }
    /* Every token of every block. */
    void fill_pages(Random &random)
    {
        const quire__pages &pages = host_.pages;
        for (int block = 0; block < shape_.blocks; block++) {
            for (int part = 0; part < 2 * pages.kv_heads; part++) {
                unsigned char *to = pages.arena + block * pages.block_stride + pages.layer_stride +
                                    part / pages.kv_heads * pages.kv_stride + part % pages.kv_heads * pages.head_stride;
                for (int i = 0; i < pages.block_tokens * pages.head_dim; i++)
                    quire__dtype_store(pages.dtype, to + i * 2, random.normal());
            }
        }
    }
    void lay_out(const std::vector<Group> &groups, int most_tail, Random &random)
    {
        std::vector<int32_t> order;
        size_t used = 0, member = 0;
        for (int i = 0; i < shape_.blocks; i++)
            order.push_back(i);
        random.shuffle(order);
        for (const Group &group : groups)
            table_stride_ = std::max(table_stride_, (group.prefix + most_tail) / shape_.block_tokens + 2);
        table_.assign(static_cast<size_t>(tokens_ * table_stride_), INT32_MAX / 2);
        token_rows_.assign(static_cast<size_t>(tokens_), 0);
        positions_.assign(static_cast<size_t>(tokens_), 0);
        for (const Group &group : groups) {
            const size_t shared = used;
            used += static_cast<size_t>(group.prefix / shape_.block_tokens);
            groups_.push_back({static_cast<int32_t>(member), group.members});
            for (int i = 0; i < group.members; i++, member++) {
                const size_t token = static_cast<size_t>(select_[member]);
                const int tail = 1 + random.below(most_tail), row = tokens_ - 1 - static_cast<int>(token);
                int32_t *blocks = table_.data() + row * table_stride_;
                for (int b = 0; b < group.prefix / shape_.block_tokens; b++)
                    *blocks++ = order[shared + static_cast<size_t>(b)];
                for (int b = 0; b * shape_.block_tokens < tail; b++)
                    *blocks++ = order[used++];
                token_rows_[token] = row;
                positions_[token] = group.prefix + tail - 1;
                prefixes_.push_back(group.prefix);
                args_.longest_tail = std::max(args_.longest_tail, tail);
            }
            args_.longest_prefix = std::max(args_.longest_prefix, group.prefix);
            args_.most_members = std::max(args_.most_members, group.members);
        }
    }

    PageShape shape_;
    int tokens_, heads_, table_stride_ = 1;
    HostPages host_;
    HostTensor q_, reference_;
    Bytes out_;
    std::vector<int32_t> table_, token_rows_, positions_, select_, prefixes_;
    std::vector<quire__shared_group> groups_;
};

static void sharing_a_prefix_gives_what_attending_alone_gives(void **)
{
    need_device();
    Random random(test_seed("shared prefix", 95));
    const quire_dtype tensors[] = {QUIRE_DTYPE_F32, QUIRE_DTYPE_F16, QUIRE_DTYPE_BF16};
    int number = 0;
    for (quire_dtype cache : {QUIRE_DTYPE_BF16, QUIRE_DTYPE_F16}) {
        const double bound = cache == QUIRE_DTYPE_BF16 ? 8e-3 : 1e-3;
        double worst = 0;
        for (int dim : {64, 128}) {
            for (int group : {1, 4, 5, 8, 17}) {
                if (test_is_small() && number++ % 4 != 0)
                    continue;
                const int block = 1 << (number % 6);
                SharedProblem problem({cache, 2, 1 + number % 2, dim, block, 0, 16}, group, tensors[number % 3],
                                      {{2, 96}, {group > 4 ? 5 : 20, 160}, {3, 32}}, number % 3 ? 40 : 100,
                                      number % 4 == 3 ? 300.0f : 1.0f, random);
                assert_int_equal(problem.run(number % 2 ? 64 : 1000, number % 3 ? 64 : 32), QUIRE_OK);
                worst = std::max(worst, problem.error());
                number++;
            }
        }
        print_message("shared prefixes, %s: relative error %.1e (bound %.1e)\n", quire_dtype_name(cache), worst, bound);
        assert_true(worst <= bound);
    }
}

static void a_group_of_one_and_a_tail_of_one_token_are_groups_too(void **)
{
    need_device();
    Random random(test_seed("shared edges", 96));
    SharedProblem problem({QUIRE_DTYPE_BF16, 2, 2, 64, 16, 0, 0}, 4, QUIRE_DTYPE_BF16, {{1, 16}, {2, 64}, {1, 128}}, 1, 1,
                          random);
    assert_int_equal(problem.run(64, 64), QUIRE_OK);
    assert_true(problem.error() < 8e-3);
}

static void shared_attention_refuses_what_it_has_no_kernel_for(void **)
{
    need_device();
    Random random(1);
    const auto with = [&](void (*spoil)(quire__shared_args &)) {
        SharedProblem problem({QUIRE_DTYPE_BF16, 2, 1, 64, 16, 0, 0}, 2, QUIRE_DTYPE_BF16, {{2, 32}}, 5, 1, random);
        spoil(problem.args_);
        return problem.run(64, 64);
    };
    assert_int_equal(with([](quire__shared_args &) {}), QUIRE_OK);
    assert_int_equal(with([](quire__shared_args &a) { a.attend.pages.head_dim = 32; }), QUIRE_EUNSUPPORTED);
    assert_int_equal(with([](quire__shared_args &a) { a.attend.pages.dtype = QUIRE_DTYPE_F32; }), QUIRE_EUNSUPPORTED);
    assert_int_equal(with([](quire__shared_args &a) { a.attend.window = 5; }), QUIRE_EUNSUPPORTED);
    assert_int_equal(with([](quire__shared_args &a) { a.group_count = 0; }), QUIRE_EINVAL);
    assert_int_equal(with([](quire__shared_args &a) { a.longest_tail = 0; }), QUIRE_EINVAL);
}

int main()
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sharing_a_prefix_gives_what_attending_alone_gives),
        cmocka_unit_test(a_group_of_one_and_a_tail_of_one_token_are_groups_too),
        cmocka_unit_test(shared_attention_refuses_what_it_has_no_kernel_for),
    };
    return cmocka_run_group_tests(tests, nullptr, nullptr);
}
