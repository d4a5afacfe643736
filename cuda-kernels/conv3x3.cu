// 3x3 convolution on tensor cores that reads each pixel once for nine taps: see conv2d.cuh.
#include "conv2d.cuh"

#define TILES(T, NAME)                                                                                                            \
    TILE(T, T, NAME, 128, 128, 64, 32, 1, 3, true)                                                                                \
    TILE(T, T, NAME, 128, 64, 64, 64, 2, 4, true)                                                                                 \
    TILE(T, T, NAME, 64, 64, 64, 64, 4, 6, true)                                                                                  \
    TILE(T, T, NAME, 64, 32, 64, 32, 4, 6, true)
TILES(__half, conv3x3_f16)
TILES(__nv_bfloat16, conv3x3_bf16)
