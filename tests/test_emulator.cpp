/*
 * test_emulator.cpp - the kernel emulator does what CUDA does, and catches what it was built to catch.
 *
 * Each kernel is small enough that its result is known from plain loops. The planted mistakes at the end are kernels
 * with one line missing: the test is that the emulator makes them go wrong. test_emulator_refusals.cpp has what the
 * emulator will not run at all; emulator/planted_race.cpp has what only ThreadSanitizer sees.
 */
#include <cstdarg>
#include <cstddef>
#include <csetjmp>
#include <cstdint>
extern "C" {
#include <cmocka.h>
}

#include "cuda_compat.cuh"

#include <cstring>
#include <vector>

/* Runs the test's body under schedules of both kinds and both cp.async modes, and puts the settings back. */
constexpr uint32_t kSeeds[] = {0, 1, 2, 3, 4, 5};

class WithSeed {
  public:
    explicit WithSeed(uint32_t seed) : before_(emu::settings()) { emu::settings().seed = seed; }
    ~WithSeed() { emu::settings() = before_; }

  private:
    emu::Settings before_;
};

/* ------------------------------------------------------------------------------------------------ grids and threads */

__global__ void mark_every_thread(unsigned *marks) {
    const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    marks[block * blockDim.x * blockDim.y * blockDim.z + thread] += 1 + blockIdx.z * 100 + threadIdx.z;
}

static void a_grid_of_three_dimensions_runs_every_thread_once(void **) {
    const dim3 grid(3, 2, 4);
    const dim3 block(5, 7, 2);
    for (uint32_t seed : kSeeds) {
        const WithSeed with(seed);
        std::vector<unsigned> marks(24 * 70, 0);
        QK_LAUNCH(mark_every_thread, grid, block, 0, nullptr, marks.data());
        assert_int_equal(qk_launch_status(), 0);
        for (unsigned i = 0; i < marks.size(); i++) {
            assert_int_equal(marks[i], 1 + i / 70 / 6 * 100 + i % 70 / 35);
        }
    }
}

struct Arguments {
    int value;
    int *out;
};

__global__ void change_own_arguments(Arguments arguments, int addend) {
    arguments.value += addend + int(threadIdx.x);
    addend = 1000;
    arguments.out[threadIdx.x] = arguments.value + addend;
}

static void every_thread_has_its_own_copy_of_the_arguments(void **) {
    int out[33];
    QK_LAUNCH(change_own_arguments, 1, 33, 0, nullptr, Arguments{5, out}, short(2));
    for (int i = 0; i < 33; i++) {
        assert_int_equal(out[i], 1007 + i);
    }
}

/* ----------------------------------------------------------------------------------------------------- block barrier */

template <int Threads> __global__ void reverse_through_shared(const int *in, int *out) {
    QK_SHARED(int[Threads], fixed);
    QK_DYNAMIC_SHARED(int, dynamic);
    const int t = int(threadIdx.x);
    fixed[t] = in[t];
    __syncthreads();
    dynamic[t] = fixed[Threads - 1 - t];
    __syncthreads();
    out[t] = dynamic[(t + 1) % Threads];
}

static void a_barrier_makes_shared_memory_visible_to_the_block(void **) {
    constexpr int kThreads = 200;
    int in[kThreads];
    int out[kThreads];
    for (int i = 0; i < kThreads; i++) {
        in[i] = 7 * i;
    }
    for (uint32_t seed : kSeeds) {
        const WithSeed with(seed);
        memset(out, 0, sizeof out);
        QK_LAUNCH(reverse_through_shared<kThreads>, 1, kThreads, sizeof out, nullptr, in, out);
        for (int i = 0; i < kThreads; i++) {
            assert_int_equal(out[i], 7 * (kThreads - 1 - (i + 1) % kThreads));
        }
    }
}

