// Convolution and linear layers with weights in eight bits (e4m3), activations in half precision: see conv2d.cuh. A layer that waits for
// its weights waits half as long.
//
// What comes from shared memory is widened to the activations' type, exactly, so that the products are those of 16-bit weights, and the
// sums are multiplied by the output's scale once. In a stage there is room for more of such weights than of others: more stages hide
// more of the memory's latency. Conversion from e4m3 is an instruction from compute capability 8.9 on; these are built for 9.0.
//
// Registers by ptxas 13.0: 95 to 231 a thread, none spilled. Shared memory: up to 113 KiB, so that a processor holds two blocks. On compute
// capability 9.0, the only one that it is built for, it has the layers that conv2d_narrow_hopper.cu cannot take, and those that it was measured to be faster for.
#include "conv2d.cuh"

#define TILES(T, NAME)                                                                                                            \
    TILE(T, E4m3, NAME, 128, 128, 64, 32, 1, 4)                                                                                   \
    TILE(T, E4m3, NAME, 128, 64, 64, 64, 2, 6)                                                                                    \
    TILE(T, E4m3, NAME, 64, 64, 64, 64, 4, 6)                                                                                     \
    TILE(T, E4m3, NAME, 64, 32, 64, 32, 4, 6)                                                                                     \
    TILE(T, E4m3, NAME, 128, 16, 64, 16, 2, 8)
TILES(__half, conv2d_fp8_f16)
TILES(__nv_bfloat16, conv2d_fp8_bf16)
