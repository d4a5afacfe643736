// What the convolutions for compute capability 9.0a share: their parameters, and what becomes of the sums.
//
//   y[pixel][o] = act(sum_k patch[pixel][k] · w[o][k] + bias[o] + shift[sample][o]) + residual[pixel][o]
//
// A block has a tile of the result: a box of pixels, of one sample or of several, and some outputs. Two more warps ask for memory, one thread each: one for weights, which
// no kernel writes, and one for pixels, which waits for the kernel ahead first.
#pragma once
#include "hopper.cuh"

struct Conv2dHopperParams {
    CUtensorMap x;       // (batch, height, width, channels), in boxes of pixels of 64 channels
    CUtensorMap skip;    // likewise
    CUtensorMap weight;  // (outputs, k) as for conv2d.cu, in boxes of a tile's outputs and 64 columns; for conv3x3_hopper.cu (taps, outputs, channels), three taps a box
    const float* bias;   // (outputs), or null
    const void* shift;   // (batch, outputs), or null
    const void* residual;
    const float* scale;  // (outputs), of weights in eight bits, or null
    void* y;
    const void* next;  // weights that the next layer will read
    uint64_t next_bytes;
    int batch, height, width, outputs;  // of the result; all its pixels are one row where neighbours do not matter
    int channels, skip_channels;
    int kernel, padding;
    int steps, steps_per_split, splits;  // of 64 channels of one tap, or of a row of taps in conv3x3_hopper.cu
    int share, share_factor;             // pixels of a tile that each block of a cluster finishes, and 65536 over that, rounded up
    int box_width, box_height, box_samples;
    int x_bits, y_bits;    // of a pixel's number in its box: x first, then y, then the sample
    // of a divisor and the number behind it no 64 bits look like an address, which a recording would replace: the factor is in the upper half
    Divisor boxes;  // in a picture
    int activation;
    Divisor boxes_x;  // in a row of a picture
    int early;        // whether the next kernel may begin at once, beside this one, and not only when this one's sums are out of the way
    Divisor per_tap;  // steps of a tap
};

// Blocks of a cluster that share a tile, at most: WIDEST_CLUSTER in stages/tensor_cores/hopper/plan.rs.
constexpr int MOST_SPLITS = 8;

