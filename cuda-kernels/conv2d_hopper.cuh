// What the convolutions for compute capability 9.0a share: their parameters, and what becomes of the sums.
//
//   y[pixel][o] = act(sum_k patch[pixel][k] · w[o][k] + bias[o] + shift[sample][o]) + residual[pixel][o]
//
// A block has a tile of the result: a box of pixels, of one sample or of several, and some outputs. One more warp asks for memory.
#pragma once
#include "hopper.cuh"

struct Conv2dHopperParams {
    CUtensorMap x;       // (batch, height, width, channels), in boxes of pixels of 64 channels
    CUtensorMap skip;    // likewise
    CUtensorMap weight;  // (outputs, k) as for conv2d.cu, in boxes of a tile's outputs and 64 columns
    const float* bias;   // (outputs), or null
    const void* shift;   // (batch, outputs), or null
    const void* residual;
    const float* scale;  // (outputs), of weights in eight bits
    void* y;
    const void* next;  // weights that the next layer will read
    int64_t next_bytes;
    int batch, height, width, outputs;
    int channels, skip_channels;
    int kernel, padding;
    int steps, steps_per_split, splits;  // of 64 channels of one tap
    int box_width, box_height, box_samples;
    int x_bits, y_bits;    // of a pixel's number in its box: x first, then y, then the sample
    int boxes_x, boxes_y;  // boxes in a picture
    int activation;
};

// Where a block is in the work: a tile of so many pixels and outputs, which so many threads finish.
template <int PIXELS, int OUTPUTS, int CONSUMERS> struct Place {
    static constexpr int ROW = OUTPUTS + 4;  // f32 of a pixel's sums
    static constexpr int COLUMNS = OUTPUTS / VECTOR, PIECES = PIXELS * COLUMNS, TURNS = PIECES / CONSUMERS;
    static_assert(PIECES % CONSUMERS == 0, "all threads finish as much");
    int split, first, count;  // steps
    int first_sample, first_x, first_y, first_output;

    __device__ __forceinline__ explicit Place(const Conv2dHopperParams& p) {
        split = blockIdx.z, first = split * p.steps_per_split, count = min(p.steps_per_split, p.steps - first);
        const int boxes = p.boxes_x * p.boxes_y, box = blockIdx.x % boxes;
        first_sample = blockIdx.x / boxes * p.box_samples;
        first_x = box % p.boxes_x * p.box_width, first_y = box / p.boxes_x * p.box_height, first_output = blockIdx.y * OUTPUTS;
    }

    // What a thread finishes in a turn: eight outputs of a pixel. The blocks of a cluster have a share of the tile each.
    struct Piece {
        bool there;
        int row, output, sample;
        int64_t pixel;
    };
    __device__ __forceinline__ Piece piece(const Conv2dHopperParams& p, int turn) const {
        const int share = (PIECES + p.splits - 1) / p.splits, in_share = threadIdx.x + turn * CONSUMERS, at = split * share + in_share;
        const int row = at / COLUMNS, output = first_output + at % COLUMNS * VECTOR;
        const int x = first_x + (row & (1 << p.x_bits) - 1), y = first_y + (row >> p.x_bits & (1 << p.y_bits) - 1);
        const int sample = first_sample + (row >> p.x_bits + p.y_bits);
        return Piece{in_share < share && at < PIECES && x < p.width && y < p.height && sample < p.batch && output < p.outputs, row, output,
                     sample, (static_cast<int64_t>(sample) * p.height + y) * p.width + x};
    }
    template <typename T> __device__ __forceinline__ uint4 residual(const Conv2dHopperParams& p, int turn) const {
        const Piece piece = this->piece(p, turn);
        if (p.residual == nullptr || !piece.there) return uint4{};
        return *reinterpret_cast<const uint4*>(static_cast<const T*>(p.residual) + piece.pixel * p.outputs + piece.output);
    }
    // For each output of the tile what `from` has for it, and zero where there is none.
    __device__ __forceinline__ void by_output(const Conv2dHopperParams& p, const float* from, float* to) const {
        for (int i = threadIdx.x; i < OUTPUTS; i += CONSUMERS) to[i] = from != nullptr && first_output + i < p.outputs ? from[first_output + i] : 0.0f;
    }

    // Consumers, once all products are done: the sums of a warp group, N columns of 64 rows, into shared memory, which the stages no longer need.
    // Rows are pixels, or outputs where weights are the left operand.
    template <bool WEIGHTS_LEFT, int N> __device__ __forceinline__ void leave(const float (&sums)[N / 2], unsigned char* memory) const {
        const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
        const int row = warp / 4 * 64 + warp % 4 * 16 + lane / 4, column = lane % 4 * 2;
        meet<CONSUMERS>(1);
        float* to = reinterpret_cast<float*>(memory) + (WEIGHTS_LEFT ? column * ROW + row : row * ROW + column);
#pragma unroll
        for (int j = 0; j < N / 8; j++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const float2 pair = make_float2(sums[4 * j + 2 * half], sums[4 * j + 2 * half + 1]);
                if constexpr (WEIGHTS_LEFT) to[8 * j * ROW + half * 8] = pair.x, to[(8 * j + 1) * ROW + half * 8] = pair.y;
                else *reinterpret_cast<float2*>(to + half * 8 * ROW + j * 8) = pair;
            }
    }

    // All threads: adds the sums of the cluster's blocks through each other's shared memory, always in the same order, and finishes them.
    template <typename T> __device__ __forceinline__ void finish(const Conv2dHopperParams& p, uint32_t sums, const float* biases, uint4 residual,
                                                                  const float* scales = nullptr) const {
        if (p.splits > 1) cluster_sync();
        else __syncthreads();
        if (threadIdx.x < CONSUMERS) {
            // not unrolled: code that is run once waits for memory, line after line
#pragma unroll 1
            for (int turn = 0; turn < TURNS; turn++) {
                const Piece piece = this->piece(p, turn);
                const uint4 now = residual;
                residual = this->residual<T>(p, turn + 1);
                if (!piece.there) continue;
                const uint32_t from = sums + (piece.row * ROW + piece.output - first_output) * 4;
                float v[VECTOR] = {};
                for (int s = 0; s < p.splits; s++) {
                    const uint32_t there = p.splits > 1 ? of_block(from, s) : from;
                    const float4 low = load_cluster(there), high = load_cluster(there + 16);
                    v[0] += low.x, v[1] += low.y, v[2] += low.z, v[3] += low.w;
                    v[4] += high.x, v[5] += high.y, v[6] += high.z, v[7] += high.w;
                }
                if (scales != nullptr) {
#pragma unroll
                    for (int i = 0; i < VECTOR; i++) v[i] *= scales[piece.output - first_output + i];
                }
                finish8<T>(p, piece.pixel, piece.sample, piece.output, v, biases + piece.output - first_output, now);
            }
        }
        // nobody leaves while others read its sums
        if (p.splits > 1) cluster_sync();
    }
};