__global__ void vote_at_barriers(int (*out)[6]) {
    const int t = int(threadIdx.x);
    int *mine = out[t];
    mine[0] = __syncthreads_count(t % 3 == 0);
    mine[1] = __syncthreads_or(t == 40);
    mine[2] = __syncthreads_or(0);
    mine[3] = __syncthreads_and(t >= 0);
    mine[4] = __syncthreads_and(t != 40);
    mine[5] = __syncthreads_count(t < 7 ? 0x100 : 0);
}

static void barriers_count_and_combine_predicates(void **) {
    int out[50][6];
    for (uint32_t seed : kSeeds) {
        const WithSeed with(seed);
        QK_LAUNCH(vote_at_barriers, 1, 50, 0, nullptr, out);
        for (auto &mine : out) {
            const int expected[6] = {17, 1, 0, 1, 0, 7};
            assert_memory_equal(mine, expected, sizeof expected);
        }
    }
}

__global__ void some_leave_before_the_barrier(int *out) {
    if (threadIdx.x >= 20) {
        return;
    }
    out[threadIdx.x] = __syncthreads_count(1);
}

static void a_barrier_does_not_wait_for_threads_that_have_ended(void **) {
    for (uint32_t seed : kSeeds) {
        const WithSeed with(seed);
        int out[20] = {};
        QK_LAUNCH(some_leave_before_the_barrier, 1, 64, 0, nullptr, out);
        for (int count : out) {
            assert_int_equal(count, 20);
        }
    }
}

/* ---------------------------------------------------------------------------------------------------- shared memory */

struct Seen {
    unsigned fixed;
    unsigned dynamic;
    float as_float;
};

__global__ void read_before_write(Seen *out) {
    QK_SHARED(unsigned[8], fixed);
    QK_SHARED(float, number);
    QK_DYNAMIC_SHARED(unsigned, dynamic);
    if (threadIdx.x == 0) {
        out[blockIdx.x] = Seen{fixed[3], dynamic[5], number};
    }
    __syncthreads();
    fixed[threadIdx.x] = 1;
    dynamic[threadIdx.x] = 1;
    number = 1.0f;
}

static void shared_memory_is_poison_at_the_start_of_every_block(void **) {
    Seen seen[5];
    emu::Settings before = emu::settings();
    emu::settings().os_threads = 1; /* so that every block but the first follows another */
    QK_LAUNCH(read_before_write, 5, 1, 32, nullptr, seen);
    emu::settings() = before;
    for (const Seen &s : seen) {
        assert_int_equal(s.fixed, 0xffffffffu);
        assert_int_equal(s.dynamic, 0xffffffffu);
        assert_true(std::isnan(s.as_float));
    }
}

/* ------------------------------------------------------------------------------------------------------------- warps */

constexpr unsigned kFull = 0xffffffffu;

__global__ void shuffle_all_ways(int (*out)[8]) {
    const int lane = int(threadIdx.x);
    int *mine = out[lane];
    mine[0] = __shfl_sync(kFull, lane * 10, 5);
    mine[1] = __shfl_sync(kFull, lane * 10, 35, 8);
    mine[2] = __shfl_up_sync(kFull, lane * 10, 3);
    mine[3] = __shfl_up_sync(kFull, lane * 10, 3, 16);
    mine[4] = __shfl_down_sync(kFull, lane * 10, 3);
    mine[5] = __shfl_down_sync(kFull, lane * 10, 3, 4);
    mine[6] = __shfl_xor_sync(kFull, lane * 10, 17);
    mine[7] = __shfl_xor_sync(kFull, lane * 10, 9, 8);
}

static void shuffles_follow_width_and_edge_rules(void **) {
    int out[32][8];
    for (uint32_t seed : kSeeds) {
        const WithSeed with(seed);
        QK_LAUNCH(shuffle_all_ways, 1, 32, 0, nullptr, out);
        for (int lane = 0; lane < 32; lane++) {
            const int xor_source = lane ^ 9;
            const int sources[8] = {5,
                                    lane / 8 * 8 + 3,
                                    lane >= 3 ? lane - 3 : lane,
                                    lane % 16 >= 3 ? lane - 3 : lane,
                                    lane + 3 < 32 ? lane + 3 : lane,
                                    lane % 4 == 0 ? lane + 3 : lane,
                                    lane ^ 17,
                                    xor_source < lane / 8 * 8 + 8 ? xor_source : lane};
            for (int i = 0; i < 8; i++) {
                assert_int_equal(out[lane][i], 10 * sources[i]);
            }
        }
    }
}

