// Changes of resolution, the sampler's update, the temporal blend, noise, both ends of a frame, and what brings channels side by side or pads
// heads: each value read once, computed in f32, rounded once.
#include "ptx.cuh"

struct ResampleParams {
    const void* x;  // (batch, height, width, channels)
    void* y;        // (batch, out_height, out_width, channels)
    int batch, height, width, channels;
};

enum Filter { MAX_POOL_2, BILINEAR_2, NEAREST_2 };

// A thread makes `V` channels of one output pixel.
template <typename T, int V, Filter FILTER> __device__ __forceinline__ void resample(const ResampleParams& p) {
    let_next_begin();
    wait_for_previous();
    const int out_height = FILTER == MAX_POOL_2 ? p.height / 2 : p.height * 2;
    const int out_width = FILTER == MAX_POOL_2 ? p.width / 2 : p.width * 2;
    const int columns = p.channels / V;
    const int64_t index = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (index >= static_cast<int64_t>(p.batch) * out_height * out_width * columns) return;
    const int column = index % columns;
    const int64_t pixel = index / columns;
    const int ox = pixel % out_width, oy = pixel / out_width % out_height;
    const int64_t sample = pixel / (static_cast<int64_t>(out_width) * out_height);
    const T* x = static_cast<const T*>(p.x) + sample * p.height * p.width * p.channels + column * V;
    auto at = [&](int y, int x0, float(&v)[V]) { load<T, V>(x + (static_cast<int64_t>(y) * p.width + x0) * p.channels, v); };
    float v[V];
    if constexpr (FILTER == NEAREST_2) {
        at(oy / 2, ox / 2, v);
    } else if constexpr (FILTER == MAX_POOL_2) {
        float other[V];
        at(2 * oy, 2 * ox, v);
#pragma unroll
        for (int i = 1; i < 4; i++) {
            at(2 * oy + i / 2, 2 * ox + i % 2, other);
#pragma unroll
            for (int c = 0; c < V; c++) v[c] = fmaxf(v[c], other[c]);
        }
    } else {
        // pixel centres at halves: an output lies a quarter from the nearer of two inputs; beyond the edge is the edge
        const int y0 = (oy - 1) >> 1, x0 = (ox - 1) >> 1;
        const float fy = oy % 2 ? 0.25f : 0.75f, fx = ox % 2 ? 0.25f : 0.75f;
        const int top = max(y0, 0), bottom = min(y0 + 1, p.height - 1);
        const int left = max(x0, 0), right = min(x0 + 1, p.width - 1);
        float a[V], b[V], c[V], d[V];
        at(top, left, a);
        at(top, right, b);
        at(bottom, left, c);
        at(bottom, right, d);
#pragma unroll
        for (int i = 0; i < V; i++)
            v[i] = (a[i] * (1.0f - fx) + b[i] * fx) * (1.0f - fy) + (c[i] * (1.0f - fx) + d[i] * fx) * fy;
    }
    store<T, V>(static_cast<T*>(p.y) + pixel * p.channels + column * V, v);
}

struct SamplerParams {
    const void* x;
    const void* output;
    const void* noise;  // or null
    void* y;
    int64_t count;
    float x0_from_x, x0_from_out, clip, next_from_x, next_from_out, next_from_x0, next_from_noise;
};

template <typename T> __device__ __forceinline__ void sampler_step(const SamplerParams& p) {
    let_next_begin();
    wait_for_previous();
    const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= p.count) return;
    const float x = widen(static_cast<const T*>(p.x)[i]), output = widen(static_cast<const T*>(p.output)[i]);
    float x0 = p.x0_from_x * x + p.x0_from_out * output;
    if (p.clip > 0.0f) x0 = fminf(fmaxf(x0, -p.clip), p.clip);
    float y = p.next_from_x * x + p.next_from_out * output + p.next_from_x0 * x0;
    if (p.noise != nullptr) y += p.next_from_noise * widen(static_cast<const T*>(p.noise)[i]);
    static_cast<T*>(p.y)[i] = rounded<T>(y);
}

struct BlendParams {
    const void* current;   // (batch, channels, pixels)
    const void* previous;  // likewise
    const void* map;       // (batch, pixels), or null where `alpha` holds everywhere
    void* y;
    int64_t count;
    int channels, pixels;
    float alpha;
};

