// 3x3 convolution for compute capability 9.0a that reads each pixel once for nine taps.
//
// Against conv2d_hopper.cu, which asks for its box of pixels anew for each tap: a box with a border of one pixel comes once for 64 channels, in
// rows of 16 pixels, and a tap's left operand is the same memory some rows further on. Pixels are nine times less to load, which leaves
// the weights, N rows of 128 bytes a tap, in a ring that is deep enough to hide what lies between asking and having.
//
// Registers by ptxas 13.0: 54 to 122 a thread, none spilled. Shared memory: two boxes and the ring, up to 227 KiB. Measured on an H100, of 740 TFLOP/s: 192
// channels at five times 64x64 take 33 microseconds, 55 %, where cuDNN's fastest takes 43; at 64x64 once 11, 33 % (cuDNN 15).
#include "conv2d_hopper.cuh"

constexpr int TAPS = 9;
constexpr int PITCH = 16 * 128;  // bytes from a row of pixels to the next: eight, the border, and what makes it a whole swizzle

template <typename T, int GROUPS, int N, int STAGES> __device__ __forceinline__ void conv3x3_hopper(const Conv2dHopperParams& p) {
    constexpr int CONSUMERS = GROUPS * 128, IMAGES = 2, IMAGE = (8 * GROUPS + 2) * PITCH, STAGE = N * 128;
    using Own = Place<GROUPS * 64, N, CONSUMERS>;
    static_assert(GROUPS * 64 * Own::ROW * 4 <= IMAGES * IMAGE + STAGES * STAGE, "the sums take the place of the stages");
    extern __shared__ __align__(1024) unsigned char memory[];
    const uint32_t images = shared_address(memory), stages = images + IMAGES * IMAGE, barriers = stages + STAGES * STAGE;
    const uint32_t full = barriers, empty = full + STAGES * 8, image_full = empty + STAGES * 8, image_empty = image_full + IMAGES * 8;
    float* biases = reinterpret_cast<float*>(memory + IMAGES * (IMAGE + 16) + STAGES * (STAGE + 16));
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
        for (int i = 0; i < IMAGES; i++) {
            mbarrier_init(image_full + i * 8, 1);
            mbarrier_init(image_empty + i * 8, GROUPS);
        }
        mbarrier_init_fence();
    }
    __syncthreads();

    // steps go through the taps of 64 channels before the next 64
    const int first_chunk = own.first / TAPS, first_tap = own.first % TAPS;
    if (warp == CONSUMERS / 32) {
        if (tid == CONSUMERS) {
            const int x_chunks = (p.channels + 63) / 64, all_channels = p.channels + p.skip_channels;
            // behind the last channel of a tap come the next tap's weights, and zeros for pixels
            auto weights = [&](int chunk, int tap, int slot) {
                const int channel = chunk < x_chunks ? chunk * 64 : p.channels + (chunk - x_chunks) * 64;
                mbarrier_expect(full + slot * 8, STAGE);
                copy_box_2d(stages + slot * STAGE, &p.weight, tap * all_channels + channel, own.first_output, full + slot * 8);
            };
            auto image = [&](int chunk, int slot) {
                const bool in_x = chunk < x_chunks;
                mbarrier_expect(image_full + slot * 8, IMAGE);
                copy_box_4d(images + slot * IMAGE, in_x ? &p.x : &p.skip, (in_x ? chunk : chunk - x_chunks) * 64, own.first_x - 1, own.first_y - 1,
                            own.first_sample, image_full + slot * 8);
            };
            int chunk = first_chunk, tap = first_tap, asked = 0;
            auto next = [&] {
                if (++tap == TAPS) tap = 0, chunk++;
            };
            const int last_chunk = (own.first + own.count - 1) / TAPS;
            // no kernel writes weights: they need not wait for the kernel ahead. But a chunk's image is asked for before the last weights of
            // the chunk ahead of it, or nobody would come to ask
            const int ahead = min(min(STAGES, own.count), IMAGES * TAPS - first_tap);
            for (; asked < ahead; asked++, next()) weights(chunk, tap, asked);
            wait_for_previous();
            int images_asked = 0, image_parity = 0;
            for (; images_asked < IMAGES && first_chunk + images_asked <= last_chunk; images_asked++) image(first_chunk + images_asked, images_asked);
            for (int slot = asked % STAGES, parity = 0; asked < own.count; asked++, next()) {
                // two chunks ahead of the weights that are asked for now, as soon as the image there is read
                if (tap == 0 && chunk - first_chunk >= images_asked) {
                    const int at = images_asked % IMAGES;
                    mbarrier_wait(image_empty + at * 8, image_parity);
                    if (at == IMAGES - 1) image_parity ^= 1;
                    image(chunk, at);
                    images_asked++;
                }
                if (asked >= STAGES) mbarrier_wait(empty + slot * 8, parity);
                weights(chunk, tap, slot);
                if (++slot == STAGES) {
                    slot = 0;
                    if (asked >= STAGES) parity ^= 1;
                }
            }
            prefetch_next(p);
        }
        __syncwarp();
    } else {
        own.by_output(p, p.bias, biases);
        wait_for_previous();
        residual = own.template residual<T>(p, 0);
        const int group = warp / 4;
        float sums[N / 2] = {};
        int at = 0, image_parity = 0, tap = first_tap;
        for (int i = 0, slot = 0, parity = 0; i < own.count; i++) {
            if (i == 0 || tap == 0) mbarrier_wait(image_full + at * 8, image_parity);
            mbarrier_wait(full + slot * 8, parity);
            const int ky = tap / 3, kx = tap - ky * 3;
            const uint64_t a = matrix_in_shared<PITCH>(images + at * IMAGE + (group * 8 + ky) * PITCH + kx * 128), b = matrix_in_shared(stages + slot * STAGE);
            wgmma_fence();
#pragma unroll
            for (int k = 0; k < 4; k++) wgmma<T, N>(sums, a + 2 * k, b + 2 * k);
            wgmma_commit();
            if (i > 0) {
                // the products before these are done: their stage is free, and so is their image after its last tap
                wgmma_wait<1>();
                if (tid % 128 == 0) {
                    mbarrier_arrive(empty + (slot == 0 ? STAGES - 1 : slot - 1) * 8);
                    if (tap == 0) mbarrier_arrive(image_empty + (at ^ 1) * 8);
                }
            }
            if (++tap == TAPS) {
                tap = 0;
                if (++at == IMAGES) at = 0, image_parity ^= 1;
            }
            if (++slot == STAGES) slot = 0, parity ^= 1;
        }
        wgmma_wait<0>();
        own.template leave<false, N>(sums, memory);
    }
    // not before: its loads would be in the way of these
    let_next_begin();
    own.template finish<T>(p, images, biases, residual);
}