__global__ void shuffle_types(double *doubles, float *halves, unsigned long long *wide) {
    const int lane = int(threadIdx.x);
    doubles[lane] = __shfl_xor_sync(kFull, lane + 0.5, 1);
    halves[lane] = __half2float(__shfl_xor_sync(kFull, __float2half_rn(float(lane)), 2)) +
                   __bfloat162float(__shfl_xor_sync(kFull, __float2bfloat16_rn(float(lane)), 4));
    wide[lane] = __shfl_down_sync(kFull, 0x100000000ull * unsigned(lane), 1);
}

static void shuffles_carry_wide_and_half_types(void **) {
    double doubles[32];
    float halves[32];
    unsigned long long wide[32];
    QK_LAUNCH(shuffle_types, 1, 32, 0, nullptr, doubles, halves, wide);
    for (int lane = 0; lane < 32; lane++) {
        assert_true(doubles[lane] == (lane ^ 1) + 0.5);
        assert_true(halves[lane] == float((lane ^ 2) + (lane ^ 4)));
        assert_true(wide[lane] == 0x100000000ull * unsigned(lane < 31 ? lane + 1 : 31));
    }
}

/* Half warps take different numbers of collectives, then the whole warp takes one: no mix-up between masks. */
__global__ void groups_at_their_own_pace(int *sums, unsigned *votes) {
    const int lane = int(threadIdx.x % 32);
    const unsigned mask = lane < 16 ? 0x0000ffffu : 0xffff0000u;
    int sum = lane;
    for (int i = 0; i < (lane < 16 ? 1 : 4); i++) {
        sum += __shfl_xor_sync(mask, sum, 1 << i, 16);
    }
    votes[threadIdx.x] = __ballot_sync(mask, lane % 2);
    __syncwarp();
    sums[threadIdx.x] = __shfl_sync(kFull, sum, lane ^ 16);
}

static void groups_of_lanes_meet_independently(void **) {
    int sums[64];
    unsigned votes[64];
    for (uint32_t seed : kSeeds) {
        const WithSeed with(seed);
        QK_LAUNCH(groups_at_their_own_pace, 1, 64, 0, nullptr, sums, votes);
        for (int t = 0; t < 64; t++) {
            const int lane = t % 32;
            const int other = lane ^ 16;
            assert_int_equal(sums[t], lane < 16 ? (16 + 31) * 8 : other + (other ^ 1));
            assert_int_equal(votes[t], lane < 16 ? 0x0000aaaau : 0xaaaa0000u);
        }
    }
}

__global__ void vote(unsigned *ballots, int (*any_all)[4]) {
    const int lane = int(threadIdx.x);
    ballots[lane] = __ballot_sync(kFull, lane % 5 == 0);
    any_all[lane][0] = __any_sync(kFull, lane == 9);
    any_all[lane][1] = __any_sync(kFull, 0);
    any_all[lane][2] = __all_sync(kFull, lane < 32);
    any_all[lane][3] = __all_sync(kFull, lane != 9);
}

static void votes_see_every_lane(void **) {
    unsigned ballots[32];
    int any_all[32][4];
    QK_LAUNCH(vote, 1, 32, 0, nullptr, ballots, any_all);
    const int expected[4] = {1, 0, 1, 0};
    for (int lane = 0; lane < 32; lane++) {
        assert_int_equal(ballots[lane], 0x42108421u);
        assert_memory_equal(any_all[lane], expected, sizeof expected);
    }
}

