// 3x3 convolution for compute capability 9.0a that reads each pixel once for nine taps.
//
// Against conv2d_hopper.cu, which asks for its box of pixels anew for each tap: a box with a border of one pixel comes once for 64 channels, in
// rows of ten pixels, and a tap's left operand is the same memory some rows further on. Pixels are nine times less to load, which leaves
// the weights, N rows of 128 bytes a tap, in a ring that is deep enough to hide what lies between asking and having.
//
// Registers by ptxas 13.0: 60 to 129 a thread, none spilled. Shared memory: two boxes and the ring, and where a cluster shares a tile its sums in f32, up to 227 KiB.
// Measured on an H100, of 740 TFLOP/s: 192 channels at 64x64 take 6.9 microseconds where such layers follow each other, 53 % (cuDNN's fastest takes 15).
#include "conv2d_hopper.cuh"

constexpr int PITCH = 10 * 128;  // bytes from a row of pixels to the next: eight and the border

// A step is a row of three taps of 64 channels: the products of one tap take less than to wait for a barrier and to ask anew.
template <typename T, int GROUPS, int N, int STAGES> __device__ __forceinline__ void conv3x3_hopper(const Conv2dHopperParams& p) {
    constexpr int CONSUMERS = GROUPS * 128, IMAGES = 2, BOX = (8 * GROUPS + 2) * PITCH, IMAGE = (BOX + 1023) / 1024 * 1024;
    constexpr int TAP = N * 128, STAGE = 3 * TAP;
    using Own = Place<GROUPS * 64, N, CONSUMERS>;
    static_assert(GROUPS * 64 * Own::ROW * 4 <= IMAGES * IMAGE + STAGES * STAGE, "the sums take the place of the stages");
    extern __shared__ __align__(1024) unsigned char memory[];
    const uint32_t images = shared_address(memory), stages = images + IMAGES * IMAGE, barriers = stages + STAGES * STAGE;
    const uint32_t full = barriers, empty = full + STAGES * 8, image_full = empty + STAGES * 8, image_empty = image_full + IMAGES * 8;
    auto& behind = *reinterpret_cast<Behind<N, false>*>(memory + IMAGES * (IMAGE + 16) + STAGES * (STAGE + 16));
    const int tid = threadIdx.x, warp = __shfl_sync(0xffffffff, tid / 32, 0);
    const Own own(p);

    if (warp >= CONSUMERS / 32 && elect_one()) {
        if (warp > CONSUMERS / 32)
#pragma unroll
            for (int i = 0; i < IMAGES; i++) {
                mbarrier_init(image_full + i * 8, 1);
                mbarrier_init(image_empty + i * 8, GROUPS);
            }
        set_up<STAGES, GROUPS>(p, warp == CONSUMERS / 32, full, empty, shared_address(&behind.arrived), own.sent_bytes(p));
    }
    begin(p);

    // steps go through the rows of taps of 64 channels before the next 64
    const int first_chunk = own.first / 3, first_row = own.first % 3;
    const int x_chunks = (p.channels + 63) / 64;
    if (warp == CONSUMERS / 32) {
        if (elect_one()) {
            int chunk = first_chunk, row = first_row;
            for (int i = 0, slot = 0, parity = 1; i < own.count; i++) {
                // the first time round nothing is in the way
                mbarrier_wait(empty + slot * 8, parity);
                mbarrier_expect(full + slot * 8, STAGE);
                copy_box_3d(stages + slot * STAGE, &p.weight, Chunk(p, x_chunks, chunk).column, own.first_output, row * 3, full + slot * 8);
                if (++row == 3) row = 0, chunk++;
                if (++slot == STAGES) slot = 0, parity ^= 1;
            }
            prefetch_next<STAGES>(p, full, own.count - 1);
        }
        __syncwarp();
    } else if (warp > CONSUMERS / 32) {
        if (elect_one()) {
            const int last_chunk = (own.first + own.count - 1) / 3;
            wait_for_previous();
            for (int i = first_chunk, slot = 0, parity = 1; i <= last_chunk; i++) {
                mbarrier_wait(image_empty + slot * 8, parity);
                const Chunk chunk(p, x_chunks, i);
                mbarrier_expect(image_full + slot * 8, BOX);
                copy_box_4d(images + slot * IMAGE, chunk.in_x ? &p.x : &p.skip, chunk.channel, own.first_x - 1, own.first_y - 1, own.first_sample,
                            image_full + slot * 8);
                if (++slot == IMAGES) slot = 0, parity ^= 1;
            }
        }
        __syncwarp();
    } else {
        own.by_output(p, p.bias, behind.biases);
        wait_for_previous();
        const uint4 residual = own.template residual<T>(p, own.piece(p, tid));
        const int group = warp / 4;
        float sums[N / 2] = {};
        int at = 0, image_parity = 0, row = first_row;
        for (int i = 0, slot = 0, parity = 0; i < own.count; i++) {
            if (i == 0 || row == 0) mbarrier_wait(image_full + at * 8, image_parity);
            mbarrier_wait(full + slot * 8, parity);
            const uint64_t a = matrix_in_shared<PITCH>(images + at * IMAGE + (group * 8 + row) * PITCH), b = matrix_in_shared(stages + slot * STAGE);
            wgmma_fence();
#pragma unroll
            for (int tap = 0; tap < 3; tap++)
#pragma unroll
                for (int k = 0; k < 4; k++) wgmma<T, N>(sums, a + tap * (128 / 16) + 2 * k, b + tap * (TAP / 16) + 2 * k);
            wgmma_commit();
            if (i > 0) {
                // the products before these are done: their stage is free, and so is their image after its last row of taps
                wgmma_wait<1>();
                if (tid % 128 == 0) {
                    mbarrier_arrive(empty + before<STAGES>(slot) * 8);
                    if (row == 0) mbarrier_arrive(image_empty + (at ^ 1) * 8);
                }
            }
            if (++row == 3) {
                row = 0;
                if (++at == IMAGES) at = 0, image_parity ^= 1;
            }
            if (++slot == STAGES) slot = 0, parity ^= 1;
        }
        wgmma_wait<0>();
        conclude<T, false, N>(p, own, sums, memory, behind, residual);
    }
}