// Where a block is in the work: a tile of so many pixels and outputs, which so many threads finish.
template <int PIXELS, int OUTPUTS, int CONSUMERS> struct Place {
    static constexpr int ROW = OUTPUTS + 4;  // f32 of a pixel's sums
    static constexpr int COLUMNS = OUTPUTS / VECTOR;
    int split, first, count;  // steps
    int first_sample, first_x, first_y, first_output;

    __device__ __forceinline__ explicit Place(const Conv2dHopperParams& p) {
        split = blockIdx.z, first = split * p.steps_per_split, count = min(p.steps_per_split, p.steps - first);
        const int picture = p.boxes.quotient(blockIdx.x), box = blockIdx.x - picture * p.boxes.value, row = p.boxes_x.quotient(box);
        first_sample = picture * p.box_samples;
        first_x = (box - row * p.boxes_x.value) * p.box_width, first_y = row * p.box_height, first_output = blockIdx.y * OUTPUTS;
    }

    // Pixels of the tile that this block finishes: the blocks of a cluster have a share each.
    __device__ __forceinline__ int own_pixels(const Conv2dHopperParams& p) const { return max(0, min(p.share, PIXELS - split * p.share)); }
    // Their sums that come from the other blocks.
    __device__ __forceinline__ int sent_bytes(const Conv2dHopperParams& p) const { return (p.splits - 1) * own_pixels(p) * OUTPUTS * 4; }

    // Eight outputs of a pixel, by its number in the share.
    struct Piece {
        bool there;
        int at;  // in a part of the sums
        int output, sample, pixel;
    };
    __device__ __forceinline__ Piece piece(const Conv2dHopperParams& p, int i) const {
        const int in_share = i / COLUMNS, column = i % COLUMNS * VECTOR, row = split * p.share + in_share;
        const int x = first_x + (row & (1 << p.x_bits) - 1), y = first_y + (row >> p.x_bits & (1 << p.y_bits) - 1);
        const int sample = first_sample + (row >> p.x_bits + p.y_bits);
        const bool there = in_share < p.share && row < PIXELS && x < p.width && y < p.height && sample < p.batch && first_output + column < p.outputs;
        return Piece{there, in_share * ROW + column, first_output + column, sample, (sample * p.height + y) * p.width + x};
    }
    template <typename T> __device__ __forceinline__ uint4 residual(const Conv2dHopperParams& p, const Piece& piece) const {
        if (p.residual == nullptr || !piece.there) return uint4{};
        return *reinterpret_cast<const uint4*>(static_cast<const T*>(p.residual) + static_cast<int64_t>(piece.pixel) * p.outputs + piece.output);
    }
    // For each output of the tile what `from` has for it, and zero where there is none.
    __device__ __forceinline__ void by_output(const Conv2dHopperParams& p, const float* from, float* to) const {
        for (int i = threadIdx.x; i < OUTPUTS; i += CONSUMERS) to[i] = from != nullptr && first_output + i < p.outputs ? from[first_output + i] : 0.0f;
    }

    // Consumers, once all products are done: the sums of a warp group, N columns of 64 rows, into shared memory, which the stages no longer need.
    // Rows are pixels, or outputs where weights are the left operand.
    template <bool WEIGHTS_LEFT, int N> __device__ __forceinline__ void leave(const float (&sums)[N / 2], float* to) const {
        const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
        const int row = warp / 4 * 64 + warp % 4 * 16 + lane / 4, column = lane % 4 * 2;
        meet<CONSUMERS>(1);
        to += WEIGHTS_LEFT ? column * ROW + row : row * ROW + column;
#pragma unroll
        for (int j = 0; j < N / 8; j++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const float2 pair = make_float2(sums[4 * j + 2 * half], sums[4 * j + 2 * half + 1]);
                if constexpr (WEIGHTS_LEFT) to[8 * j * ROW + half * 8] = pair.x, to[(8 * j + 1) * ROW + half * 8] = pair.y;
                else *reinterpret_cast<float2*>(to + half * 8 * ROW + j * 8) = pair;
            }
        meet<CONSUMERS>(1);
    }

    // Consumers likewise, where no cluster shares the tile and a bias and an activation are all that follows: that is done where the sums are, all at a time, and what
    // lies in shared memory then is the result, whose rows are moved 16 bytes at a time.
    template <typename T, bool WEIGHTS_LEFT, int N>
    __device__ __forceinline__ void finish_where_they_are(const Conv2dHopperParams& p, float (&sums)[N / 2], T* tile, const float* biases, const float* scales) const {
        constexpr int PITCH = OUTPUTS + VECTOR;  // so that the eight rows of a matrix lie in different banks
        const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, first_row = warp / 4 * 64 + warp % 4 * 16;
        meet<CONSUMERS>(1);
        if constexpr (WEIGHTS_LEFT) {
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const int row = first_row + lane / 4 + half * 8;
                const float bias = biases[row], scale = scales != nullptr ? scales[row] : 1.0f;
#pragma unroll
                for (int j = 0; j < N / 8; j++)
#pragma unroll
                    for (int i = 4 * j + 2 * half; i < 4 * j + 2 * half + 2; i++) sums[i] = scales != nullptr ? sums[i] * scale + bias : sums[i] + bias;
            }
        } else {
#pragma unroll
            for (int j = 0; j < N / 8; j++) {
                const float2 bias = *reinterpret_cast<const float2*>(biases + 8 * j + lane % 4 * 2);
                sums[4 * j] += bias.x, sums[4 * j + 1] += bias.y, sums[4 * j + 2] += bias.x, sums[4 * j + 3] += bias.y;
            }
        }
        if (p.activation == ACTIVATION_SILU) {
#pragma unroll
            for (int i = 0; i < N / 2; i++) sums[i] = silu(sums[i]);
        } else if (p.activation == ACTIVATION_GELU) {
#pragma unroll
            for (int i = 0; i < N / 2; i++) sums[i] = gelu(sums[i]);
        }
        // sums of rows lane / 4, and of those 8 further on: two matrices, side by side where rows are outputs
        const uint32_t to = shared_address(tile) + (WEIGHTS_LEFT ? lane % 8 * PITCH + first_row + lane / 8 % 2 * 8 : (first_row + lane % 16) * PITCH) * 2;
#pragma unroll
        for (int j = 0; j < N / 8; j++) {
            const uint32_t first = packed<T>(sums[4 * j], sums[4 * j + 1]), second = packed<T>(sums[4 * j + 2], sums[4 * j + 3]);
            if constexpr (WEIGHTS_LEFT) stmatrix_x2_transposed(to + 8 * j * PITCH * 2, first, second);
            else stmatrix_x2(to + 8 * j * 2, first, second);
        }
        meet<CONSUMERS>(1);
        let_next_begin();
        T* y = static_cast<T*>(p.y);
#pragma unroll 4
        for (int i = threadIdx.x; i < PIXELS * COLUMNS; i += CONSUMERS) {
            const Piece piece = this->piece(p, i);
            const uint4 eight = *reinterpret_cast<const uint4*>(tile + i / COLUMNS * PITCH + i % COLUMNS * VECTOR);
            if (piece.there) *reinterpret_cast<uint4*>(y + static_cast<int64_t>(piece.pixel) * p.outputs + piece.output) = eight;
        }
    }

    // The same where a cluster shares a tile: each pixel's sums go to the block that finishes it, into the part of this block. Lanes exchange theirs
    // first, so that each sends 16 bytes at a time: a message takes as long whatever it carries.
    template <bool WEIGHTS_LEFT, int N>
    __device__ __forceinline__ void hand_over(const Conv2dHopperParams& p, const float (&sums)[N / 2], float* parts, uint32_t arrived) const {
        const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, first_row = warp / 4 * 64 + warp % 4 * 16;
        auto hand = [&](int pixel, int output, const float4& v) {
            const int block = pixel * p.share_factor >> 16;
            float* to = parts + (split * p.share + pixel - block * p.share) * ROW + output;
            if (block == split) *reinterpret_cast<float4*>(to) = v;
            else send(of_block(shared_address(to), block), v, of_block(arrived, block));
        };
#pragma unroll
        for (int j = 0; j < N / 8; j++) {
            float v[4] = {sums[4 * j], sums[4 * j + 1], sums[4 * j + 2], sums[4 * j + 3]};
            if constexpr (WEIGHTS_LEFT) {
                // four lanes, whose rows follow each other, have four sums each: each lane takes one of every lane
                const int place = lane / 4 % 4;
#pragma unroll
                for (int bit = 1; bit < 4; bit *= 2)
#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        if (i & bit) continue;
                        const bool high = place & bit;
                        const float other = __shfl_xor_sync(0xffffffff, high ? v[i] : v[i ^ bit], bit * 4);
                        if (high) v[i] = other;
                        else v[i ^ bit] = other;
                    }
                hand(8 * j + lane % 4 * 2 + place % 2, first_row + lane / 16 * 4 + place / 2 * 8, make_float4(v[0], v[1], v[2], v[3]));
            } else {
                // two lanes have two columns each of two rows: each lane takes a row
                const bool high = lane % 2;
                const float x = __shfl_xor_sync(0xffffffff, high ? v[0] : v[2], 1), y = __shfl_xor_sync(0xffffffff, high ? v[1] : v[3], 1);
                hand(first_row + lane / 4 + high * 8, 8 * j + lane % 4 / 2 * 4, high ? make_float4(x, y, v[2], v[3]) : make_float4(v[0], v[1], x, y));
            }
        }
    }

    // Adds the parts of the sums, always in the same order, and finishes them.
    template <typename T>
    __device__ __forceinline__ void finish(const Conv2dHopperParams& p, const float* sums, const float* biases, uint4 residual,
                                           const float* scales) const {
        const int pieces = own_pixels(p) * COLUMNS, part = p.share * ROW;
        Piece piece = this->piece(p, threadIdx.x);
#pragma unroll 2
        for (int i = threadIdx.x; i < pieces; i += CONSUMERS) {
            const Piece now = piece;
            const uint4 added = residual;
            piece = this->piece(p, i + CONSUMERS);
            residual = this->residual<T>(p, piece);
            const float4* from = reinterpret_cast<const float4*>(sums + now.at);
            float4 low = from[0], high = from[1];
            if (p.splits > 1) {
                float4 more[MOST_SPLITS - 1][2];
#pragma unroll
                for (int s = 1; s < MOST_SPLITS; s++)
#pragma unroll
                    for (int h = 0; h < 2; h++)
                        more[s - 1][h] = s < p.splits ? *reinterpret_cast<const float4*>(sums + s * part + now.at + h * 4) : float4{};
#pragma unroll
                for (int s = 0; s < MOST_SPLITS - 1; s++) {
                    low.x += more[s][0].x, low.y += more[s][0].y, low.z += more[s][0].z, low.w += more[s][0].w;
                    high.x += more[s][1].x, high.y += more[s][1].y, high.z += more[s][1].z, high.w += more[s][1].w;
                }
            }
            float v[VECTOR] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
            const int output = now.output - first_output;
            if (scales != nullptr) {
#pragma unroll
                for (int i = 0; i < VECTOR; i++) v[i] *= scales[output + i];
            }
            if (now.there) finish8<T>(p, now.pixel, now.sample, now.output, v, biases + output, added);
        }
    }
};

