// What the two convolutions for compute capability 9.0a share: their parameters, and what becomes of the sums.
//
//   y[pixel][o] = act(sum_k patch[pixel][k] · w[o][k] + bias[o] + shift[sample][o]) + residual[pixel][o]
//
// A block has a box of 64 pixels for each of its warp groups, and N outputs. One more warp asks for memory.
#pragma once
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
    int steps, steps_per_split, splits;  // of 64 channels of one tap
    int box_bits;                        // a box is 2^box_bits pixels wide
    int boxes_x, boxes_y;                  // boxes in a picture
    int activation;
};

// Where a block is in the work.
template <int GROUPS, int N> struct Place {
    static constexpr int PIXELS = GROUPS * 64, CONSUMERS = GROUPS * 128;
    static constexpr int ROW = N + 4;  // f32 of a pixel's sums
    static constexpr int COLUMNS = N / VECTOR, TURNS = PIXELS * COLUMNS / CONSUMERS;
    static_assert(PIXELS * COLUMNS % CONSUMERS == 0, "all threads finish as much");
    int split, first, count;  // steps
    int sample, first_x, first_y, first_output;

    __device__ __forceinline__ explicit Place(const Conv2dHopperParams& p) {
        split = blockIdx.z, first = split * p.steps_per_split, count = min(p.steps_per_split, p.steps - first);
        const int boxes = p.boxes_x * p.boxes_y, box = blockIdx.x % boxes;
        sample = blockIdx.x / boxes;
        first_x = box % p.boxes_x << p.box_bits, first_y = box / p.boxes_x * (PIXELS >> p.box_bits), first_output = blockIdx.y * N;
    }

    // What a thread finishes in a turn: eight outputs of a pixel. The blocks of a cluster have a share of the rows each.
    struct Piece {
        bool there;
        int row, output;
        int64_t pixel;
    };
    __device__ __forceinline__ Piece piece(const Conv2dHopperParams& p, int turn) const {
        const int rows = PIXELS / p.splits, at = threadIdx.x + turn * CONSUMERS;
        const int row = split * rows + at / COLUMNS, output = first_output + at % COLUMNS * VECTOR;
        const int x = first_x + (row & (1 << p.box_bits) - 1), y = first_y + (row >> p.box_bits);
        return Piece{at < rows * COLUMNS && x < p.width && y < p.height && output < p.outputs, row, output,
                     (static_cast<int64_t>(sample) * p.height + y) * p.width + x};
    }
    template <typename T> __device__ __forceinline__ uint4 residual(const Conv2dHopperParams& p, int turn) const {
        const Piece piece = this->piece(p, turn);
        if (p.residual == nullptr || !piece.there) return uint4{};
        return *reinterpret_cast<const uint4*>(static_cast<const T*>(p.residual) + piece.pixel * p.outputs + piece.output);
    }
    __device__ __forceinline__ void biases(const Conv2dHopperParams& p, float* to) const {
        for (int i = threadIdx.x; i < N; i += CONSUMERS) to[i] = p.bias != nullptr && first_output + i < p.outputs ? p.bias[first_output + i] : 0.0f;
    }

    // Consumers, once all products are done: the sums of a warp group into shared memory, which the stages no longer need.
    __device__ __forceinline__ void leave(const float (&sums)[N / 2], unsigned char* memory) const {
        const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
        meet<CONSUMERS>(1);
        float* to = reinterpret_cast<float*>(memory) + (warp / 4 * 64 + warp % 4 * 16 + lane / 4) * ROW + lane % 4 * 2;
#pragma unroll
        for (int j = 0; j < N / 8; j++)
#pragma unroll
            for (int half = 0; half < 2; half++)
                *reinterpret_cast<float2*>(to + half * 8 * ROW + j * 8) = make_float2(sums[4 * j + 2 * half], sums[4 * j + 2 * half + 1]);
    }

    // All threads: adds the sums of the cluster's blocks through each other's shared memory, always in the same order, and finishes them.
    template <typename T> __device__ __forceinline__ void finish(const Conv2dHopperParams& p, uint32_t sums, const float* biases, uint4 residual) const {
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
                finish8<T>(p, piece.pixel, sample, piece.output, v, biases + piece.output - first_output, now);
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
