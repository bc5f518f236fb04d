/* kernel_problem.h: random inputs for kernels, held on the host, and the same on the device.
 *
 * What a kernel must not read is poisoned: KV slots that no context holds are NaN, table entries past a row's
 * length point far outside the arena. */
#ifndef QUIRE_TESTS_KERNEL_PROBLEM_H
#define QUIRE_TESTS_KERNEL_PROBLEM_H

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <vector>

extern "C" {
#include "device/host_ops.h"
}
#include "support/device_memory.h"

class Random
{
  public:
    explicit Random(uint64_t seed) : state_(seed * 2 + 1)
    {
    }
    uint64_t next()
    {
        state_ += 0x9e3779b97f4a7c15u;
        uint64_t z = state_;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
        z = (z ^ z >> 27) * 0x94d049bb133111ebu;
        return z ^ z >> 31;
    }
    int below(int limit)
    {
        return static_cast<int>(next() % static_cast<uint64_t>(limit));
    }
    double uniform()
    {
        return static_cast<double>(next() >> 11) * 0x1p-53;
    }
    float normal()
    {
        const double radius = std::sqrt(-2.0 * std::log(1.0 - uniform()));
        return static_cast<float>(radius * std::cos(6.283185307179586 * uniform()));
    }
    template <class T> void shuffle(std::vector<T> &items)
    {
        for (size_t i = items.size(); i > 1; i--)
            std::swap(items[i - 1], items[static_cast<size_t>(below(static_cast<int>(i)))]);
    }

  private:
    uint64_t state_;
};

typedef std::vector<unsigned char> Bytes;

/* ---- pages ------------------------------------------------------------------------------------------- */

struct PageShape {
    quire_dtype dtype;
    int layers, kv_heads, head_dim, block_tokens, blocks;
    int gap; /* bytes after each head, K or V, layer and block, a multiple of 16; tokens lie side by side */
    bool given_scales = false; /* FP8: by the caller */
};

/* Pages on the host. Every byte is 0xff, which is NaN in every dtype, until something is stored. */
struct HostPages {
    HostPages(const PageShape &shape, Random &random)
    {
        pages.dtype = shape.dtype;
        pages.block_tokens = shape.block_tokens;
        pages.kv_heads = shape.kv_heads;
        pages.head_dim = shape.head_dim;
        quire__pages_set_format(&pages, quire__format_of(shape.dtype, shape.head_dim, shape.given_scales));
        pages.head_stride += shape.gap;
        pages.kv_stride = shape.kv_heads * pages.head_stride + shape.gap;
        pages.layer_stride = 2 * pages.kv_stride + shape.gap;
        pages.block_stride = shape.layers * pages.layer_stride + shape.gap;
        pages.block_stride = (pages.block_stride + 15) / 16 * 16;
        bytes.assign(static_cast<size_t>(pages.block_stride * shape.blocks), 0xff);
        pages.arena = bytes.data();
        if (shape.given_scales) {
            for (int i = 0; i < 2 * shape.kv_heads; i++)
                scales.push_back(static_cast<float>(0.01 + 0.05 * random.uniform()));
            pages.scales = scales.data();
        }
    }
    HostPages(const HostPages &) = delete;
    HostPages &operator=(const HostPages &) = delete;

    quire__pages pages = {};
    Bytes bytes;
    std::vector<float> scales;
};

/* ---- tensors ----------------------------------------------------------------------------------------- */

/* A tensor of which the elements between heads and tokens are no one's. */
struct HostTensor {
    HostTensor(quire_dtype dtype, int tokens, int heads, int dim, int head_gap, int token_gap,
               unsigned char fill = 0xff)
    {
        tensor.dtype = dtype;
        tensor.heads = static_cast<uint32_t>(heads);
        tensor.head_stride = dim + head_gap;
        tensor.token_stride = heads * tensor.head_stride + token_gap;
        bytes.assign(static_cast<size_t>(tokens * tensor.token_stride) * quire__dtype_bytes(dtype), fill);
        tensor.data = bytes.data();
    }
    HostTensor(const HostTensor &) = delete;
    HostTensor &operator=(const HostTensor &) = delete;

