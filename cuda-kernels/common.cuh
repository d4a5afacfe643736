// What every kernel shares: how a storage type turns into f32 and back, and eight of them at a time.
//
// Activations are channels-last: (batch, height, width, channels) in memory. Every sum is in f32.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>

// Values in the 16 bytes that a thread moves at a time.
constexpr int VECTOR = 8;

__host__ __device__ constexpr int power_of_two_within(int n) { return n < 2 ? 1 : 2 * power_of_two_within(n / 2); }

template <typename T> struct Pair;
template <> struct Pair<__half> {
    using Type = __half2;
    static __device__ __forceinline__ float2 widen(__half2 v) { return __half22float2(v); }
    static __device__ __forceinline__ __half2 round(float a, float b) { return __floats2half2_rn(a, b); }
};
template <> struct Pair<__nv_bfloat16> {
    using Type = __nv_bfloat162;
    static __device__ __forceinline__ float2 widen(__nv_bfloat162 v) { return __bfloat1622float2(v); }
    static __device__ __forceinline__ __nv_bfloat162 round(float a, float b) { return __floats2bfloat162_rn(a, b); }
};

// Two values as one word, each rounded once.
template <typename T> __device__ __forceinline__ uint32_t packed(float a, float b) {
    const typename Pair<T>::Type pair = Pair<T>::round(a, b);
    uint32_t bits;
    memcpy(&bits, &pair, 4);
    return bits;
}

__device__ __forceinline__ float widen(__half v) { return __half2float(v); }
__device__ __forceinline__ float widen(__nv_bfloat16 v) { return __bfloat162float(v); }
__device__ __forceinline__ float widen(float v) { return v; }

template <typename T> __device__ __forceinline__ T rounded(float v);
template <> __device__ __forceinline__ __half rounded<__half>(float v) { return __float2half_rn(v); }
template <> __device__ __forceinline__ __nv_bfloat16 rounded<__nv_bfloat16>(float v) { return __float2bfloat16_rn(v); }
template <> __device__ __forceinline__ float rounded<float>(float v) { return v; }

// Eight values that were fetched as 16 bytes.
template <typename T> __device__ __forceinline__ void widen8(const uint4& bits, float (&v)[VECTOR]) {
    const uint32_t words[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        typename Pair<T>::Type pair;
        memcpy(&pair, &words[i], 4);
        const float2 wide = Pair<T>::widen(pair);
        v[2 * i] = wide.x;
        v[2 * i + 1] = wide.y;
    }
}

// Eight values from a 16-byte boundary.
template <typename T> __device__ __forceinline__ void load8(const T* from, float (&v)[VECTOR]) {
    widen8<T>(*reinterpret_cast<const uint4*>(from), v);
}

// Eight values to a 16-byte boundary, each rounded once.
template <typename T> __device__ __forceinline__ void store8(T* to, const float (&v)[VECTOR]) {
    uint32_t words[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const typename Pair<T>::Type pair = Pair<T>::round(v[2 * i], v[2 * i + 1]);
        memcpy(&words[i], &pair, 4);
    }
    *reinterpret_cast<uint4*>(to) = make_uint4(words[0], words[1], words[2], words[3]);
}

// `V` values, eight by 16 bytes or one by one.
template <typename T, int V> __device__ __forceinline__ void load(const T* from, float (&v)[V]) {
    if constexpr (V == VECTOR) load8(from, v);
    else v[0] = widen(*from);
}
template <typename T, int V> __device__ __forceinline__ void store(T* to, const float (&v)[V]) {
    if constexpr (V == VECTOR) store8(to, v);
    else *to = rounded<T>(v[0]);
}

// Division by a number that the host knows: a product and a shift (Granlund and Montgomery 1994). For dividends below 2^31.
struct Divisor {
    unsigned value, factor, shift;
    __device__ __forceinline__ int quotient(int n) const { return value == 1 ? n : static_cast<int>(__umulhi(n, factor) >> shift); }
};

enum Activation { ACTIVATION_NONE = 0, ACTIVATION_SILU = 1, ACTIVATION_GELU = 2, ACTIVATION_GEGLU = 3 };

__device__ __forceinline__ float silu(float x) { return __fdividef(x, 1.0f + __expf(-x)); }
// x times the normal distribution function at x, which is 1/2 + x·q(x²), cut to [0, 1]. q is the polynomial whose largest error in that function, up to |x| = 4.4, is least
// (by Lawson's algorithm, 1961): 1.3e-5, and 1.8e-5 in f32, where f16 rounds a result by up to 4.9e-4 of it. 12 instructions, where erff makes it 30: a layer of 4096 tokens and 768
// outputs works out three million.
__device__ __forceinline__ float gelu(float x) {
    const float u = fminf(x * x, 4.4f * 4.4f);
    float q = 4.434751e-11f;
    q = fmaf(q, u, -4.493753e-9f);
    q = fmaf(q, u, 2.0033519e-7f);
    q = fmaf(q, u, -5.22472e-6f);
    q = fmaf(q, u, 8.980046e-5f);
    q = fmaf(q, u, -1.0902436e-3f);
    q = fmaf(q, u, 9.767354e-3f);
    q = fmaf(q, u, -6.628739e-2f);
    q = fmaf(q, u, 0.39888313f);
    return x * __saturatef(fmaf(x, q, 0.5f));
}

__device__ __forceinline__ float activate(float x, int activation) {
    if (activation == ACTIVATION_SILU) return silu(x);
    if (activation == ACTIVATION_GELU) return gelu(x);
    return x;
}

// Eight at a time, with one question for all: what is not asked for is not fetched as code either.
__device__ __forceinline__ void activate8(float (&v)[VECTOR], int activation) {
    if (activation == ACTIVATION_SILU) {
#pragma unroll
        for (int i = 0; i < VECTOR; i++) v[i] = silu(v[i]);
    } else if (activation == ACTIVATION_GELU) {
#pragma unroll
        for (int i = 0; i < VECTOR; i++) v[i] = gelu(v[i]);
    }
}

// The sums of eight outputs of one pixel and what follows them in a convolution or linear layer, rounded once; bias and residual were fetched before,
// so that nothing waits here.
template <typename T, typename Params>
__device__ __forceinline__ void finish8(const Params& p, int64_t pixel, int sample, int output, float (&v)[VECTOR],
                                        const float* bias, const uint4& residual) {
#pragma unroll
    for (int i = 0; i < VECTOR; i++) v[i] += bias[i];
    if (p.activation == ACTIVATION_GEGLU) {
        // weights are interleaved: hidden, gate, hidden, gate
        const typename Pair<T>::Type pairs[2] = {Pair<T>::round(v[0] * gelu(v[1]), v[2] * gelu(v[3])),
                                                 Pair<T>::round(v[4] * gelu(v[5]), v[6] * gelu(v[7]))};
        uint2 bits;
        memcpy(&bits, pairs, 8);
        *reinterpret_cast<uint2*>(static_cast<T*>(p.y) + pixel * (p.outputs / 2) + output / 2) = bits;
        return;
    }
    float more[VECTOR];
    if (p.shift != nullptr) {
        load8(static_cast<const T*>(p.shift) + static_cast<int64_t>(sample) * p.outputs + output, more);
#pragma unroll
        for (int i = 0; i < VECTOR; i++) v[i] += more[i];
    }
    activate8(v, p.activation);
    if (p.residual != nullptr) {
        widen8<T>(residual, more);
#pragma unroll
        for (int i = 0; i < VECTOR; i++) v[i] += more[i];
    }
    store8(static_cast<T*>(p.y) + pixel * p.outputs + output, v);
}