// What follows the ring in shared memory.
template <int OUTPUTS, bool SCALED> struct Behind {
    uint64_t arrived;  // a barrier that counts the bytes of the parts
    uint64_t unused;   // what follows is read by 16 bytes
    float biases[OUTPUTS];
    float scales[SCALED ? OUTPUTS : 4];
    float parts[];  // of the sums, where a cluster shares a tile: (splits, share, ROW)
};

// Consumers: what a block does with its sums.
template <typename T, bool WEIGHTS_LEFT, int N, bool SCALED, int PIXELS, int OUTPUTS, int CONSUMERS>
__device__ __forceinline__ void conclude(const Conv2dHopperParams& p, const Place<PIXELS, OUTPUTS, CONSUMERS>& own, float (&sums)[N / 2],
                                         unsigned char* memory, Behind<OUTPUTS, SCALED>& behind, uint4 residual) {
    const float* scales = SCALED ? behind.scales : nullptr;
    if (p.splits == 1 && p.residual == nullptr && p.shift == nullptr && p.activation != ACTIVATION_GEGLU) {
        own.template finish_where_they_are<T, WEIGHTS_LEFT, N>(p, sums, reinterpret_cast<T*>(memory), behind.biases, scales);
        return;
    }
    // unless it was let before, the next kernel begins when the sums are out of the way: what it asks for would hold up what this one still asks for
    if (p.splits > 1) {
        cluster_wait();
        own.template hand_over<WEIGHTS_LEFT, N>(p, sums, behind.parts, shared_address(&behind.arrived));
        let_next_begin();
        meet<CONSUMERS>(1);
        mbarrier_wait_for_cluster(shared_address(&behind.arrived), 0);
    } else {
        own.template leave<WEIGHTS_LEFT, N>(sums, reinterpret_cast<float*>(memory));
        let_next_begin();
    }
    own.template finish<T>(p, p.splits > 1 ? behind.parts : reinterpret_cast<float*>(memory), behind.biases, residual, scales);
}

