// Convolution and linear layers for compute capability 9.0a: the implicit matrix product of conv2d.cu by other means.
//
// One thread asks for whole boxes of 64 channels of a patch of pixels, shifted by the tap, with zeros where the picture ends, and another for the same 64
// columns of the weights. A ring of stages with two barriers each connects it to the warp groups, whose products read both operands from
// shared memory. Where there are too few tiles, the inner dimension is split over the blocks of a cluster.
//
// Registers by ptxas 13.0: 61 to 130 a thread, none spilled. Shared memory: the stages, each (pixels + outputs) · 128 + 16 bytes, and where a cluster shares a
// tile its sums in f32, so that one block or two fill a processor's 227 KiB. Measured on an H100 in their places in the reference network: layers of few bytes take 2 to 8
// microseconds, which is latency, and four with many pixels up to 11; the shares of the bandwidth of the others stand in conv2d_narrow_hopper.cu.
#include "conv2d_hopper.cuh"

template <typename T, int GROUPS, int N, int STAGES> __device__ __forceinline__ void conv2d_hopper(const Conv2dHopperParams& p) {
    constexpr int CONSUMERS = GROUPS * 128, PIXELS = GROUPS * 64 * 128, STAGE = PIXELS + N * 128;
    using Own = Place<GROUPS * 64, N, CONSUMERS>;
    static_assert(GROUPS * 64 * Own::ROW * 4 <= STAGES * STAGE, "the sums take the place of the stages");
    extern __shared__ __align__(1024) unsigned char memory[];
    const uint32_t stages = shared_address(memory), full = stages + STAGES * STAGE, empty = full + STAGES * 8;
    auto& behind = *reinterpret_cast<Behind<N, false>*>(memory + STAGES * (STAGE + 16));
    const int tid = threadIdx.x, warp = __shfl_sync(0xffffffff, tid / 32, 0);
    const Own own(p);

    if (warp >= CONSUMERS / 32 && elect_one())
        set_up<STAGES, GROUPS>(p, warp == CONSUMERS / 32, full, empty, shared_address(&behind.arrived), own.sent_bytes(p));
    begin(p);

    if (warp == CONSUMERS / 32) {
        if (elect_one()) ask_for_weights<STAGES, 1, PIXELS, STAGE>(p, own, stages, full, empty);
        __syncwarp();
    } else if (warp > CONSUMERS / 32) {
        if (elect_one()) ask_for_pixels<STAGES, 1, STAGE>(p, own, stages, full, empty);
        __syncwarp();
    } else {
        own.by_output(p, p.bias, behind.biases);
        wait_for_previous();
        const uint4 residual = own.template residual<T>(p, own.piece(p, tid));
        const int group = warp / 4;
        float sums[N / 2] = {};
        for (int i = 0, slot = 0, parity = 0; i < own.count; i++) {
            mbarrier_wait(full + slot * 8, parity);
            const uint64_t a = matrix_in_shared(stages + slot * STAGE + group * 64 * 128), b = matrix_in_shared(stages + slot * STAGE + PIXELS);
            wgmma_fence();
#pragma unroll
            for (int k = 0; k < 4; k++) wgmma<T, N>(sums, a + 2 * k, b + 2 * k);
            wgmma_commit();
            if (i > 0) {
                // the products before these are done: their stage is free
                wgmma_wait<1>();
                if (tid % 128 == 0) mbarrier_arrive(empty + before<STAGES>(slot) * 8);
            }
            if (++slot == STAGES) slot = 0, parity ^= 1;
        }
        wgmma_wait<0>();
        conclude<T, false, N>(p, own, sums, memory, behind, residual);
    }
}

#define TILE(T, NAME, GROUPS, N, STAGES)                                                                                         \
    extern "C" __global__ void __launch_bounds__(GROUPS * 128 + 64)                                                              \
        mirage_conv2d_hopper_##NAME##_##GROUPS##x##N##x##STAGES(const __grid_constant__ Conv2dHopperParams p) {                  \
        conv2d_hopper<T, GROUPS, N, STAGES>(p);                                                                                  \
    }
// For most shapes a ring that leaves room for a second block on the processor where no cluster shares the tile, for some where one does, and for some one as deep as
// a block alone can have: it hides more of the time between asking and having where there are no more blocks than processors.
#define TILES(T, NAME)                                                                                                           \
    TILE(T, NAME, 1, 32, 8)                                                                                                      \
    TILE(T, NAME, 1, 64, 5)                                                                                                      \
    TILE(T, NAME, 1, 64, 6)                                                                                                      \
    TILE(T, NAME, 1, 96, 4)                                                                                                      \
    TILE(T, NAME, 1, 96, 5)                                                                                                      \
    TILE(T, NAME, 2, 64, 4)                                                                                                      \
    TILE(T, NAME, 2, 96, 3)                                                                                                      \
    TILE(T, NAME, 2, 128, 3)                                                                                                     \
    TILE(T, NAME, 2, 192, 4)                                                                                                     \
    TILE(T, NAME, 1, 32, 16)                                                                                                     \
    TILE(T, NAME, 1, 64, 12)                                                                                                     \
    TILE(T, NAME, 2, 64, 7)                                                                                                      \
    TILE(T, NAME, 2, 128, 4)                                                                                                     \
    TILE(T, NAME, 2, 128, 6)
TILES(__half, f16)
TILES(__nv_bfloat16, bf16)
