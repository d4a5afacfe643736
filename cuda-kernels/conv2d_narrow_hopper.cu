// Convolution and linear layers of few pixels for compute capability 9.0a: weights are the left operand.
//
// Against conv2d_hopper.cu, whose tiles are 64 pixels high whether a picture has so many or not: here 64 rows are outputs, of which there are
// always enough, and a tile is as narrow as 16 pixels. At 4x4 pixels a stage is weights to four fifths and not to a half or less, so that
// more of them are on their way at a time, which is what such layers wait for. A box of pixels goes on into the next samples: five calls of a network
// worked out together are one tile of 80 pixels, and weights come once.
//
// Weights may have eight bits (e4m3): they are widened, exactly, between shared memory and the registers from which the left operand comes, and the
// sums are multiplied by the output's scale. Then a stage is smaller, and the ring has more of them.
//
// Registers by ptxas 13.0: 60 to 100 a thread, none spilled. Shared memory: the stages of two steps, each outputs · 128 (64 with eight bits) + pixels · 128
// bytes, and where a cluster shares a tile its sums in f32, so that one block or two fill a processor's 227 KiB. Measured on an H100 in their places in the reference
// network, of the copy bandwidth and less the events that measure: layers of 170 MB of weights 99 to 100 %, of 57 to 85 MB 87 to 95, of 42 MB 80 to 91, of 20 MB 70 to 95.
#include "conv2d_hopper.cuh"
#include <type_traits>

// Steps of a stage, whose weights in eight bits are widened at a time; in 16 bits one would do as well.
constexpr int TOGETHER = 2;

template <typename T, typename W, int GROUPS, int N, int STAGES> __device__ __forceinline__ void conv2d_narrow_hopper(const Conv2dHopperParams& p) {
    constexpr int CONSUMERS = GROUPS * 128, OUTPUTS = GROUPS * 64;
    constexpr bool EIGHT_BITS = sizeof(W) == 1;
    constexpr int ROW = 64 * sizeof(W), PIXELS = N * 128, STEP = PIXELS + OUTPUTS * ROW, STAGE = TOGETHER * STEP;
    using Own = Place<N, OUTPUTS, CONSUMERS>;
    static_assert(N * Own::ROW * 4 <= STAGES * STAGE, "the sums take the place of the stages");
    extern __shared__ __align__(1024) unsigned char memory[];
    const uint32_t stages = shared_address(memory), full = stages + STAGES * STAGE, empty = full + STAGES * 8;
    auto& behind = *reinterpret_cast<Behind<OUTPUTS, EIGHT_BITS>*>(memory + STAGES * (STAGE + 16));
    const int tid = threadIdx.x, warp = __shfl_sync(0xffffffff, tid / 32, 0), lane = tid % 32;
    const Own own(p);

    if (warp >= CONSUMERS / 32 && elect_one())
        set_up<STAGES, GROUPS * 4>(p, warp == CONSUMERS / 32, full, empty, shared_address(&behind.arrived), own.sent_bytes(p));
    begin(p);

    if (warp == CONSUMERS / 32) {
        if (elect_one()) ask_for_weights<STAGES, TOGETHER, PIXELS, STEP>(p, own, stages, full, empty);
        __syncwarp();
    } else if (warp > CONSUMERS / 32) {
        if (elect_one()) ask_for_pixels<STAGES, TOGETHER, STEP>(p, own, stages, full, empty);
        __syncwarp();
    } else {
        own.by_output(p, p.bias, behind.biases);
        if constexpr (EIGHT_BITS) own.by_output(p, p.scale, behind.scales);
        wait_for_previous();
        const uint4 residual = own.template residual<T>(p, own.piece(p, tid));
        const int group = warp / 4;
        // of the 16 rows that a warp has, the one of which a lane gives ldmatrix the address: rows 0 to 15 of 16 steps, and again of the next 16
        const int row = group * 64 + warp % 4 * 16 + lane % 16, column = lane / 16;
        float sums[N / 2] = {};
        // the products of a stage, as one group: a question between them would be a wait
        auto multiply = [&](auto steps, int slot) {
            constexpr int STEPS = decltype(steps)::value;
            const uint64_t pixels = matrix_in_shared(stages + slot * STAGE);
            if constexpr (EIGHT_BITS) {
                uint32_t left[STEPS][4][4];
#pragma unroll
                for (int step = 0; step < STEPS; step++)
#pragma unroll
                    for (int k = 0; k < 2; k++) {
                        uint32_t four[4];
                        ldmatrix_x4(four, memory + slot * STAGE + step * STEP + PIXELS + swizzled_e4m3(row, 2 * k + column));
#pragma unroll
                        for (int half = 0; half < 2; half++) {
                            uint32_t(&a)[4] = left[step][2 * k + half];
                            widen_e4m3<T>(four[2 * half], a[0], a[2]);
                            widen_e4m3<T>(four[2 * half + 1], a[1], a[3]);
                        }
                    }
                wgmma_fence();
#pragma unroll
                for (int k = 0; k < 4 * STEPS; k++) wgmma<T, N>(sums, left[k / 4][k % 4], pixels + k / 4 * (STEP / 16) + 2 * (k % 4));
                wgmma_commit();
                // its registers are read: other warps multiply while this one widens
                wgmma_wait<0>();
            } else {
                const uint64_t weights = matrix_in_shared(stages + slot * STAGE + PIXELS + group * 64 * ROW);
                wgmma_fence();
#pragma unroll
                for (int k = 0; k < 4 * STEPS; k++) {
                    const int at = k / 4 * (STEP / 16) + 2 * (k % 4);
                    wgmma<T, N>(sums, weights + at, pixels + at);
                }
                wgmma_commit();
            }
        };
        for (int i = 0, slot = 0, parity = 0; i < own.count; i += TOGETHER) {
            mbarrier_wait(full + slot * 8, parity);
            if (own.count - i >= TOGETHER) multiply(std::integral_constant<int, TOGETHER>{}, slot);
            else multiply(std::integral_constant<int, 1>{}, slot);
            if constexpr (EIGHT_BITS) {
                if (lane == 0) mbarrier_arrive(empty + slot * 8);
            } else if (i > 0) {
                // the products before these are done: their stage is free
                wgmma_wait<1>();
                if (lane == 0) mbarrier_arrive(empty + before<STAGES>(slot) * 8);
            }
            if (++slot == STAGES) slot = 0, parity ^= 1;
        }
        wgmma_wait<0>();
        conclude<T, true, N>(p, own, sums, memory, behind, residual);
    }
}