#define TILE(T, NAME, GROUPS, N, STAGES)                                                                                         \
    extern "C" __global__ void __launch_bounds__(GROUPS * 128 + 32)                                                              \
        mirage_conv3x3_hopper_##NAME##_##GROUPS##x##N##x##STAGES(const __grid_constant__ Conv2dHopperParams p) {                 \
        conv3x3_hopper<T, GROUPS, N, STAGES>(p);                                                                                 \
    }
// For each shape a ring that leaves room for a second block on the processor, and for some one as deep as a block alone can have: it hides
// more of the time between asking and having where there are no more blocks than processors.
#define TILES(T, NAME)                                                                                                           \
    TILE(T, NAME, 1, 32, 8)                                                                                                      \
    TILE(T, NAME, 1, 48, 10)                                                                                                     \
    TILE(T, NAME, 1, 64, 8)                                                                                                      \
    TILE(T, NAME, 2, 64, 4)                                                                                                      \
    TILE(T, NAME, 2, 96, 3)                                                                                                      \
    TILE(T, NAME, 1, 192, 6)                                                                                                     \
    TILE(T, NAME, 2, 192, 5)                                                                                                     \
    TILE(T, NAME, 1, 32, 16)                                                                                                     \
    TILE(T, NAME, 1, 96, 12)                                                                                                     \
    TILE(T, NAME, 2, 48, 16)                                                                                                     \
    TILE(T, NAME, 2, 64, 14)                                                                                                     \
    TILE(T, NAME, 2, 96, 9)
TILES(__half, f16)
TILES(__nv_bfloat16, bf16)
