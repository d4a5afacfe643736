// Convolution and linear layers for compute capability 9.0a: the implicit matrix product of conv2d.cu by other means.
//
//   y[pixel][o] = act(sum_k patch[pixel][k] · w[o][k] + bias[o] + shift[sample][o]) + residual[pixel][o]
//
// One thread asks for whole boxes: 64 channels of a patch of pixels, shifted by the tap, with zeros where the picture ends, and the same 64
// columns of the weights. A ring of stages with two barriers each connects it to the warp groups, whose products read both operands from
// shared memory. Where there are too few tiles, the inner dimension is split over the blocks of a cluster, which add their sums through
// each other's shared memory, each a share of the rows, always in the same order.
#include "hopper.cuh"

struct Conv2dHopperParams {
    CUtensorMap x;       // (batch, height, width, channels), in boxes of pixels of 64 channels
    CUtensorMap skip;    // likewise
    CUtensorMap weight;  // (outputs, k) as for conv2d.cu, in boxes of N outputs and 64 columns
    const float* bias;   // (outputs), or null
    const void* shift;   // (batch, outputs), or null
    const void* residual;
    void* y;
    const void* next;  // weights that the next layer will read
    int64_t next_bytes;
    int height, width, outputs;
    int channels, skip_channels;
    int kernel, padding;
    int chunks, chunks_per_split, splits;  // steps of 64 channels of one tap
    int box_bits;                          // a box is 2^box_bits pixels wide
    int boxes_x, boxes_y;                  // boxes in a picture
    int activation;
};

// The sums of eight outputs of one pixel and what follows them.
template <typename T> __device__ __forceinline__ void finish8(const Conv2dHopperParams& p, int64_t pixel, int sample, int output, float (&v)[VECTOR]) {
    if (p.bias != nullptr) {
        const float4* bias = reinterpret_cast<const float4*>(p.bias + output);
        const float4 low = bias[0], high = bias[1];
        v[0] += low.x, v[1] += low.y, v[2] += low.z, v[3] += low.w;
        v[4] += high.x, v[5] += high.y, v[6] += high.z, v[7] += high.w;
    }
    if (p.activation == ACTIVATION_GEGLU) {
        // weights are interleaved: hidden, gate, hidden, gate
        float product[4];
#pragma unroll
        for (int i = 0; i < 4; i++) product[i] = v[2 * i] * gelu(v[2 * i + 1]);
        T* y = static_cast<T*>(p.y) + pixel * (p.outputs / 2) + output / 2;
        typename Pair<T>::Type pairs[2] = {Pair<T>::round(product[0], product[1]), Pair<T>::round(product[2], product[3])};
        uint2 bits;
        memcpy(&bits, pairs, 8);
        *reinterpret_cast<uint2*>(y) = bits;
        return;
    }
    float more[VECTOR];
    if (p.shift != nullptr) {
        load8(static_cast<const T*>(p.shift) + static_cast<int64_t>(sample) * p.outputs + output, more);
#pragma unroll
        for (int i = 0; i < VECTOR; i++) v[i] += more[i];
    }
    if (p.activation != ACTIVATION_NONE)
#pragma unroll
        for (int i = 0; i < VECTOR; i++) v[i] = activate(v[i], p.activation);
    if (p.residual != nullptr) {
        load8(static_cast<const T*>(p.residual) + pixel * p.outputs + output, more);
#pragma unroll
        for (int i = 0; i < VECTOR; i++) v[i] += more[i];
    }
    store8(static_cast<T*>(p.y) + pixel * p.outputs + output, v);
}