__global__ void vote_in_a_partial_warp(unsigned *ballots, int *from_nobody) {
    ballots[threadIdx.x] = __ballot_sync(kFull, 1);
    from_nobody[threadIdx.x] = __shfl_sync(kFull, 5, 30);
}

static void lanes_that_do_not_exist_are_not_waited_for_and_give_poison(void **) {
    unsigned ballots[40];
    int from_nobody[40];
    QK_LAUNCH(vote_in_a_partial_warp, 1, 40, 0, nullptr, ballots, from_nobody);
    for (int t = 0; t < 40; t++) {
        assert_int_equal(ballots[t], t < 32 ? kFull : 0xffu);
        assert_int_equal(from_nobody[t], t < 32 ? 5 : -1);
    }
}

/* ----------------------------------------------------------------------------------------------------------- atomics */

struct Totals {
    int sum;
    unsigned difference;
    unsigned long long wide;
    float real;
    int least;
    int most;
    unsigned bits_or;
    unsigned bits_and;
    unsigned bits_xor;
    unsigned wraps;
    unsigned exchanged;
    unsigned compared;
};

__device__ static void add_to(Totals *t, int i) {
    atomicAdd(&t->sum, i);
    atomicSub(&t->difference, 1);
    atomicAdd(&t->wide, 0x100000000);
    atomicAdd(&t->real, 0.5f);
    atomicMin(&t->least, -i);
    atomicMax(&t->most, i);
    atomicOr(&t->bits_or, 1u << i % 32);
    atomicAnd(&t->bits_and, ~(1u << i % 16));
    atomicXor(&t->bits_xor, unsigned(i));
    atomicInc(&t->wraps, 9);
    atomicExch(&t->exchanged, 77);
    unsigned seen = 0;
    for (;;) {
        const unsigned old = atomicCAS(&t->compared, seen, seen + 2);
        if (old == seen) {
            break;
        }
        seen = old;
    }
}

static bool totals_are_right(const Totals &t, int n) {
    unsigned x = 0;
    for (int i = 0; i < n; i++) {
        x ^= unsigned(i);
    }
    return t.sum == n * (n - 1) / 2 && t.difference == 0u - unsigned(n) && t.wide == 0x100000000ull * unsigned(n) &&
           t.real == 0.5f * float(n) && t.least == 1 - n && t.most == n - 1 && t.bits_or == kFull &&
           t.bits_and == 0xffff0000u && t.bits_xor == x && t.wraps == unsigned(n % 10) && t.exchanged == 77 &&
           t.compared == 2u * unsigned(n);
}

static Totals fresh_totals() {
    Totals t = {};
    t.bits_and = kFull;
    return t;
}

__global__ void add_atomically(Totals *global, Totals *shared_out, const Totals *start) {
    QK_SHARED(Totals, shared);
    if (threadIdx.x == 0) {
        shared = *start;
    }
    __syncthreads();
    add_to(&shared, int(threadIdx.x));
    add_to(global, int(threadIdx.x));
    __syncthreads();
    if (threadIdx.x == 0) {
        *shared_out = shared;
    }
}

static void atomics_lose_no_update_in_global_and_shared_memory(void **) {
    constexpr int kThreads = 96;
    for (uint32_t seed : kSeeds) {
        const WithSeed with(seed);
        const Totals start = fresh_totals();
        Totals global = start;
        Totals shared = {};
        QK_LAUNCH(add_atomically, 1, kThreads, 0, nullptr, &global, &shared, &start);
        assert_true(totals_are_right(global, kThreads));
        assert_true(totals_are_right(shared, kThreads));
    }
}

