// Convolution and linear layers on tensor cores: an implicit matrix product with a fused epilogue, split along its inner
// dimension where there are fewer tiles than a GPU has processors.
//
//   y[pixel][o] = act(sum_k w[o][k] · patch[pixel][k] + bias[o] + shift[sample][o]) + residual[pixel][o]
//
// k runs over (ky, kx, channel), the channels of `x` and `skip` one after another: no patch matrix and no concatenation is ever
// written. Weights are the left operand: at 4x4 to 16x16 pixels there are few pixels and many outputs, and a tile may be as
// narrow as 16 pixels. Tiles of 64 along k travel through a ring of shared-memory stages by cp.async, swizzled so that
// ldmatrix meets no bank conflict; products are mma.m16n8k16 with sums in f32.
//
// Split K: the blocks of a tile write their sums to `partial`; the one that arrives last adds them, in the order of the splits,
// so that a result does not depend on who was last.
//
// Weights are stored as activations are, or in eight bits: `conv2d.cu` and `conv2d_fp8.cu` name the kernels. For 3x3 kernels there is another
// form (`conv3x3.cu`): a tile is a box of pixels eight wide, which comes once for 64 channels with a border of one pixel, and not anew for each of
// nine taps; a tap's right operand is the same shared memory, some pixels further on. Layers of many pixels wait for the second-level cache,
// which has about half as much to deliver then.
#pragma once
#include "ptx.cuh"

constexpr int TILE_K = 64;
constexpr int CHUNKS = TILE_K / VECTOR;  // of 16 bytes in a row of a stage

struct Conv2dParams {
    const void* x;         // (batch, height, width, channels), or half the height and the width
    const void* skip;      // (batch, height, width, skip_channels)
    const void* weight;    // (outputs, k_tiles * 64): (ky, kx, channel), zeros behind; channels and outputs are multiples of 8
    const float* bias;     // (outputs)
    const void* shift;     // (batch, outputs)
    const void* residual;  // as y
    void* y;               // (batch, out_height, out_width, outputs); half as many outputs for GEGLU; f32 where `wide`
    float* partial;        // (tiles, splits, tile), f32
    unsigned* arrivals;    // (tiles), zero before and after
    int batch, height, width, channels, skip_channels, all_channels;
    int outputs, out_height, out_width;
    int kernel, stride, padding;
    int k_tiles, tiles_per_split, splits;
    int activation, wide;
    const void* next;  // weights that the next layer will read
    int64_t next_bytes;
    Divisor area, row, tap_channels, kernel_row;  // of an output image, its rows, a tap, a row of taps
    const float* scale;                           // (outputs), of weights in eight bits: the sums are multiplied by it
    int steps, boxes_x, boxes_y;                  // of 64 along k; boxes of pixels in a picture
    int upsample;  // whether x has half the height and the width, and each of its pixels is read as four
};

// Where chunk `chunk` of row `row` lies in a stage.
__device__ __forceinline__ int swizzled(int row, int chunk) { return row * TILE_K + ((chunk ^ (row & 7)) * VECTOR); }

