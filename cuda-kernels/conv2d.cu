// Convolution and linear layers on tensor cores, weights and activations of one type: see conv2d.cuh. And their epilogue alone.
#include "conv2d.cuh"

#define TILES(T, NAME)                                                                                                            \
    TILE(T, T, NAME, 128, 128, 64, 32, 1, 3)                                                                                      \
    TILE(T, T, NAME, 128, 64, 64, 64, 2, 4)                                                                                       \
    TILE(T, T, NAME, 64, 64, 64, 64, 4, 4)                                                                                        \
    TILE(T, T, NAME, 64, 32, 64, 32, 4, 4)                                                                                        \
    TILE(T, T, NAME, 128, 16, 64, 16, 2, 5)
TILES(__half, conv2d_f16)
TILES(__nv_bfloat16, conv2d_bf16)

struct EpilogueParams {
    const float* sums;   // (pixels, outputs)
    const float* scale;  // (outputs), or null
    const float* bias;   // (outputs), or null
    const void* shift;
    const void* residual;
    void* y;
    int pixels, outputs, pixels_per_sample, activation;
};

// The epilogue as a pass of its own, for the rung that does not fuse it: y = act(sums · scale + bias + shift) + residual. A thread has eight sums
// of a pixel, of which there are fewer than 2^32.
template <typename T> __device__ __forceinline__ void epilogue(const EpilogueParams& p) {
    let_next_begin();
    wait_for_previous();
    const unsigned columns = p.outputs / VECTOR, i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= columns * p.pixels) return;
    const unsigned pixel = i / columns, output = (i - pixel * columns) * VECTOR;
    auto load_wide = [](const float* from, float(&to)[VECTOR]) {
#pragma unroll
        for (int c = 0; c < VECTOR; c += 4) *reinterpret_cast<float4*>(to + c) = *reinterpret_cast<const float4*>(from + c);
    };
    alignas(16) float v[VECTOR], more[VECTOR];
    load_wide(p.sums + static_cast<int64_t>(i) * VECTOR, v);
    if (p.scale != nullptr) {
        load_wide(p.scale + output, more);
#pragma unroll
        for (int c = 0; c < VECTOR; c++) v[c] *= more[c];
    }
    if (p.bias != nullptr) {
        load_wide(p.bias + output, more);
#pragma unroll
        for (int c = 0; c < VECTOR; c++) v[c] += more[c];
    }
    if (p.activation == ACTIVATION_GEGLU) {
        T* y = static_cast<T*>(p.y) + static_cast<int64_t>(i) * (VECTOR / 2);
#pragma unroll
        for (int c = 0; c < VECTOR; c += 2) y[c / 2] = rounded<T>(v[c] * gelu(v[c + 1]));
        return;
    }
    if (p.shift != nullptr) {
        load8(static_cast<const T*>(p.shift) + static_cast<int64_t>(pixel / p.pixels_per_sample) * p.outputs + output, more);
#pragma unroll
        for (int c = 0; c < VECTOR; c++) v[c] += more[c];
    }
    activate8(v, p.activation);
    if (p.residual != nullptr) {
        load8(static_cast<const T*>(p.residual) + static_cast<int64_t>(i) * VECTOR, more);
#pragma unroll
        for (int c = 0; c < VECTOR; c++) v[c] += more[c];
    }
    store8(static_cast<T*>(p.y) + static_cast<int64_t>(i) * VECTOR, v);
}
extern "C" __global__ void mirage_epilogue_f16(const EpilogueParams p) { epilogue<__half>(p); }
extern "C" __global__ void mirage_epilogue_bf16(const EpilogueParams p) { epilogue<__nv_bfloat16>(p); }