/* Every block writes its part; the block that draws the last ticket adds them all up. */
__global__ void sum_in_last_block(const int *in, int n, int *parts, unsigned *ticket, int *out) {
    QK_SHARED(bool, is_last);
    QK_SHARED(int, total);
    if (threadIdx.x == 0) {
        total = 0;
    }
    __syncthreads();
    for (int i = int(blockIdx.x * blockDim.x + threadIdx.x); i < n; i += int(gridDim.x * blockDim.x)) {
        atomicAdd(&total, in[i]);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        parts[blockIdx.x] = total;
        __threadfence();
        is_last = atomicInc(ticket, gridDim.x - 1) == gridDim.x - 1;
        __threadfence();
    }
    __syncthreads();
    if (is_last && threadIdx.x == 0) {
        int sum = 0;
        for (unsigned b = 0; b < gridDim.x; b++) {
            sum += parts[b];
        }
        *out = sum;
    }
}

static void the_last_block_sees_what_blocks_on_other_os_threads_wrote(void **) {
    constexpr int kCount = 5000;
    std::vector<int> in(kCount);
    int expected = 0;
    for (int i = 0; i < kCount; i++) {
        in[size_t(i)] = i % 91;
        expected += i % 91;
    }
    const emu::Settings before = emu::settings();
    emu::settings().os_threads = 4;
    unsigned ticket = 0;
    for (uint32_t seed = 0; seed < 20; seed++) {
        emu::settings().seed = seed;
        std::vector<int> parts(16);
        int out = 0;
        QK_LAUNCH(sum_in_last_block, 16, 64, 0, nullptr, in.data(), kCount, parts.data(), &ticket, &out);
        assert_int_equal(out, expected);
        assert_int_equal(ticket, 0);
    }
    emu::settings() = before;
}

/* ------------------------------------------------------------------------------------- device functions of other kinds */

__global__ void bit_functions(unsigned *out) {
    out[0] = unsigned(__popc(0xf0f0u));
    out[1] = unsigned(__clz(0x00010000));
    out[2] = unsigned(__clz(0));
    out[3] = unsigned(__ffs(0x50));
    out[4] = __brev(0x1u);
    out[5] = __byte_perm(0x33221100u, 0x77665584u, 0x6c20u);
    out[6] = __funnelshift_l(0x80000001u, 0x00000001u, 4);
    out[7] = __funnelshift_r(0x80000001u, 0x00000001u, 4);
    out[8] = __float_as_uint(1.0f);
    out[9] = unsigned(__popcll(~0ull));
    out[10] = __umulhi(0x80000000u, 6);
    out[11] = unsigned(__clzll(1));
    out[12] = unsigned(__ffsll(1ll << 40));
    out[13] = unsigned(__float2int_rn(2.5f));
    out[14] = unsigned(__float2int_rn(1e20f));
    out[15] = unsigned(max(3, min(9u, 7u)));
}

static void bit_functions_have_the_known_values(void **) {
    const unsigned expected[16] = {8,          15, 32, 5, 0x80000000u, 0x66ff2200u, 0x00000018u, 0x18000000u,
                                   0x3f800000u, 64, 3,  63, 41,          2,           0x7fffffffu, 7};
    unsigned out[16];
    QK_LAUNCH(bit_functions, 1, 1, 0, nullptr, out);
    for (int i = 0; i < 16; i++) {
        assert_int_equal(out[i], expected[i]);
    }
}

__global__ void conversions_and_hints(const float *in, float *out, uint4 *copied) {
    const float x = __ldg(in + threadIdx.x);
    out[threadIdx.x * 4 + 0] = __half2float(__float2half_rn(x));
    out[threadIdx.x * 4 + 1] = __bfloat162float(__float2bfloat16_rn(x));
    out[threadIdx.x * 4 + 2] = float(__nv_fp8_e4m3(x));
    out[threadIdx.x * 4 + 3] = qk_exp2(x) * __expf(x) * rsqrtf(4.0f);
    if (threadIdx.x == 0) {
        const uint4 v = __ldcs(reinterpret_cast<const uint4 *>(in));
        __stcs(copied, v);
        __stcg(copied + 1, __ldcg(copied));
    }
}

