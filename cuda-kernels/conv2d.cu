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

// The epilogue as a pass of its own, for the rung that does not fuse it: y = act(sums · scale + bias + shift) + residual.
template <typename T> __device__ __forceinline__ void epilogue(const EpilogueParams& p) {
    let_next_begin();
    wait_for_previous();
    const bool geglu = p.activation == ACTIVATION_GEGLU;
    const int width = geglu ? p.outputs / 2 : p.outputs;
    const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= static_cast<int64_t>(p.pixels) * width) return;
    const int64_t pixel = i / width;
    const int output = i - pixel * width;
    auto sum = [&](int o) {
        float v = p.sums[pixel * p.outputs + o];
        if (p.scale != nullptr) v *= p.scale[o];
        return p.bias != nullptr ? v + p.bias[o] : v;
    };
    float v;
    if (geglu) {
        v = sum(2 * output) * gelu(sum(2 * output + 1));
    } else {
        v = sum(output);
        if (p.shift != nullptr) v += widen(static_cast<const T*>(p.shift)[pixel / p.pixels_per_sample * width + output]);
        v = activate(v, p.activation);
        if (p.residual != nullptr) v += widen(static_cast<const T*>(p.residual)[i]);
    }
    static_cast<T*>(p.y)[i] = rounded<T>(v);
}
extern "C" __global__ void mirage_epilogue_f16(const EpilogueParams p) { epilogue<__half>(p); }
extern "C" __global__ void mirage_epilogue_bf16(const EpilogueParams p) { epilogue<__nv_bfloat16>(p); }