#define TILE(T, NAME, GROUPS, N, STAGES)                                                                                         \
    extern "C" __global__ void __launch_bounds__(GROUPS * 128 + 64)                                                              \
        mirage_conv3x3_hopper_##NAME##_##GROUPS##x##N##x##STAGES(const __grid_constant__ Conv2dHopperParams p) {                 \
        conv3x3_hopper<T, GROUPS, N, STAGES>(p);                                                                                 \
    }
// For most shapes a ring that leaves room for a second block on the processor where no cluster shares the tile, for some where one does, and for some one as deep as
// a block alone can have: it hides more of the time between asking and having where there are no more blocks than processors.
#define TILES(T, NAME)                                                                                                           \
    TILE(T, NAME, 1, 32, 6)                                                                                                      \
    TILE(T, NAME, 1, 48, 4)                                                                                                      \
    TILE(T, NAME, 1, 64, 2)                                                                                                      \
    TILE(T, NAME, 1, 64, 3)                                                                                                      \
    TILE(T, NAME, 1, 64, 6)                                                                                                      \
    TILE(T, NAME, 2, 32, 8)                                                                                                      \
    TILE(T, NAME, 2, 48, 5)                                                                                                      \
    TILE(T, NAME, 2, 64, 5)                                                                                                      \
    TILE(T, NAME, 2, 96, 3)                                                                                                      \
    TILE(T, NAME, 1, 96, 4)                                                                                                      \
    TILE(T, NAME, 1, 192, 2)                                                                                                     \
    TILE(T, NAME, 1, 96, 2)                                                                                                      \
    TILE(T, NAME, 2, 32, 4)                                                                                                      \
    TILE(T, NAME, 2, 48, 3)                                                                                                      \
    TILE(T, NAME, 2, 64, 2)                                                                                                      \
    TILE(T, NAME, 1, 32, 12)                                                                                                     \
    TILE(T, NAME, 1, 48, 9)
TILES(__half, f16)
TILES(__nv_bfloat16, bf16)