    unsigned char *at(int token, int head, int column)
    {
        const int64_t index = token * tensor.token_stride + head * tensor.head_stride + column;
        return bytes.data() + static_cast<size_t>(index) * quire__dtype_bytes(tensor.dtype);
    }
    void store(int token, int head, int column, float value)
    {
        quire__dtype_store(tensor.dtype, at(token, head, column), value);
    }

    quire_tensor tensor = {};
    Bytes bytes;
};

/* ---- attention --------------------------------------------------------------------------------------- */

struct Row {
    int cached,
        fresh; /* tokens before the step, and in it; cached -1 and fresh 1: a padded row without context */
};

struct AttendShape {
    PageShape pages; /* `blocks` is computed */
    int group;
    quire_dtype q_dtype, out_dtype;
    float sharpness; /* standard deviation of the scores */
    std::vector<Row> rows;
    int window; /* this and the next: quire_attend_params. Pages that no token sees are out of the table */
    float soft_cap;
    bool sinks;
};

/* Attention of a step: pages, tables and q, and what the oracle says. */
class AttendProblem
{
  public:
    AttendProblem(const AttendShape &shape, Random &random)
        : shape_(shape), tokens_(count_tokens(shape.rows)), host_(with_blocks(shape), random),
          q_(shape.q_dtype, tokens_, heads(), shape.pages.head_dim, random.below(3) * 4,
             random.below(2) * 12),
          reference_(QUIRE_DTYPE_F32, tokens_, heads(), shape.pages.head_dim, 0, 0)
    {
        for (int head = 0; head < heads(); head++)
            sinks_.push_back(head % 5 == 4 ? -INFINITY : random.normal() * 2);
        fill_tables(random);
        fill_contexts(random);
        hide_pages();
        for (int token = 0; token < tokens_; token++) {
            for (int i = 0; i < heads() * shape.pages.head_dim; i++)
                q_.store(token, i / shape.pages.head_dim, i % shape.pages.head_dim,
                         random.normal() * shape.sharpness);
        }
        arena_ = std::make_unique<DeviceArray<unsigned char>>(host_.bytes);
        scales_ = std::make_unique<DeviceArray<float>>(host_.scales);
        q_device_ = std::make_unique<DeviceArray<unsigned char>>(q_.bytes);
        table_device_ = std::make_unique<DeviceArray<int32_t>>(table_);
        token_rows_device_ = std::make_unique<DeviceArray<int32_t>>(token_rows_);
        positions_device_ = std::make_unique<DeviceArray<int32_t>>(positions_);
        sinks_device_ = std::make_unique<DeviceArray<float>>(sinks_);
        run_oracle();
    }

    int tokens() const
    {
        return tokens_;
    }
    int heads() const
    {
        return shape_.pages.kv_heads * shape_.group;
    }
    int dim() const
    {
        return shape_.pages.head_dim;
    }
    int longest() const
    {
        return *std::max_element(positions_.begin(), positions_.end()) + 1;
    }
    int position(int token) const
    {
        return positions_[static_cast<size_t>(token)];
    }

    /* The step's rows cut into tiles of at most `most` tokens. */
    std::vector<quire_tile> tiles(int most) const
    {
        std::vector<quire_tile> list;
        int first = 0;
        for (size_t row = 0; row < shape_.rows.size(); row++) {
            for (int done = 0; done < shape_.rows[row].fresh; done += most)
                list.push_back(
                    {static_cast<int32_t>(row), first + done, std::min(most, shape_.rows[row].fresh - done)});
            first += shape_.rows[row].fresh;
        }
        return list;
    }