// What a thread fetches of the pixels: one column of chunks, in several rows. Addresses are worked out anew only where a tap or
// an input ends, which most turns of the loop do not meet.
template <typename T, int ROWS> struct Patches {
    const T* from[ROWS];
    int base[ROWS];  // the pixel of tap (0, 0), counted from the first pixel of x as it is when enlarged
    int y[ROWS], x0[ROWS];
    unsigned inside;  // a bit for each row
    int channel, kx, ky;
    int left;  // channels until a tap or an input ends

    __device__ __forceinline__ void start(const Conv2dParams& p, int first_pixel, int row_step, int k) {
        const int area = p.out_height * p.out_width, pixels = p.batch * area;
#pragma unroll
        for (int i = 0; i < ROWS; i++) {
            const int pixel = first_pixel + i * row_step;
            const int sample = p.area.quotient(pixel), place = pixel - sample * area;
            const int oy = p.row.quotient(place), ox = place - oy * p.out_width;
            // a row behind the last pixel lies outside of every image
            y[i] = pixel < pixels ? oy * p.stride - p.padding : -(1 << 20);
            x0[i] = ox * p.stride - p.padding;
            base[i] = (sample * p.height + oy * p.stride - p.padding) * p.width + x0[i];
        }
        const int tap = p.tap_channels.quotient(k);
        channel = k - tap * p.all_channels;
        ky = p.kernel_row.quotient(tap);
        kx = tap - ky * p.kernel;
        left = 0;
    }

    __device__ __forceinline__ void locate(const Conv2dParams& p) {
        const bool in_x = channel < p.channels;
        const T* image = static_cast<const T*>(in_x ? p.x : p.skip);
        const int channels = in_x ? p.channels : p.skip_channels, at = in_x ? channel : channel - p.channels;
        left = channels - at;
        inside = 0;
#pragma unroll
        for (int i = 0; i < ROWS; i++) {
            const bool valid = ky < p.kernel && static_cast<unsigned>(y[i] + ky) < static_cast<unsigned>(p.height) &&
                               static_cast<unsigned>(x0[i] + kx) < static_cast<unsigned>(p.width);
            inside |= static_cast<unsigned>(valid) << i;
            int pixel = 0;
            if (valid) {
                pixel = base[i] + ky * p.width + kx;
                if (in_x && p.upsample) pixel = ((base[i] - y[i] * p.width - x0[i]) >> 2) + ((y[i] + ky) >> 1) * (p.width >> 1) + ((x0[i] + kx) >> 1);
            }
            from[i] = image + (valid ? static_cast<int64_t>(pixel) * channels + at : 0);
        }
    }

    __device__ __forceinline__ void fetch(int i, T* to) const { cp_async_16(to, from[i], inside >> i & 1); }

    // To the next tile; addresses that still hold are moved along.
    __device__ __forceinline__ void advance(const Conv2dParams& p) {
        channel += TILE_K;
        left -= TILE_K;
#pragma unroll
        for (int i = 0; i < ROWS; i++) from[i] += TILE_K;
        while (channel >= p.all_channels) {
            channel -= p.all_channels;
            if (++kx == p.kernel) {
                kx = 0;
                ky++;
            }
        }
    }
};