template <typename T> __device__ __forceinline__ void temporal_blend(const BlendParams& p) {
    let_next_begin();
    wait_for_previous();
    const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= p.count) return;
    const float current = widen(static_cast<const T*>(p.current)[i]), previous = widen(static_cast<const T*>(p.previous)[i]);
    float alpha = p.alpha;
    if (p.map != nullptr) {
        const int64_t sample = i / (static_cast<int64_t>(p.channels) * p.pixels);
        alpha = widen(static_cast<const T*>(p.map)[sample * p.pixels + i % p.pixels]);
    }
    static_cast<T*>(p.y)[i] = rounded<T>(previous + alpha * (current - previous));
}

struct Rgb8Params {
    uint8_t* bytes;     // (pixels, 3)
    void* planes;       // (3, pixels): 0 as -1, 255 as 1
    uint32_t* invalid;  // set where a value is no number
    int pixels;
};

template <typename T> __device__ __forceinline__ void from_rgb8(const Rgb8Params& p) {
    let_next_begin();
    wait_for_previous();
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= p.pixels) return;
    T* planes = static_cast<T*>(p.planes);
#pragma unroll
    for (int c = 0; c < 3; c++)
        planes[static_cast<int64_t>(c) * p.pixels + i] = rounded<T>(fmaf(p.bytes[static_cast<int64_t>(i) * 3 + c], 1.0f / 127.5f, -1.0f));
}

template <typename T> __device__ __forceinline__ void to_rgb8(const Rgb8Params& p) {
    let_next_begin();
    wait_for_previous();
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= p.pixels) return;
    const T* planes = static_cast<const T*>(p.planes);
#pragma unroll
    for (int c = 0; c < 3; c++) {
        const float v = widen(planes[static_cast<int64_t>(c) * p.pixels + i]);
        if (v != v) *p.invalid = 1;
        // to the nearest, halves upwards, as on the host: no fused multiply and add
        const float level = __fadd_rn(__fmul_rn(v + 1.0f, 127.5f), 0.5f);
        p.bytes[static_cast<int64_t>(i) * 3 + c] = static_cast<uint8_t>(fminf(fmaxf(level, 0.0f), 255.0f));
    }
}

struct GaussianParams {
    void* y;
    uint32_t key[2], frame[2], number;  // as in src/ops/gaussian.rs
    int count;
};

// Standard Gaussian noise: Philox4x32-10 (Salmon et al., SC 2011) and Box and Muller's transform. A thread makes the four values of a counter.
template <typename T> __device__ __forceinline__ void gaussian(const GaussianParams& p) {
    let_next_begin();
    const uint32_t block = blockIdx.x * blockDim.x + threadIdx.x;
    uint32_t w[4] = {block, p.number, p.frame[0], p.frame[1]}, key[2] = {p.key[0], p.key[1]};
#pragma unroll
    for (int round = 0; round < 10; round++) {
        const uint32_t high = __umulhi(0xD2511F53u, w[0]), low = 0xD2511F53u * w[0];
        const uint32_t other_high = __umulhi(0xCD9E8D57u, w[2]), other_low = 0xCD9E8D57u * w[2];
        w[0] = other_high ^ w[1] ^ key[0], w[1] = other_low, w[2] = high ^ w[3] ^ key[1], w[3] = low;
        key[0] += 0x9E3779B9u, key[1] += 0xBB67AE85u;
    }
    constexpr float UNIT = 1.0f / 4294967296.0f;
    float values[4];
#pragma unroll
    for (int i = 0; i < 4; i += 2) {
        const float radius = sqrtf(-2.0f * logf((__uint2float_rn(w[i]) + 0.5f) * UNIT));
        sincospif(2.0f * (__uint2float_rn(w[i + 1]) * UNIT), &values[i + 1], &values[i]);
        values[i] *= radius, values[i + 1] *= radius;
    }
    wait_for_previous();
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int64_t at = static_cast<int64_t>(block) * 4 + i;
        if (at < p.count) static_cast<T*>(p.y)[at] = rounded<T>(values[i]);
    }
}