    /* Out of the decode kernel for these tokens; NULL: for all, without a selection. Tokens not selected are
     * 0xee. split_tokens 0: shared out evenly to `workers`. */
    Bytes decode(const std::vector<int32_t> *select, int split_tokens, int longest_context, quire_status *status,
                 int workers = 0)
    {
        HostTensor out = make_out();
        DeviceArray<unsigned char> out_device(out.bytes);
        DeviceArray<int32_t> select_device(select ? *select : std::vector<int32_t>());
        quire__attend_args args = device_args(out.tensor, out_device.data());
        args.count = select ? static_cast<int32_t>(select->size()) : tokens_;
        args.select = select ? select_device.data() : nullptr;
        args.longest_context = longest_context;
        args.split_tokens = split_tokens;
        args.workers = workers;
        args.work_floats = quire__attend_work_floats(&args);
        DeviceArray<float> work(std::vector<float>(static_cast<size_t>(args.work_floats), NAN));
        args.work = work.data();
        *status = quire__cuda_attend_decode(&args, nullptr);
        return out_device.read();
    }

    Bytes prefill(const std::vector<quire_tile> &tile_list, quire_status *status)
    {
        HostTensor out = make_out();
        DeviceArray<unsigned char> out_device(out.bytes);
        DeviceArray<quire_tile> tiles_device(tile_list);
        quire__attend_args args = device_args(out.tensor, out_device.data());
        args.count = static_cast<int32_t>(tile_list.size());
        args.tiles = tiles_device.data();
        args.longest_context = longest();
        *status = quire__cuda_attend_prefill(&args, nullptr);
        return out_device.read();
    }

    /* A token's output in what decode or prefill returned. */
    const unsigned char *token_bytes(const Bytes &out, int token)
    {
        return out.data() + static_cast<size_t>(token) * token_size();
    }
    size_t token_size() const
    {
        return static_cast<size_t>(heads() * dim()) * quire__dtype_bytes(shape_.out_dtype);
    }

    /* The largest |out - reference| / |reference| of any token and head, as lengths of vectors. */
    double error(const Bytes &out)
    {
        double worst = 0;
        for (int token = 0; token < tokens_; token++) {
            for (int head = 0; head < heads(); head++)
                worst = std::max(worst, head_error(out, token, head));
        }
        return worst;
    }

    /* For tests of refusals. */
    quire__attend_args device_args(const quire_tensor &out, void *out_data)
    {
        quire__attend_args args = host_args();
        args.pages.arena = arena_->data();
        args.pages.scales = host_.pages.scales ? scales_->data() : nullptr;
        args.q.data = q_device_->data();
        args.out = out;
        args.out.data = out_data;
        args.block_table = table_device_->data();
        args.token_rows = token_rows_device_->data();
        args.positions = positions_device_->data();
        args.sinks = shape_.sinks ? sinks_device_->data() : nullptr;
        return args;
    }

  private:
    static int count_tokens(const std::vector<Row> &rows)
    {
        int count = 0;
        for (const Row &row : rows)
            count += row.fresh;
        return count;
    }

    static int blocks_of(const Row &row, int block_tokens)
    {
        return (row.cached + row.fresh + block_tokens - 1) / block_tokens;
    }

    static PageShape with_blocks(const AttendShape &shape)
    {
        PageShape pages = shape.pages;
        pages.blocks = 3; /* that no one uses */
        for (const Row &row : shape.rows)
            pages.blocks += blocks_of(row, pages.block_tokens);
        return pages;
    }

    HostTensor make_out() const
    {
        return HostTensor(shape_.out_dtype, tokens_, heads(), dim(), 0, 0, 0xee);
    }

    void fill_tables(Random &random)
    {
        int widest = 1, used = 0, blocks = with_blocks(shape_).blocks;
        std::vector<int32_t> order;
        for (int i = 0; i < blocks; i++)
            order.push_back(i);
        random.shuffle(order);
        for (const Row &row : shape_.rows)
            widest = std::max(widest, blocks_of(row, shape_.pages.block_tokens));
        table_stride_ = widest + random.below(3);
        table_.assign(shape_.rows.size() * static_cast<size_t>(table_stride_), INT32_MAX / 2);
        for (size_t row = 0; row < shape_.rows.size(); row++) {
            for (int i = 0; i < blocks_of(shape_.rows[row], shape_.pages.block_tokens); i++)
                table_[row * static_cast<size_t>(table_stride_) + static_cast<size_t>(i)] =
                    order[static_cast<size_t>(used++)];
            for (int i = 0; i < shape_.rows[row].fresh; i++) {
                token_rows_.push_back(static_cast<int32_t>(row));
                positions_.push_back(shape_.rows[row].cached + i);
            }
        }
    }