// One thread: what remains of the time may bring the next layer's weights nearer.
__device__ __forceinline__ void prefetch_next(const Conv2dHopperParams& p) {
    const int64_t block = (static_cast<int64_t>(blockIdx.z) * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    const int64_t blocks = static_cast<int64_t>(gridDim.x) * gridDim.y * gridDim.z;
    const int64_t share = (p.next_bytes + blocks - 1) / blocks + 127 & ~127ll, from = block * share;
    if (from < p.next_bytes) prefetch_bulk(static_cast<const char*>(p.next) + from, static_cast<unsigned>(min(share, p.next_bytes - from)));
}

// One thread: a ring of stages with two barriers each, one that counts bytes and one that counts the warp groups that have read them.
template <int STAGES, int GROUPS> __device__ __forceinline__ void set_up(const Conv2dHopperParams& p, uint32_t full, uint32_t empty) {
    prefetch_map(&p.x);
    prefetch_map(&p.weight);
    for (int i = 0; i < STAGES; i++) {
        mbarrier_init(full + i * 8, 1);
        mbarrier_init(empty + i * 8, GROUPS);
    }
    mbarrier_init_fence();
}

// One thread: for each step a box of pixels, shifted by the tap, and behind it the weights of its columns.
template <int STAGES, int PIXELS, int STAGE, typename Own>
__device__ __forceinline__ void ask_for_steps(const Conv2dHopperParams& p, const Own& own, uint32_t stages, uint32_t full, uint32_t empty) {
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
                    own.first_y + ky - p.padding, own.first_sample, full + slot * 8);
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