struct GatherParams {
    const void* x;     // (batch, channels, height, width) by strides
    const void* skip;  // (batch, skip_channels, height, width) by strides, or null
    void* y;           // (batch, height, width, padded_channels), contiguous
    int64_t count;     // groups of `VECTOR` channels of y
    int64_t x_strides[4], skip_strides[4];
    int height, width, padded_channels;  // of y
    int channels, skip_channels;
    int upsample;  // whether x has half the height and the width, and each of its pixels is read as four
};

// Channels of two pictures side by side, channels-last, zeros behind them.
template <typename T> __device__ __forceinline__ void gather(const GatherParams& p) {
    let_next_begin();
    wait_for_previous();
    const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= p.count) return;
    const int groups = p.padded_channels / VECTOR, first = i % groups * VECTOR;
    const int64_t pixel = i / groups, x = pixel % p.width, y = pixel / p.width % p.height, sample = pixel / p.width / p.height;
    auto start = [&](const void* from, const int64_t(&s)[4], int halved) {
        return static_cast<const T*>(from) + sample * s[0] + (y >> halved) * s[2] + (x >> halved) * s[3];
    };
    float v[VECTOR] = {};
#pragma unroll
    for (int c = 0; c < VECTOR; c++) {
        const int channel = first + c;
        if (channel < p.channels) v[c] = widen(start(p.x, p.x_strides, p.upsample)[channel * p.x_strides[1]]);
        else if (channel < p.channels + p.skip_channels) v[c] = widen(start(p.skip, p.skip_strides, 0)[(channel - p.channels) * p.skip_strides[1]]);
    }
    store8(static_cast<T*>(p.y) + i * VECTOR, v);
}

struct PadParams {
    const void* x;  // (batch, tokens, heads, head_dim) by strides, each head's values together
    void* y;        // (batch, tokens, heads, padded_dim), contiguous
    int64_t count;  // values of y
    int64_t batch_stride, token_stride, head_stride;
    int tokens, heads, head_dim, padded_dim;
};

// Zeros behind each head's values.
template <typename T> __device__ __forceinline__ void pad_heads(const PadParams& p) {
    let_next_begin();
    wait_for_previous();
    const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= p.count) return;
    const int d = i % p.padded_dim;
    int64_t rest = i / p.padded_dim;
    const int head = rest % p.heads;
    rest /= p.heads;
    const int64_t from = rest / p.tokens * p.batch_stride + rest % p.tokens * p.token_stride + head * p.head_stride + d;
    static_cast<T*>(p.y)[i] = d < p.head_dim ? static_cast<const T*>(p.x)[from] : rounded<T>(0.0f);
}

#define RESAMPLE(T, NAME, V, KIND)                                                                                                \
    extern "C" __global__ void mirage_max_pool_2_##NAME##KIND(const ResampleParams p) { resample<T, V, MAX_POOL_2>(p); }                 \
    extern "C" __global__ void mirage_bilinear_2_##NAME##KIND(const ResampleParams p) { resample<T, V, BILINEAR_2>(p); }                 \
    extern "C" __global__ void mirage_nearest_2_##NAME##KIND(const ResampleParams p) { resample<T, V, NEAREST_2>(p); }
#define ELEMENTWISE(T, NAME)                                                                                                      \
    RESAMPLE(T, NAME, VECTOR, )                                                                                                   \
    RESAMPLE(T, NAME, 1, _any)                                                                                                    \
    extern "C" __global__ void mirage_gather_##NAME(const GatherParams p) { gather<T>(p); }                                       \
    extern "C" __global__ void mirage_pad_heads_##NAME(const PadParams p) { pad_heads<T>(p); }                                           \
    extern "C" __global__ void mirage_sampler_step_##NAME(const SamplerParams p) { sampler_step<T>(p); }                                 \
    extern "C" __global__ void mirage_temporal_blend_##NAME(const BlendParams p) { temporal_blend<T>(p); }                              \
    extern "C" __global__ void mirage_gaussian_##NAME(const GaussianParams p) { gaussian<T>(p); }                                        \
    extern "C" __global__ void mirage_from_rgb8_##NAME(const Rgb8Params p) { from_rgb8<T>(p); }                                          \
    extern "C" __global__ void mirage_to_rgb8_##NAME(const Rgb8Params p) { to_rgb8<T>(p); }
ELEMENTWISE(__half, f16)
ELEMENTWISE(__nv_bfloat16, bf16)