    /* K and V of every token of every row. */
    void fill_contexts(Random &random)
    {
        const quire__pages &pages = host_.pages;
        for (size_t row = 0; row < shape_.rows.size(); row++) {
            for (int token = 0; token < shape_.rows[row].cached + shape_.rows[row].fresh; token++) {
                const int64_t block = table_[row * static_cast<size_t>(table_stride_) +
                                             static_cast<size_t>(token / pages.block_tokens)];
                for (int part = 0; part < 2 * pages.kv_heads; part++) {
                    const int which = part / pages.kv_heads, head = part % pages.kv_heads;
                    std::vector<float> values(static_cast<size_t>(pages.head_dim));
                    for (float &value : values)
                        value = random.normal();
                    quire__row_encode(
                        &pages, which, head, values.data(),
                        quire__page_row(&pages, block, layer_, which, head, token % pages.block_tokens),
                        quire__page_row_scales(&pages, block, layer_, which, head, token % pages.block_tokens));
                }
            }
        }
    }

    /* Pages that lie outside the window of every token of their row: reading one is an access far out of bounds. */
    void hide_pages()
    {
        for (size_t row = 0; row < shape_.rows.size() && shape_.window > 0; row++) {
            const int first = shape_.rows[row].cached + 1 - shape_.window;
            for (int i = 0; i < first / shape_.pages.block_tokens; i++)
                table_[row * static_cast<size_t>(table_stride_) + static_cast<size_t>(i)] = INT32_MAX / 2;
        }
    }

    quire__attend_args host_args()
    {
        quire__attend_args args = {};
        args.pages = host_.pages;
        args.layer = layer_;
        args.query_heads = heads();
        args.scale = 1.0f / std::sqrt(static_cast<float>(dim()));
        args.q = q_.tensor;
        args.out = reference_.tensor;
        args.block_table = table_.data();
        args.table_stride = table_stride_;
        args.token_rows = token_rows_.data();
        args.positions = positions_.data();
        args.window = shape_.window;
        args.soft_cap = shape_.soft_cap;
        args.sinks = shape_.sinks ? sinks_.data() : nullptr;
        return args;
    }

    void run_oracle()
    {
        quire__attend_args args = host_args();
        args.count = tokens_;
        quire__host_attend_decode(&args);
    }

    double head_error(const Bytes &out, int token, int head)
    {
        const size_t size = quire__dtype_bytes(shape_.out_dtype);
        const unsigned char *from = token_bytes(out, token) + static_cast<size_t>(head * dim()) * size;
        double difference = 0, length = 0;
        for (int i = 0; i < dim(); i++) {
            const double want = quire__dtype_load(QUIRE_DTYPE_F32, reference_.at(token, head, i));
            const double got = quire__dtype_load(shape_.out_dtype, from + static_cast<size_t>(i) * size);
            difference += (got - want) * (got - want);
            length += want * want;
        }
        if (length == 0) /* no context: zeros must come out */
            return difference == 0 ? 0 : INFINITY;
        /* a head that gives nearly everything to its sink: below a hundredth of V's size, count absolutely */
        const double error = std::sqrt(difference / std::max(length, 1e-4 * dim()));
        return error == error ? error : INFINITY;
    }

    AttendShape shape_;
    int tokens_, layer_ = 1, table_stride_ = 0;
    HostPages host_;
    HostTensor q_, reference_;
    std::vector<int32_t> table_, token_rows_, positions_;
    std::unique_ptr<DeviceArray<unsigned char>> arena_, q_device_;
    std::vector<float> sinks_;
    std::unique_ptr<DeviceArray<float>> scales_, sinks_device_;
    std::unique_ptr<DeviceArray<int32_t>> table_device_, token_rows_device_, positions_device_;
};

#endif