static void conversions_round_as_the_formats_demand(void **) {
    alignas(16) const float in[4] = {1.0f + 1.0f / 4096, 3.0f + 1.0f / 256, 1000.0f, -0.3f};
    const float expected[4][3] = {
        {1.0f, 1.0f, 1.0f}, {3.00390625f, 3.0f, 3.0f}, {1000.0f, 1000.0f, 448.0f}, {-0.300048828125f, -0.30078125f, -0.3125f}};
    float out[4][4];
    uint4 copied[2];
    QK_LAUNCH(conversions_and_hints, 1, 4, 0, nullptr, in, &out[0][0], copied);
    for (int i = 0; i < 4; i++) {
        assert_memory_equal(out[i], expected[i], sizeof expected[i]);
    }
    assert_true(std::fabs(out[3][3] - std::exp2(-0.3f) * std::exp(-0.3f) / 2) < 1e-6f);
    assert_memory_equal(&copied[0], in, 16);
    assert_memory_equal(&copied[1], in, 16);
}

/* ------------------------------------------------------------------------------------------------ tensor core, ldmatrix */

enum Format { kBf16, kF16 };

/* D = A B by ldmatrix and mma. A is [16][16], B is [16][8] row major: B's fragments need the transposing load. */
template <Format F> __global__ void multiply_tiles(const uint16_t *a, const uint16_t *b, float *d) {
    QK_SHARED(uint16_t[16][24], a_tile); /* rows padded to 48 bytes, as a kernel does against bank conflicts */
    QK_SHARED(uint16_t[32][8], b_tile);
    const int lane = int(threadIdx.x);
    for (int i = lane; i < 256; i += 32) {
        a_tile[i / 16][i % 16] = a[i];
        b_tile[i / 8][i % 8] = b[i % 128]; /* twice, so that the x4 load has four matrices */
    }
    __syncwarp();
    uint32_t a_words[4];
    uint32_t b_words[4];
    qk_ldmatrix_x4(a_words, &a_tile[lane % 16][lane / 16 * 8]);
    qk_ldmatrix_x4_trans(b_words, &b_tile[lane][0]);
    const uint32_t b_pair[2] = {b_words[0], b_words[1]};
    float sum[4] = {1.0f, 1.0f, 1.0f, 1.0f};
    if (F == kBf16) {
        qk_mma_bf16_16816(sum, a_words, b_pair);
    } else {
        qk_mma_f16_16816(sum, a_words, b_pair);
    }
    for (int i = 0; i < 4; i++) {
        d[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = sum[i];
    }
}

template <Format F> static uint16_t narrow(float x) {
    uint16_t bits;
    if (F == kBf16) {
        const __nv_bfloat16 value = __float2bfloat16_rn(x);
        memcpy(&bits, &value, sizeof bits);
    } else {
        const __half value = __float2half_rn(x);
        memcpy(&bits, &value, sizeof bits);
    }
    return bits;
}

/* Small whole numbers and eighths: every sum is exact in f32, so the order of summation cannot matter. */
template <Format F> static void check_multiply() {
    float a[16][16];
    float b[16][8];
    uint16_t a_bits[256];
    uint16_t b_bits[128];
    for (int i = 0; i < 256; i++) {
        a[i / 16][i % 16] = float(i * 37 % 101 - 50) / 8;
        a_bits[i] = narrow<F>(a[i / 16][i % 16]);
    }
    for (int i = 0; i < 128; i++) {
        b[i / 8][i % 8] = float(i * 53 % 97 - 48);
        b_bits[i] = narrow<F>(b[i / 8][i % 8]);
    }
    float d[16][8];
    QK_LAUNCH((multiply_tiles<F>), 1, 32, 0, nullptr, a_bits, b_bits, &d[0][0]);
    for (int row = 0; row < 16; row++) {
        for (int column = 0; column < 8; column++) {
            float expected = 1.0f;
            for (int k = 0; k < 16; k++) {
                expected += a[row][k] * b[k][column];
            }
            assert_true(d[row][column] == expected);
        }
    }
}

static void mma_and_ldmatrix_agree_with_plain_loops(void **) {
    for (uint32_t seed : kSeeds) {
        const WithSeed with(seed);
        check_multiply<kBf16>();
        check_multiply<kF16>();
    }
}

__global__ void load_matrices(uint16_t (*out)[4][2], uint16_t (*transposed)[4][2]) {
    QK_SHARED(uint16_t[32][8], rows);
    const int lane = int(threadIdx.x);
    for (int i = 0; i < 8; i++) {
        rows[lane][i] = uint16_t(lane * 8 + i);
    }
    __syncwarp();
    uint32_t words[4];
    qk_ldmatrix_x4(words, rows[lane]);
    memcpy(out[lane], words, sizeof words);
    qk_ldmatrix_x4_trans(words, rows[lane]);
    memcpy(transposed[lane], words, sizeof words);
}

static void ldmatrix_gives_each_lane_its_elements(void **) {
    uint16_t out[32][4][2];
    uint16_t transposed[32][4][2];
    QK_LAUNCH(load_matrices, 1, 32, 0, nullptr, out, transposed);
    for (int lane = 0; lane < 32; lane++) {
        for (int matrix = 0; matrix < 4; matrix++) {
            for (int i = 0; i < 2; i++) {
                const int g = lane / 4;
                const int pair = lane % 4 * 2 + i;
                assert_int_equal(out[lane][matrix][i], (matrix * 8 + g) * 8 + pair);
                assert_int_equal(transposed[lane][matrix][i], (matrix * 8 + pair) * 8 + g);
            }
        }
    }
}

/* ---------------------------------------------------------------------------------------- cp.async and planted mistakes */

enum Mistake { kNone, kShortWait, kNoBarrierBeforeRefill };

constexpr int kStages = 2;
constexpr int kTileThreads = 64;

/* Adds up tiles of kTileThreads x 4 words through a two-stage pipeline; each thread adds words that another thread
 * fetched, so it needs both the wait and the barriers. */
template <Mistake M> __global__ void sum_tiles(const unsigned *in, int tiles, unsigned *out) {
    QK_SHARED(uint4[kStages][kTileThreads], stage);
    const int t = int(threadIdx.x);
    const uint4 *source = reinterpret_cast<const uint4 *>(in);
    qk_cp_async16(&stage[0][t], source + t);
    qk_cp_async_commit();
    unsigned sum = 0;
    for (int tile = 0; tile < tiles; tile++) {
        if (tile + 1 < tiles) {
            qk_cp_async16(&stage[(tile + 1) % kStages][t], source + (tile + 1) * kTileThreads + t);
        }
        qk_cp_async_commit();
        if (M == kShortWait) {
            qk_cp_async_wait<2>();
        } else {
            qk_cp_async_wait<1>();
        }
        __syncthreads();
        const uint4 word = stage[tile % kStages][kTileThreads - 1 - t];
        sum += word.x + word.y + word.z + word.w;
        if (M != kNoBarrierBeforeRefill) {
            __syncthreads();
        }
    }
    out[t] = sum;
}

template <Mistake M> static bool tiles_add_up(uint32_t seed) {
    constexpr int kTiles = 5;
    alignas(16) static unsigned in[kTiles * kTileThreads * 4];
    for (unsigned i = 0; i < kTiles * kTileThreads * 4; i++) {
        in[i] = i * 2654435761u;
    }
    const WithSeed with(seed);
    unsigned out[kTileThreads];
    QK_LAUNCH((sum_tiles<M>), 1, kTileThreads, 0, nullptr, in, kTiles, out);
    for (int t = 0; t < kTileThreads; t++) {
        unsigned expected = 0;
        for (int tile = 0; tile < kTiles; tile++) {
            for (int i = 0; i < 4; i++) {
                expected += in[(tile * kTileThreads + kTileThreads - 1 - t) * 4 + i];
            }
        }
        if (out[t] != expected) {
            return false;
        }
    }
    return true;
}

static void a_right_pipeline_is_right_lazy_and_eager_under_every_schedule(void **) {
    for (uint32_t seed = 0; seed < 16; seed++) {
        assert_true(tiles_add_up<kNone>(seed));
    }
}

#if !defined(EMU_TSAN) /* under TSan these end the program with its report: planted_race.cpp */
static void a_short_wait_gives_wrong_bytes_in_lazy_mode(void **) {
    assert_false(tiles_add_up<kShortWait>(0));
    assert_false(tiles_add_up<kShortWait>(2));
    assert_true(tiles_add_up<kShortWait>(1)); /* eager hides it: that is why both modes exist */
}

static void a_missing_barrier_before_a_refill_gives_wrong_bytes_in_eager_mode(void **) {
    assert_false(tiles_add_up<kNoBarrierBeforeRefill>(1));
    assert_false(tiles_add_up<kNoBarrierBeforeRefill>(3));
}
#endif

__global__ void fill_with_zeros(const uint4 *in, uint4 *out) {
    QK_SHARED(uint4[32], stage);
    qk_cp_async16(&stage[threadIdx.x], threadIdx.x % 2 == 0 ? in : nullptr, threadIdx.x % 2 == 0);
    qk_cp_async_commit();
    qk_cp_async_wait<0>();
    __syncthreads();
    out[threadIdx.x] = stage[threadIdx.x];
}

static void an_invalid_async_copy_fills_with_zeros_and_reads_nothing(void **) {
    const uint4 in = make_uint4(1, 2, 3, 4);
    const uint4 zero = make_uint4(0, 0, 0, 0);
    for (uint32_t seed = 0; seed < 2; seed++) {
        const WithSeed with(seed);
        uint4 out[32];
        QK_LAUNCH(fill_with_zeros, 1, 32, 0, nullptr, &in, out);
        for (int i = 0; i < 32; i++) {
            assert_memory_equal(&out[i], i % 2 == 0 ? &in : &zero, sizeof in);
        }
    }
}

int main() {
    const CMUnitTest tests[] = {
        cmocka_unit_test(a_grid_of_three_dimensions_runs_every_thread_once),
        cmocka_unit_test(every_thread_has_its_own_copy_of_the_arguments),
        cmocka_unit_test(a_barrier_makes_shared_memory_visible_to_the_block),
        cmocka_unit_test(barriers_count_and_combine_predicates),
        cmocka_unit_test(a_barrier_does_not_wait_for_threads_that_have_ended),
        cmocka_unit_test(shared_memory_is_poison_at_the_start_of_every_block),
        cmocka_unit_test(shuffles_follow_width_and_edge_rules),
        cmocka_unit_test(shuffles_carry_wide_and_half_types),
        cmocka_unit_test(groups_of_lanes_meet_independently),
        cmocka_unit_test(votes_see_every_lane),
        cmocka_unit_test(lanes_that_do_not_exist_are_not_waited_for_and_give_poison),
        cmocka_unit_test(atomics_lose_no_update_in_global_and_shared_memory),
        cmocka_unit_test(the_last_block_sees_what_blocks_on_other_os_threads_wrote),
        cmocka_unit_test(bit_functions_have_the_known_values),
        cmocka_unit_test(conversions_round_as_the_formats_demand),
        cmocka_unit_test(mma_and_ldmatrix_agree_with_plain_loops),
        cmocka_unit_test(ldmatrix_gives_each_lane_its_elements),
        cmocka_unit_test(a_right_pipeline_is_right_lazy_and_eager_under_every_schedule),
#if !defined(EMU_TSAN)
        cmocka_unit_test(a_short_wait_gives_wrong_bytes_in_lazy_mode),
        cmocka_unit_test(a_missing_barrier_before_a_refill_gives_wrong_bytes_in_eager_mode),
#endif
        cmocka_unit_test(an_invalid_async_copy_fills_with_zeros_and_reads_nothing),
    };
    return cmocka_run_group_tests_name("emulator", tests, nullptr, nullptr);
}