#define TILE(T, W, NAME, GROUPS, N, STAGES)                                                                                      \
    extern "C" __global__ void __launch_bounds__(GROUPS * 128 + 64)                                                              \
        mirage_conv2d_narrow_hopper_##NAME##_##GROUPS##x##N##x##STAGES(const __grid_constant__ Conv2dHopperParams p) {           \
        conv2d_narrow_hopper<T, W, GROUPS, N, STAGES>(p);                                                                        \
    }
// For most shapes a ring that leaves room for a second block on the processor where no cluster shares the tile, for some where one does, and for some one as deep as
// a block alone can have: it hides more of the time between asking and having where there are no more blocks than processors.
#define TILES(T, NAME)                                                                                                           \
    TILE(T, T, NAME, 1, 16, 5)                                                                                                   \
    TILE(T, T, NAME, 1, 16, 10)                                                                                                  \
    TILE(T, T, NAME, 2, 16, 3)                                                                                                   \
    TILE(T, T, NAME, 2, 16, 6)                                                                                                   \
    TILE(T, T, NAME, 1, 32, 4)                                                                                                   \
    TILE(T, T, NAME, 1, 32, 8)                                                                                                   \
    TILE(T, T, NAME, 2, 32, 2)                                                                                                   \
    TILE(T, T, NAME, 2, 32, 5)                                                                                                   \
    TILE(T, T, NAME, 1, 64, 3)                                                                                                   \
    TILE(T, T, NAME, 1, 64, 6)                                                                                                   \
    TILE(T, T, NAME, 2, 64, 2)                                                                                                   \
    TILE(T, T, NAME, 2, 64, 4)                                                                                                   \
    TILE(T, T, NAME, 1, 80, 3)                                                                                                   \
    TILE(T, T, NAME, 1, 80, 5)                                                                                                   \
    TILE(T, T, NAME, 2, 80, 2)                                                                                                   \
    TILE(T, T, NAME, 2, 80, 3)                                                                                                   \
    TILE(T, E4m3, fp8_##NAME, 1, 16, 8)                                                                                          \
    TILE(T, E4m3, fp8_##NAME, 1, 16, 17)                                                                                         \
    TILE(T, E4m3, fp8_##NAME, 2, 16, 5)                                                                                          \
    TILE(T, E4m3, fp8_##NAME, 2, 16, 10)                                                                                         \
    TILE(T, E4m3, fp8_##NAME, 1, 32, 6)                                                                                          \
    TILE(T, E4m3, fp8_##NAME, 2, 32, 3)                                                                                          \
    TILE(T, E4m3, fp8_##NAME, 2, 32, 8)                                                                                          \
    TILE(T, E4m3, fp8_##NAME, 1, 64, 3)                                                                                          \
    TILE(T, E4m3, fp8_##NAME, 2, 64, 2)                                                                                          \
    TILE(T, E4m3, fp8_##NAME, 2, 64, 5)                                                                                          \
    TILE(T, E4m3, fp8_##NAME, 1, 80, 3)                                                                                          \
    TILE(T, E4m3, fp8_##NAME, 1, 80, 6)                                                                                          \
    TILE(T, E4m3, fp8_##NAME, 2, 80, 5)
TILES(__half, f16)
TILES(__nv_bfloat16, bf16)
