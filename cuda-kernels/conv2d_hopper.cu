// Convolution and linear layers for compute capability 9.0a: the implicit matrix product of conv2d.cu by other means.
//
// One thread asks for whole boxes: 64 channels of a patch of pixels, shifted by the tap, with zeros where the picture ends, and the same 64
// columns of the weights. A ring of stages with two barriers each connects it to the warp groups, whose products read both operands from
// shared memory. Where there are too few tiles, the inner dimension is split over the blocks of a cluster.
//
// Registers by ptxas 13.0: 56 to 122 a thread, none spilled. Shared memory: the stages, each (pixels + outputs) · 128 + 16 bytes, so that one block or two fill a
// processor's 227 KiB. Measured on an H100 in their places in the reference network, of the copy bandwidth: layers of 170 MB of weights 85 %, of 85 MB 73, of 42 MB 57
// to 64, of 20 MB 43; layers of few bytes take 6 to 12 microseconds, which is latency.
#include "conv2d_hopper.cuh"

template <typename T, int GROUPS, int N, int STAGES> __device__ __forceinline__ void conv2d_hopper(const Conv2dHopperParams& p) {
    using Own = Place<GROUPS, N>;
    constexpr int CONSUMERS = Own::CONSUMERS, PIXELS = Own::PIXELS * 128, STAGE = PIXELS + N * 128;
    static_assert(Own::PIXELS * Own::ROW * 4 <= STAGES * STAGE, "the sums take the place of the stages");
    extern __shared__ __align__(1024) unsigned char memory[];
    const uint32_t stages = shared_address(memory), full = stages + STAGES * STAGE, empty = full + STAGES * 8;
    float* biases = reinterpret_cast<float*>(memory + STAGES * (STAGE + 16));
    const int tid = threadIdx.x, warp = tid / 32;
    const Own own(p);
    uint4 residual{};

    if (tid == CONSUMERS) {
        prefetch_map(&p.x);
        prefetch_map(&p.weight);
        for (int i = 0; i < STAGES; i++) {
            mbarrier_init(full + i * 8, 1);
            mbarrier_init(empty + i * 8, GROUPS);
        }
        mbarrier_init_fence();
    }
    __syncthreads();

    if (warp == CONSUMERS / 32) {
        if (tid == CONSUMERS) {
            const int x_chunks = (p.channels + 63) / 64, per_tap = x_chunks + (p.skip_channels + 63) / 64;
            struct Chunk {
                int tap, at;
            };
            auto step = [&](Chunk& c) {
                if (++c.at == per_tap) c.at = 0, c.tap++;
            };
            // behind the last channel of a tap come the next tap's weights, and zeros for pixels
            auto weights = [&](const Chunk& c, int slot) {
                const int channel = c.at < x_chunks ? c.at * 64 : p.channels + (c.at - x_chunks) * 64;
                copy_box_2d(stages + slot * STAGE + PIXELS, &p.weight, c.tap * (p.channels + p.skip_channels) + channel, own.first_output, full + slot * 8);
            };
            auto pixels = [&](const Chunk& c, int slot) {
                const bool in_x = c.at < x_chunks;
                const int ky = c.tap / p.kernel, kx = c.tap - ky * p.kernel;
                copy_box_4d(stages + slot * STAGE, in_x ? &p.x : &p.skip, (in_x ? c.at : c.at - x_chunks) * 64, own.first_x + kx - p.padding,
                            own.first_y + ky - p.padding, own.sample, full + slot * 8);
            };
            const int ahead = min(STAGES, own.count);
            // no kernel writes weights: they need not wait for the kernel ahead
            const Chunk start{own.first / per_tap, own.first % per_tap};
            Chunk c = start;
            for (int i = 0; i < ahead; i++, step(c)) {
                mbarrier_expect(full + i * 8, STAGE);
                weights(c, i);
            }
            wait_for_previous();
            c = start;
            for (int i = 0; i < ahead; i++, step(c)) pixels(c, i);
            for (int i = ahead, slot = 0, parity = 0; i < own.count; i++, step(c)) {
                mbarrier_wait(empty + slot * 8, parity);
                mbarrier_expect(full + slot * 8, STAGE);
                weights(c, slot);
                pixels(c, slot);
                if (++slot == STAGES) slot = 0, parity ^= 1;
            }
            prefetch_next(p);
        }
        __syncwarp();
    } else {
        own.biases(p, biases);
        wait_for_previous();
        residual = own.template residual<T>(p, 0);
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
                if (tid % 128 == 0) mbarrier_arrive(empty + (slot == 0 ? STAGES - 1 : slot - 1) * 8);
            }
            if (++slot == STAGES) slot = 0, parity ^= 1;
        }
        wgmma_wait<0>();
        own.leave(sums, memory);
    }
    // not before: its loads would be in the way of these
    let_next_begin();
    own.template finish<T>(p, stages, biases, residual);
}

#define TILE(T, NAME, GROUPS, N, STAGES)                                                                                         \
    extern "C" __global__ void __launch_bounds__(GROUPS * 128 + 32)                                                              \
        mirage_conv2d_hopper_##NAME##_##GROUPS##x##N##x##STAGES(const __grid_constant__ Conv2dHopperParams p) {                  \
        conv2d_hopper<T, GROUPS, N, STAGES>(p);                                                                                  \
    }
// For each shape a ring that leaves room for a second block on the processor, and for some one as deep as a block alone can have: it hides
// more of the time between asking and having where there are no more blocks than processors.
#define TILES(T, NAME)                                                                                                           \
    TILE(T, NAME, 1, 32, 8)                                                                                                      \
    TILE(T, NAME, 1, 64, 6)                                                                                                      \
    TILE(T, NAME, 1, 96, 5)                                                                                                      \
    TILE(T, NAME, 2, 64, 4)                                                                                                      \
    TILE(T, NAME, 2, 96, 3)                                                                                                      \
    TILE(T, NAME, 2, 128, 3)                                                                                                     \
    TILE(T, NAME, 2, 192, 4)                                                                                                     \
    TILE(T, NAME, 1, 32, 16)                                                                                                     \
    TILE(T, NAME, 1, 64, 13)                                                                                                     \
    TILE(T, NAME, 2, 64, 8)                                                                                                      \
    TILE(T, NAME, 2, 128, 6)
TILES(__half, f16)
TILES(__nv_bfloat16, bf16)