template <typename T, int GROUPS, int N, int STAGES> __device__ __forceinline__ void conv2d_hopper(const Conv2dHopperParams& p) {
    constexpr int M = GROUPS * 64, CONSUMERS = GROUPS * 128;
    constexpr int PIXELS = M * 128, STAGE = PIXELS + N * 128;
    constexpr int ROW = N + 4;  // f32 of a pixel's sums
    static_assert(M * ROW * 4 <= STAGES * STAGE, "the sums take the place of the stages");
    extern __shared__ __align__(1024) unsigned char memory[];
    const uint32_t stages = shared_address(memory), full = stages + STAGES * STAGE, empty = full + STAGES * 8;
    const int tid = threadIdx.x, warp = tid / 32, lane = tid % 32;
    const int split = blockIdx.z, first = split * p.chunks_per_split, count = min(p.chunks_per_split, p.chunks - first);
    const int boxes = p.boxes_x * p.boxes_y, sample = blockIdx.x / boxes, box = blockIdx.x - sample * boxes;
    const int box_y = box / p.boxes_x, box_x = box - box_y * p.boxes_x;
    const int first_x = box_x << p.box_bits, first_y = box_y * (M >> p.box_bits), first_output = blockIdx.y * N;

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
    let_next_begin();

    if (warp == CONSUMERS / 32) {
        if (lane == 0) {
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
                copy_box_2d(stages + slot * STAGE + PIXELS, &p.weight, c.tap * (p.channels + p.skip_channels) + channel, first_output, full + slot * 8);
            };
            auto pixels = [&](const Chunk& c, int slot) {
                const bool in_x = c.at < x_chunks;
                const int ky = c.tap / p.kernel, kx = c.tap - ky * p.kernel;
                copy_box_4d(stages + slot * STAGE, in_x ? &p.x : &p.skip, (in_x ? c.at : c.at - x_chunks) * 64, first_x + kx - p.padding,
                            first_y + ky - p.padding, sample, full + slot * 8);
            };
            const int ahead = min(STAGES, count);
            // no kernel writes weights: they need not wait for the kernel ahead
            const Chunk start{first / per_tap, first % per_tap};
            Chunk c = start;
            for (int i = 0; i < ahead; i++, step(c)) {
                mbarrier_expect(full + i * 8, STAGE);
                weights(c, i);
            }
            wait_for_previous();
            c = start;
            for (int i = 0; i < ahead; i++, step(c)) pixels(c, i);
            for (int i = ahead, slot = 0, parity = 0; i < count; i++, step(c)) {
                mbarrier_wait(empty + slot * 8, parity);
                mbarrier_expect(full + slot * 8, STAGE);
                weights(c, slot);
                pixels(c, slot);
                if (++slot == STAGES) slot = 0, parity ^= 1;
            }
            // what remains of the time may bring the next layer's weights nearer
            const int64_t block = (static_cast<int64_t>(blockIdx.z) * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
            const int64_t blocks = static_cast<int64_t>(gridDim.x) * gridDim.y * gridDim.z;
            const int64_t share = (p.next_bytes + blocks - 1) / blocks + 127 & ~127ll, from = block * share;
            if (from < p.next_bytes) prefetch_bulk(static_cast<const char*>(p.next) + from, static_cast<unsigned>(min(share, p.next_bytes - from)));
        }
        __syncwarp();
    } else {
        const int group = warp / 4;
        float sums[N / 2] = {};
        for (int i = 0, slot = 0, parity = 0; i < count; i++) {
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
        meet<1, CONSUMERS>();
        float* to = reinterpret_cast<float*>(memory) + (group * 64 + warp % 4 * 16 + lane / 4) * ROW + lane % 4 * 2;
#pragma unroll
        for (int j = 0; j < N / 8; j++)
#pragma unroll
            for (int half = 0; half < 2; half++)
                *reinterpret_cast<float2*>(to + half * 8 * ROW + j * 8) = make_float2(sums[4 * j + 2 * half], sums[4 * j + 2 * half + 1]);
    }
    if (p.splits > 1) cluster_sync();
    else __syncthreads();
    if (warp < CONSUMERS / 32) {
        wait_for_previous();
        constexpr int COLUMNS = N / VECTOR;
        const int rows = M / p.splits, first_row = split * rows;
        for (int at = tid; at < rows * COLUMNS; at += CONSUMERS) {
            const int row = first_row + at / COLUMNS, column = at % COLUMNS * VECTOR;
            const int x = first_x + (row & (1 << p.box_bits) - 1), y = first_y + (row >> p.box_bits), output = first_output + column;
            if (x >= p.width || y >= p.height || output >= p.outputs) continue;
            const uint32_t from = stages + (row * ROW + column) * 4;
            float v[VECTOR] = {};
            for (int s = 0; s < p.splits; s++) {
                const uint32_t there = p.splits > 1 ? of_block(from, s) : from;
                const float4 low = load_cluster(there), high = load_cluster(there + 16);
                v[0] += low.x, v[1] += low.y, v[2] += low.z, v[3] += low.w;
                v[4] += high.x, v[5] += high.y, v[6] += high.z, v[7] += high.w;
            }
            finish8<T>(p, (static_cast<int64_t>(sample) * p.height + y) * p.width + x, sample, output, v);
        }
    }
    // nobody leaves while others read its sums
    if (p.splits > 1) cluster_sync();
}

#define TILE(T, NAME, GROUPS, N, STAGES)                                                                                          \
    extern "C" __global__ void __launch_bounds__(GROUPS * 128 + 32)                                                               \
        mirage_conv2d_hopper_##NAME##_##GROUPS##x##N(const __grid_constant__ Conv2dHopperParams p) {                              \
        conv2d_hopper<T, GROUPS, N, STAGES>(p);                                                                                   \
    }
#define TILES(T, NAME)                                                                                                            \
    TILE(T, NAME, 1, 32, 8)                                                                                                       \
    TILE(T, NAME, 1, 64, 6)                                                                                                       \
    TILE(T, NAME, 1, 96, 5)                                                                                                       \
    TILE(T, NAME, 1, 192, 6)                                                                                                      \
    TILE(T, NAME, 2, 64, 4)                                                                                                       \
    TILE(T, NAME, 2, 96, 6)                                                                                                       \
    TILE(T, NAME, 2, 128, 6)                                                                                                      \
    TILE(T, NAME, 2, 192, 5)
TILES(__half, f16)
TILES(__nv_bfloat16, bf16)