// A tile of OUTPUTS x PIXELS. Each warp makes WARP_OUTPUTS x WARP_PIXELS of it from one in WARPS_K steps along k: a warp that makes
// all of a small tile reads shared memory half as often for each product as four that make a quarter each, and shared memory
// is what limits them.
//
// BOXES: the form for 3x3 kernels, padding and step 1.
template <typename T, typename W, int OUTPUTS, int PIXELS, int WARP_OUTPUTS, int WARP_PIXELS, int WARPS_K, int STAGES, bool BOXES = false>
__device__ __forceinline__ void conv2d(const Conv2dParams& p) {
    constexpr int WARPS_DOWN = OUTPUTS / WARP_OUTPUTS, WARPS_TILE = WARPS_DOWN * (PIXELS / WARP_PIXELS);
    constexpr int THREADS = WARPS_TILE * WARPS_K * 32;
    constexpr bool EIGHT_BITS = sizeof(W) == 1;
    constexpr int WEIGHT_CHUNKS = TILE_K * sizeof(W) / 16, WEIGHT_VECTOR = 16 / sizeof(W);
    constexpr int ROW_STEP = THREADS / CHUNKS, WEIGHT_STEP = THREADS / WEIGHT_CHUNKS;
    constexpr int WEIGHT_ROWS = OUTPUTS / WEIGHT_STEP, PIXEL_ROWS = PIXELS / ROW_STEP;
    constexpr int DOWN = WARP_OUTPUTS / 16, ACROSS = WARP_PIXELS / 8;
    constexpr int WEIGHTS = OUTPUTS * TILE_K * sizeof(W) / sizeof(T);  // that many pixel values are as large
    constexpr int STAGE = WEIGHTS + (BOXES ? 0 : PIXELS * TILE_K);
    constexpr int TAPS = 9, WIDE = 8, HIGH = PIXELS / WIDE;
    constexpr int IMAGE_WIDE = WIDE + 2, IMAGE_PIXELS = IMAGE_WIDE * (HIGH + 2), IMAGE = IMAGE_PIXELS * TILE_K;
    constexpr int SUMS_ROW = OUTPUTS + 4;  // f32 a pixel: without the 4, all pixels of a fragment would share a bank
    static_assert(WEIGHT_ROWS >= 1 && PIXEL_ROWS >= 1 && ACROSS % 2 == 0, "a thread needs a chunk of each operand");
    static_assert(!EIGHT_BITS || DOWN % 2 == 0, "32 rows of weights come at a time");
    static_assert(TILE_K / 16 % WARPS_K == 0, "each warp takes whole steps");
    static_assert(!BOXES || !EIGHT_BITS && STAGES <= TAPS, "a box is there before its first tap is");
    extern __shared__ __align__(128) unsigned char memory[];
    T* stages = reinterpret_cast<T*>(memory);

    const int tid = threadIdx.x, lane = tid % 32, warp = tid / 32;
    const int warp_output = warp % WARPS_DOWN * WARP_OUTPUTS, warp_pixel = warp % WARPS_TILE / WARPS_DOWN * WARP_PIXELS;
    const int warp_k = warp / WARPS_TILE;
    const int first_pixel = blockIdx.x * PIXELS, first_output = blockIdx.y * OUTPUTS, split = blockIdx.z;
    const int first_tile = split * p.tiles_per_split;
    const int tiles = min(p.tiles_per_split, p.steps - first_tile);
    // with BOXES, steps go through the taps of 64 channels before the next 64
    const int first_chunk = first_tile / TAPS, last_chunk = (first_tile + tiles - 1) / TAPS;
    const int boxes = BOXES ? p.boxes_x * p.boxes_y : 1, box = static_cast<int>(blockIdx.x) % boxes;
    const int sample = static_cast<int>(blockIdx.x) / boxes;
    const int first_x = BOXES ? box % p.boxes_x * WIDE : 0, first_y = BOXES ? box / p.boxes_x * HIGH : 0;
    const int pixels = p.batch * p.out_height * p.out_width;
    // a pixel of the tile, counted from the first of the result; what lies outside of it is behind the last
    auto pixel_of = [&](int i) {
        if constexpr (!BOXES) return first_pixel + i;
        const int y = first_y + i / WIDE, x = first_x + i % WIDE;
        return y < p.out_height && x < p.out_width ? (sample * p.out_height + y) * p.out_width + x : pixels;
    };

    const int row = tid / CHUNKS, chunk = tid % CHUNKS;
    const int weight_row = tid / WEIGHT_CHUNKS, weight_chunk = tid % WEIGHT_CHUNKS;
    // a row behind the last output is zeros: to read another one instead would send all blocks to the same part of the cache
    const W* weight[WEIGHT_ROWS];
    unsigned present = 0;
#pragma unroll
    for (int i = 0; i < WEIGHT_ROWS; i++) {
        const int output = first_output + weight_row + i * WEIGHT_STEP;
        const bool valid = output < p.outputs;
        present |= static_cast<unsigned>(valid) << i;
        const int column = BOXES ? first_tile % TAPS * p.all_channels + first_chunk * TILE_K : first_tile * TILE_K;
        weight[i] = static_cast<const W*>(p.weight) + weight_chunk * WEIGHT_VECTOR + column +
                    static_cast<int64_t>(valid ? output : 0) * p.k_tiles * TILE_K;
    }
    Patches<T, PIXEL_ROWS> patches{};
    if constexpr (!BOXES) patches.start(p, first_pixel + row, ROW_STEP, first_tile * TILE_K + chunk * VECTOR);
    // of the weights that are fetched next
    int tap = first_tile % TAPS, channel = first_chunk * TILE_K + weight_chunk * WEIGHT_VECTOR;

    const int to = swizzled(row, chunk);  // rows of one thread lie a multiple of 8 apart: the swizzle is the same
    const int weight_to = EIGHT_BITS ? swizzled_e4m3(weight_row, weight_chunk) : to;
    auto fetch_weights = [&](int slot) {
        W* weights = reinterpret_cast<W*>(stages + slot * STAGE) + weight_to;
        int step = TILE_K;
        unsigned there = present;
        if constexpr (BOXES) {
            // behind the last channel there are the next tap's weights, or the next output's
            if (channel >= p.all_channels) there = 0;
            step = ++tap < TAPS ? p.all_channels : TILE_K - (TAPS - 1) * p.all_channels;
            if (tap == TAPS) tap = 0, channel += TILE_K;
        }
#pragma unroll
        for (int i = 0; i < WEIGHT_ROWS; i++) {
            cp_async_16(weights + i * WEIGHT_STEP * TILE_K, weight[i], there >> i & 1);
            weight[i] += step;
        }
    };
    // 64 channels of the box and its border, zeros where the picture ends
    auto fetch_image = [&](int number) {
        T* image = stages + STAGES * STAGE + number % 2 * IMAGE;
        const int first = (first_chunk + number) * TILE_K;
        const bool in_x = first < p.channels;
        const T* from = static_cast<const T*>(in_x ? p.x : p.skip);
        const int channels = in_x ? p.channels : p.skip_channels, start = in_x ? first : first - p.channels;
        const int halved = in_x && p.upsample;
#pragma unroll 1
        for (int i = tid; i < IMAGE_PIXELS * CHUNKS; i += THREADS) {
            const int place = i / CHUNKS, at = start + i % CHUNKS * VECTOR;
            const int y = first_y + place / IMAGE_WIDE - 1, x = first_x + place % IMAGE_WIDE - 1;
            const bool valid = at < channels && static_cast<unsigned>(y) < static_cast<unsigned>(p.height) &&
                               static_cast<unsigned>(x) < static_cast<unsigned>(p.width);
            const int64_t pixel = (static_cast<int64_t>(sample) * (p.height >> halved) + (y >> halved)) * (p.width >> halved) + (x >> halved);
            cp_async_16(image + swizzled(place, i % CHUNKS), from + (valid ? pixel * channels + at : 0), valid);
        }
    };
    auto fetch_pixels = [&](int slot) {
        T* pixels = stages + slot * STAGE + to + WEIGHTS;
        if (patches.left <= 0) patches.locate(p);
#pragma unroll
        for (int i = 0; i < PIXEL_ROWS; i++) patches.fetch(i, pixels + i * ROW_STEP * TILE_K);
        patches.advance(p);
    };

    float sums[DOWN][ACROSS][4] = {};
    // no kernel writes weights: they need not wait for the one ahead
#pragma unroll 1
    for (int i = 0; i < min(STAGES - 1, tiles); i++) fetch_weights(i);
    // a thread finishes the same outputs of every pixel that it finishes: their bias is fetched once
    constexpr int COLUMNS = OUTPUTS / VECTOR;  // groups of outputs in a row
    // rows of pixels at a time; threads that are left over finish nothing
    constexpr int PIXEL_STEP = power_of_two_within(THREADS / COLUMNS), FINISHERS = PIXEL_STEP * COLUMNS;
    static_assert(PIXELS % PIXEL_STEP == 0, "each thread that finishes has as many turns");
    const int own_output = first_output + tid % COLUMNS * VECTOR;
    float bias[VECTOR];
    float scale[EIGHT_BITS ? VECTOR : 1];
    if constexpr (EIGHT_BITS) {
#pragma unroll
        for (int i = 0; i < VECTOR; i++) scale[i] = own_output + i < p.outputs ? p.scale[own_output + i] : 0.0f;
    }
#pragma unroll
    for (int i = 0; i < VECTOR; i++)
        bias[i] = p.bias != nullptr && own_output + i < p.outputs ? p.bias[own_output + i] : 0.0f;
    // the next kernel begins when this one ends: blocks of it that wait beside these cost more than their early start brings
    wait_for_previous();
    if constexpr (BOXES) {
        fetch_image(0);
        if (first_chunk < last_chunk) fetch_image(1);
    }
#pragma unroll 1
    for (int i = 0; i < STAGES - 1; i++) {
        if constexpr (!BOXES)
            if (i < tiles) fetch_pixels(i);
        cp_async_commit();
    }
    // a layer that waits for arithmetic leaves memory idle: the next layer's weights may come to the second-level cache meanwhile
    const int64_t block = (static_cast<int64_t>(blockIdx.z) * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    const int64_t blocks = static_cast<int64_t>(gridDim.x) * gridDim.y * gridDim.z;
    for (int64_t at = (block * THREADS + tid) * 128; at < p.next_bytes; at += blocks * THREADS * 128)
        prefetch_l2(static_cast<const char*>(p.next) + at);
    // where a lane's rows lie in a stage
    const T* left = EIGHT_BITS ? stages : stages + (warp_output + lane % 16) * TILE_K;
    const T* right = stages + WEIGHTS + (warp_pixel + lane % 8 + lane / 16 * 8) * TILE_K;
    const int corner = (warp_pixel / WIDE + lane / 16) * IMAGE_WIDE + lane % 8;
    int slot = 0, next = STAGES - 1, number = 0, now = first_tile % TAPS;
#pragma unroll 1
    for (int tile = 0; tile < tiles; tile++) {
        cp_async_wait<STAGES - 2>();
        __syncthreads();
        if (tile + STAGES - 1 < tiles) {
            fetch_weights(next);
            if constexpr (!BOXES) fetch_pixels(next);
        }
        if constexpr (BOXES)
            if (now == 0 && number > 0 && first_chunk + number < last_chunk) fetch_image(number + 1);
        cp_async_commit();
        const T* weights = left + slot * STAGE;
        const T* pixels = right + slot * STAGE;
        const T* image = stages + STAGES * STAGE + number % 2 * IMAGE;
        const int place = corner + now / 3 * IMAGE_WIDE + now % 3;
#pragma unroll
        for (int step = 0; step < TILE_K / 16 / WARPS_K; step++) {
            const int k = step * WARPS_K + warp_k;
            uint32_t a[DOWN][4], b[ACROSS / 2][4];
            const int right_chunk = ((2 * k + lane / 8 % 2) ^ (lane & 7)) * VECTOR;
            if constexpr (EIGHT_BITS) {
                const W* rows = reinterpret_cast<const W*>(weights) + swizzled_e4m3(warp_output + lane, k);
#pragma unroll
                for (int i = 0; i < DOWN; i += 2) {
                    uint32_t packed[4];
                    ldmatrix_x4(packed, rows + i * 16 * TILE_K);
#pragma unroll
                    for (int half = 0; half < 4; half++) {
                        // of eight rows each: the lower of a tile, the upper, and those of the next tile
                        widen_e4m3<T>(packed[half], a[i + half / 2][half % 2], a[i + half / 2][half % 2 + 2]);
                    }
                }
            } else {
                const int left_chunk = ((2 * k + lane / 16) ^ (lane & 7)) * VECTOR;
#pragma unroll
                for (int i = 0; i < DOWN; i++) ldmatrix_x4(a[i], weights + i * 16 * TILE_K + left_chunk);
            }
#pragma unroll
            for (int j = 0; j < ACROSS / 2; j++) {
                if constexpr (BOXES) ldmatrix_x4(b[j], image + swizzled(place + j * 2 * IMAGE_WIDE, 2 * k + lane / 8 % 2));
                else ldmatrix_x4(b[j], pixels + j * 16 * TILE_K + right_chunk);
            }
#pragma unroll
            for (int i = 0; i < DOWN; i++)
#pragma unroll
                for (int j = 0; j < ACROSS; j++)
                    mma_16x8x16<T>(sums[i][j], a[i], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
        }
        slot = slot + 1 == STAGES ? 0 : slot + 1;
        next = next + 1 == STAGES ? 0 : next + 1;
        if (++now == TAPS) now = 0, number++;
    }
    cp_async_wait<0>();

    // through shared memory, so that the warps of a tile meet and outputs that lie side by side are stored together
    __syncthreads();
    float* sums_of_warps = reinterpret_cast<float*>(memory);
    float* own = sums_of_warps + warp_k * PIXELS * SUMS_ROW;
#pragma unroll
    for (int i = 0; i < DOWN; i++)
#pragma unroll
        for (int j = 0; j < ACROSS; j++)
#pragma unroll
            for (int c = 0; c < 4; c++) {
                const int output = warp_output + i * 16 + lane / 4 + c / 2 * 8;
                const int pixel = warp_pixel + j * 8 + lane % 4 * 2 + c % 2;
                own[pixel * SUMS_ROW + output] = sums[i][j][c];
            }
    constexpr int GROUPS = PIXELS * COLUMNS, TURNS = PIXELS / PIXEL_STEP;
    const int own_pixel = tid / COLUMNS;
    // a turn ahead
    auto residual_of = [&](int turn) {
        const int pixel = pixel_of(own_pixel + turn * PIXEL_STEP);
        if (p.residual == nullptr || turn >= TURNS || pixel >= pixels || own_output >= p.outputs) return uint4{};
        return *reinterpret_cast<const uint4*>(static_cast<const T*>(p.residual) + static_cast<int64_t>(pixel) * p.outputs + own_output);
    };
    uint4 residual = residual_of(0);
    __syncthreads();
    auto add = [](float(&v)[VECTOR], const float* from) {
#pragma unroll
        for (int c = 0; c < VECTOR; c += 4) {
            const float4 part = __ldcg(reinterpret_cast<const float4*>(from + c));
            v[c] += part.x;
            v[c + 1] += part.y;
            v[c + 2] += part.z;
            v[c + 3] += part.w;
        }
    };
    auto tile_sums = [&](int group, float(&v)[VECTOR]) {
        const float* from = sums_of_warps + group / COLUMNS * SUMS_ROW + group % COLUMNS * VECTOR;
#pragma unroll
        for (int c = 0; c < VECTOR; c++) v[c] = from[c];
#pragma unroll
        for (int w = 1; w < WARPS_K; w++)
#pragma unroll
            for (int c = 0; c < VECTOR; c++) v[c] += from[w * PIXELS * SUMS_ROW + c];
    };
    const float* parts = nullptr;
    if (p.splits > 1) {
        const int tile = blockIdx.y * gridDim.x + blockIdx.x;
        float* all = p.partial + static_cast<int64_t>(tile) * p.splits * PIXELS * OUTPUTS;
        float* part = all + split * PIXELS * OUTPUTS;
#pragma unroll 1
        for (int group = tid; group < GROUPS; group += THREADS) {
            float v[VECTOR];
            tile_sums(group, v);
            __stcg(reinterpret_cast<float4*>(part + group * VECTOR), make_float4(v[0], v[1], v[2], v[3]));
            __stcg(reinterpret_cast<float4*>(part + group * VECTOR + 4), make_float4(v[4], v[5], v[6], v[7]));
        }
        __shared__ bool last;
        __syncthreads();
        // releases what the whole block wrote, and acquires what the others did
        if (tid == 0) last = atomic_add_acq_rel(p.arrivals + tile, 1u) == p.splits - 1u;
        __syncthreads();
        if (!last) return;
        if (tid == 0) p.arrivals[tile] = 0;
        parts = all;
    }
    // not unrolled: code that is run once waits for memory, line after line
#pragma unroll 1
    for (int turn = 0; turn < TURNS; turn++) {
        const int pixel = pixel_of(own_pixel + turn * PIXEL_STEP), group = tid + turn * FINISHERS;
        const uint4 now = residual;
        residual = residual_of(turn + 1);
        if (tid >= FINISHERS || pixel >= pixels || own_output >= p.outputs) continue;
        float v[VECTOR] = {};
        if (parts == nullptr) {
            tile_sums(group, v);
        } else {
#pragma unroll 4
            for (int s = 0; s < p.splits; s++) add(v, parts + s * PIXELS * OUTPUTS + group * VECTOR);
        }
        if constexpr (EIGHT_BITS) {
#pragma unroll
            for (int i = 0; i < VECTOR; i++) v[i] *= scale[i];
        }
        if (p.wide) {
            float4* y = reinterpret_cast<float4*>(static_cast<float*>(p.y) + static_cast<int64_t>(pixel) * p.outputs + own_output);
            y[0] = make_float4(v[0], v[1], v[2], v[3]);
            y[1] = make_float4(v[4], v[5], v[6], v[7]);
        } else {
            finish8<T>(p, pixel, p.shift != nullptr ? p.area.quotient(pixel) : 0, own_output, v, bias, now);
        }
    }
}

// The tiles that the host chooses from: `Tile` in stages/tensor_cores/plan.rs has the same.
#define TILE(T, W, NAME, OUTPUTS, PIXELS, WARP_OUTPUTS, WARP_PIXELS, WARPS_K, STAGES, ...)                                         \
    extern "C" __global__ void __launch_bounds__(OUTPUTS / WARP_OUTPUTS * (PIXELS / WARP_PIXELS) * WARPS_K * 32)                  \
        mirage_##NAME##_##OUTPUTS##x##PIXELS(const __grid_constant__ Conv2dParams p) {                                             \
        conv2d<T, W, OUTPUTS, PIXELS, WARP_OUTPUTS, WARP_PIXELS, WARPS_K, STAGES, ##__VA_ARGS__>(p);                              \
    }