// One thread, once the block's last stage is here: memory has nothing else to do until the next kernel asks, so it may bring the next layer's weights nearer. Before
// that they would hold up this layer's.
template <int STAGES> __device__ __forceinline__ void prefetch_next(const Conv2dHopperParams& p, uint32_t full, int last) {
    mbarrier_wait(full + last % STAGES * 8, last / STAGES & 1);
    const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x, blocks = gridDim.x * gridDim.y * gridDim.z;
    // the host asks for some 5 MiB at most
    const unsigned bytes = static_cast<unsigned>(p.next_bytes), share = (bytes + blocks - 1) / blocks + 127 & ~127u;
    const uint64_t from = static_cast<uint64_t>(block) * share;
    if (from < bytes) prefetch_bulk(static_cast<const char*>(p.next) + from, min(share, bytes - static_cast<unsigned>(from)));
}

// The two threads that ask, each one that the compiler knows to be alone: a ring of stages with two barriers each, one that counts bytes and one that counts those who
// have read them; and the barrier for so many bytes of sums. Each sets up a part, since one barrier after another takes time.
template <int STAGES, int READERS>
__device__ __forceinline__ void set_up(const Conv2dHopperParams& p, bool for_weights, uint32_t full, uint32_t empty, uint32_t arrived, int bytes) {
    if (for_weights) {
        prefetch_map(&p.weight);
#pragma unroll
        for (int i = 0; i < STAGES; i++) mbarrier_init(full + i * 8, 1);
        mbarrier_init(arrived, 1);
        mbarrier_init_fence();
        mbarrier_expect(arrived, bytes);
    } else {
        prefetch_map(&p.x);
#pragma unroll
        for (int i = 0; i < STAGES; i++) mbarrier_init(empty + i * 8, READERS);
        mbarrier_init_fence();
    }
}

