/*
 * math_functions.h - device maths and bit operations that have no host version in the C library or in NVIDIA's headers.
 *
 * The fast functions (__expf, ...) are the exact ones here: nearer to the true value than the GPU's by a few units in
 * the last place, so a comparison between the two needs a tolerance. Conversions to f16, bf16 and fp8 are NVIDIA's own
 * and agree bit for bit. Packed arithmetic on __half2 and __nv_bfloat162 is not provided: kernels compute in float.
 *
 * glibc declares __expf and some more for itself, with another exception specification; hence macros for those.
 */
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace emu {

template <class To, class From> To same_bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "sizes differ");
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}

inline float reciprocal_square_root(float x) {
    return 1.0f / std::sqrt(x);
}

/* Rounds to nearest even and saturates; NaN becomes 0. */
inline int float_to_int(float x) {
    const float rounded = std::nearbyint(x);
    if (!(rounded >= -2147483648.0f)) {
        return std::isnan(x) ? 0 : INT32_MIN;
    }
    return rounded >= 2147483648.0f ? INT32_MAX : int(rounded);
}

template <class A, class B> constexpr bool both_integers = std::is_integral_v<A> && std::is_integral_v<B>;

}  // namespace emu

#define __expf(x) (::std::exp(float(x)))
#define __exp10f(x) (::std::pow(10.0f, float(x)))
#define __logf(x) (::std::log(float(x)))
#define __log2f(x) (::std::log2(float(x)))
#define __log10f(x) (::std::log10(float(x)))
#define __sinf(x) (::std::sin(float(x)))
#define __cosf(x) (::std::cos(float(x)))
#define __powf(x, y) (::std::pow(float(x), float(y)))
#define rsqrtf(x) (::emu::reciprocal_square_root(x))

/* min and max: for floating point, the operand that is not NaN, as fminf and fmaxf do. */
template <class A, class B> std::common_type_t<A, B> min(A a, B b) {
    using T = std::common_type_t<A, B>;
    if constexpr (emu::both_integers<A, B>) {
        return T(a) < T(b) ? T(a) : T(b);
    } else {
        return std::fmin(T(a), T(b));
    }
}

template <class A, class B> std::common_type_t<A, B> max(A a, B b) {
    using T = std::common_type_t<A, B>;
    if constexpr (emu::both_integers<A, B>) {
        return T(a) < T(b) ? T(b) : T(a);
    } else {
        return std::fmax(T(a), T(b));
    }
}

inline float __saturatef(float x) {
    return std::fmin(std::fmax(x, 0.0f), 1.0f);
}

/* One operation, rounded once. On a GPU they are never fused into a multiply-add; here that needs -ffp-contract=off. */
inline float __fadd_rn(float a, float b) {
    return a + b;
}

inline float __fsub_rn(float a, float b) {
    return a - b;
}

inline float __fmul_rn(float a, float b) {
    return a * b;
}

inline float __fdiv_rn(float a, float b) {
    return a / b;
}

inline float __fmaf_rn(float a, float b, float c) {
    return std::fma(a, b, c);
}

inline float __fsqrt_rn(float x) {
    return std::sqrt(x);
}

inline float __frcp_rn(float x) {
    return 1.0f / x;
}

inline float __fdividef(float a, float b) {
    return a / b;
}

inline int __float2int_rn(float x) {
    return emu::float_to_int(x);
}

inline float __int2float_rn(int x) {
    return float(x);
}

inline float __uint2float_rn(unsigned x) {
    return float(x);
}

inline unsigned __float_as_uint(float x) {
    return emu::same_bits<unsigned>(x);
}

inline int __float_as_int(float x) {
    return emu::same_bits<int>(x);
}

inline float __uint_as_float(unsigned x) {
    return emu::same_bits<float>(x);
}

inline float __int_as_float(int x) {
    return emu::same_bits<float>(x);
}

inline int __popc(unsigned x) {
    return __builtin_popcount(x);
}

inline int __popcll(unsigned long long x) {
    return __builtin_popcountll(x);
}

inline int __clz(int x) {
    return x == 0 ? 32 : __builtin_clz(unsigned(x));
}

inline int __clzll(long long x) {
    return x == 0 ? 64 : __builtin_clzll(static_cast<unsigned long long>(x));
}

inline int __ffs(int x) {
    return __builtin_ffs(x);
}

inline int __ffsll(long long x) {
    return __builtin_ffsll(x);
}

inline unsigned __brev(unsigned x) {
    unsigned reversed = 0;
    for (int i = 0; i < 32; i++) {
        reversed |= (x >> i & 1) << (31 - i);
    }
    return reversed;
}

inline unsigned __umulhi(unsigned a, unsigned b) {
    return unsigned(uint64_t(a) * b >> 32);
}

/* Upper or lower word of high:low shifted by shift modulo 32. */
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
    return unsigned(((uint64_t(high) << 32 | low) << (shift & 31)) >> 32);
}

inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
    return unsigned((uint64_t(high) << 32 | low) >> (shift & 31));
}

/* Four bytes picked from the eight of b:a; bit 3 of a selector replicates the picked byte's sign bit. */
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
    const uint64_t bytes = uint64_t(b) << 32 | a;
    unsigned result = 0;
    for (int i = 0; i < 4; i++) {
        const unsigned pick = selector >> (4 * i) & 15;
        const unsigned byte = unsigned(bytes >> (8 * (pick & 7))) & 255;
        const unsigned sign = (byte & 128) != 0 ? 255 : 0;
        result |= ((pick & 8) != 0 ? sign : byte) << (8 * i);
    }
    return result;
}