// All threads, once the barriers are set up: a block may send to another one only when that has begun.
__device__ __forceinline__ void begin(const Conv2dHopperParams& p) {
    __syncthreads();
    if (p.splits > 1) cluster_arrive();
    if (p.early) let_next_begin();
}

// Where 64 channels are, counted through both inputs: in which, and from which channel on; and their column in the weights of a tap. Behind the last
// channel of an input come other weights, and zeros for pixels.
struct Chunk {
    bool in_x;
    int channel, column;
    __device__ __forceinline__ Chunk(const Conv2dHopperParams& p, int x_chunks, int i)
        : in_x(i < x_chunks), channel((in_x ? i : i - x_chunks) * 64), column(in_x ? i * 64 : p.channels + (i - x_chunks) * 64) {}
};

// The stage ahead of this one in the ring.
template <int STAGES> __device__ __forceinline__ int before(int slot) { return slot == 0 ? STAGES - 1 : slot - 1; }

// A walk over the steps, tap by tap, and over 64 channels at a time within a tap.
struct Walk {
    int per_tap, tap, chunk;
    __device__ __forceinline__ Walk(const Conv2dHopperParams& p, int step) : per_tap(p.per_tap.value), tap(p.per_tap.quotient(step)), chunk(step - tap * per_tap) {}
    // Whether a tap begins with the next step.
    __device__ __forceinline__ bool next() {
        if (++chunk < per_tap) return false;
        chunk = 0, tap++;
        return true;
    }
};

// One thread: the weights of each step, so many steps a stage of the ring, behind the step's pixels.
template <int STAGES, int TOGETHER, int PIXELS, int STEP, typename Own>
__device__ __forceinline__ void ask_for_weights(const Conv2dHopperParams& p, const Own& own, uint32_t stages, uint32_t full, uint32_t empty) {
    const int x_chunks = (p.channels + 63) / 64;
    Walk at(p, own.first);
    int tap_column = at.tap * (p.channels + p.skip_channels);
    for (int step = 0, slot = 0, parity = 1; step < own.count; step += TOGETHER) {
        // the first time round nothing is in the way
        mbarrier_wait(empty + slot * 8, parity);
        const int steps = min(TOGETHER, own.count - step);
        mbarrier_expect(full + slot * 8, steps * STEP);
#pragma unroll
        for (int i = 0; i < TOGETHER; i++) {
            if (i >= steps) break;
            copy_box_2d(stages + (slot * TOGETHER + i) * STEP + PIXELS, &p.weight, tap_column + Chunk(p, x_chunks, at.chunk).column, own.first_output, full + slot * 8);
            if (at.next()) tap_column += p.channels + p.skip_channels;
        }
        if (++slot == STAGES) slot = 0, parity ^= 1;
    }
    prefetch_next<STAGES>(p, full, (own.count - 1) / TOGETHER);
}

// One thread: a box of pixels for each step, shifted by the tap.
template <int STAGES, int TOGETHER, int STEP, typename Own>
__device__ __forceinline__ void ask_for_pixels(const Conv2dHopperParams& p, const Own& own, uint32_t stages, uint32_t full, uint32_t empty) {
    const int x_chunks = (p.channels + 63) / 64;
    Walk at(p, own.first);
    int ky = at.tap / p.kernel, kx = at.tap - ky * p.kernel;
    const int x = own.first_x - p.padding, y = own.first_y - p.padding;
    wait_for_previous();
    for (int step = 0, slot = 0, parity = 1; step < own.count; step += TOGETHER) {
        mbarrier_wait(empty + slot * 8, parity);
#pragma unroll
        for (int i = 0; i < TOGETHER; i++) {
            if (step + i >= own.count) break;
            const Chunk chunk(p, x_chunks, at.chunk);
            copy_box_4d(stages + (slot * TOGETHER + i) * STEP, chunk.in_x ? &p.x : &p.skip, chunk.channel, x + kx, y + ky, own.first_sample, full + slot * 8);
            if (at.next() && ++kx == p.kernel) kx = 0, ky++;
        }
        if (++slot == STAGES) slot = 0, parity ^= 1;
    }
}
