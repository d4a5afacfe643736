// Attention for short heads: softmax(q·kᵀ · scale) · v with an online softmax (arXiv:2307.08691), made for head dims that are not what
// libraries are built for, such as 12 or 24, and for few tokens.
//
// Against the rung below: queries, keys and values are read where the projection left them, whatever lies between two tokens, so nothing
// is padded or copied; a head of 12 is computed as 16 and not as 32; the sums of a row's weights come out of the tensor cores, as the product
// with a column of ones, for which there is room behind a v of 12 or 24; a row's largest score is looked for in the first tile only, and
// again where weights relative to it become too large; and where exponentials are the limit (a processor makes 16 in a
// clock, and two million of them for 4096 tokens), a share of them is computed as polynomials in pairs by units that would be idle.
//
// A warp has 16 queries, or twice 16; keys and values pass by in tiles of 64 through a ring of stages (cp.async, ldmatrix, mma.m16n8k16). Where
// there are few queries, two groups of warps share a block's queries, take the tiles in turn, and add up at the end.
//
// Registers by ptxas 13.0 for sm_90: heads of 12, 86 to 128; 24, 107 to 168; 192, 248 to 250; none spilled. Shared memory: 16 bytes and 2 more for each
// value of a head, up to the next multiple of 16, times 64, two and the stages; 18 KiB for heads of 12, 100 KiB for 192. Measured on an H100: 4096
// tokens with 16 heads of 12, 92 microseconds in a recorded call, of which the exponentials and the rounding of weights, were nothing else done, take 63 to 65 and the products 17:
// 19 % of the tensor cores' arithmetic; short ones, 2 to 14, most of which is latency.
#include "ptx.cuh"

constexpr int KEYS = 64, WARPS = 4, THREADS = WARPS * 32;  // threads of a group
constexpr float LARGEST = 0x1p60f;      // of the weights of a row in a tile: f16 ends at 2^16, bf16 where f32 does

struct AttentionParams {
    const void* q;  // (batch, queries, heads, head_dim) by strides, each head's values together
    const void* k;  // (batch, tokens, heads, head_dim), likewise
    const void* v;  // likewise
    void* y;        // (batch, queries, heads, head_dim), contiguous
    int64_t q_batch, q_token, q_head, k_batch, k_token, k_head, v_batch, v_token, v_head;
    int queries, tokens, heads, head_dim;
    float scale;  // times log2(e)
};

// What differs between storage types, for exponentials as polynomials: bits of the mantissa, the exponent of one, and what the largest weight of
// the first tile is a power of, so that in f16 those of 20 octaves below it are normal numbers.
template <typename T> struct Exponent;
template <> struct Exponent<__half> {
    static constexpr int MANTISSA = 10, ONE = 15, PEAK = 6;
};
template <> struct Exponent<__nv_bfloat16> {
    static constexpr int MANTISSA = 7, ONE = 127, PEAK = 0;
};

// 2^x and 2^y in the storage type, x in the lower half. Bits that count last places make a straight line from each power of two to the next, which is
// 2^x where x is whole and up to 9 % more between: times 1 + d, a cubic in the mantissa (the one whose largest relative error, 6.6e-4, is least). Where x
// is too large the line goes on into infinity and NaN; in the octave below the smallest normal number it is too low, by up to half of that number; below, it is negative, for which there is zero. NaN stays NaN.
template <typename T> __device__ __forceinline__ uint32_t exp2_polynomial(float x, float y) {
    using Bits = Exponent<T>;
    // rounded to a whole number of last places: a float too small to be normal is one, in its bits, those of larger ones are more, and those of negative ones negative
    const float place = __int_as_float(1 << Bits::MANTISSA), from_zero = Bits::ONE;
    const int low = __float_as_int(__fmul_rn(x + from_zero, place)), high = __float_as_int(__fmul_rn(y + from_zero, place));
    const uint32_t line_bits = pack_saturated(low, high);
    const uint32_t mantissa_bits = (line_bits & ((1 << Bits::MANTISSA) - 1) * 0x10001u) | packed<T>(1.0f, 1.0f);
    typename Pair<T>::Type line, mantissa;
    memcpy(&line, &line_bits, 4);
    memcpy(&mantissa, &mantissa_bits, 4);
    auto both = [](float value) { return Pair<T>::round(value, value); };
    const auto middle = __hfma2(mantissa, both(1.0f), both(-1.5f));
    auto d = __hfma2(middle, both(-0.1064486f), both(0.22847227f));
    d = __hfma2(d, middle, both(0.02661186f));
    d = __hfma2(d, middle, both(-0.0577804f));
    const auto power = __hfma2_relu(d, line, line);
    uint32_t bits;
    memcpy(&bits, &power, 4);
    return bits;
}

// DIM: the head dim, up to the next multiple of 16; HEAD: the head dim itself where it is known and less, else 0. TILES of 16 queries for
// each warp. BYTES of a copy.
template <typename T, int DIM, int HEAD, int TILES, int GROUPS, int BYTES, int STAGES>
__device__ __forceinline__ void attention(const AttentionParams& p) {
    constexpr int ROW = DIM + 8;  // so that the eight rows of a matrix lie in different banks
    constexpr int VALUES = BYTES / 2;
    constexpr int STAGE = 2 * KEYS * ROW, STAGE_BYTES = STAGE * 2;
    constexpr int STEPS = DIM / 16, COLUMNS = KEYS / 8;
    extern __shared__ __align__(128) unsigned char memory[];
    const int group = threadIdx.x / THREADS, tid = threadIdx.x % THREADS, warp = tid / 32, lane = tid % 32;
    const int head = blockIdx.y, sample = blockIdx.z;
    T* stages = reinterpret_cast<T*>(memory) + group * STAGES * STAGE;
    const T* q = static_cast<const T*>(p.q) + sample * p.q_batch + head * p.q_head;
    const T* k = static_cast<const T*>(p.k) + sample * p.k_batch + head * p.k_head;
    const T* v = static_cast<const T*>(p.v) + sample * p.v_batch + head * p.v_head;
    let_next_begin();

    // where there is room behind a head, it is filled once: the first column behind v with ones, so that its product is a row's total
    constexpr bool ROOM = HEAD > 0;
    if constexpr (ROOM) {
        static_assert(DIM - HEAD == VALUES && THREADS == 2 * KEYS, "one piece behind each row, a row for each thread");
        const uint32_t one = tid < KEYS ? 0u : packed<T>(1.0f, 0.0f);
#pragma unroll
        for (int i = 0; i < STAGES; i++)
#pragma unroll
            for (int at = 0; at < VALUES; at += 2)
                *reinterpret_cast<uint32_t*>(stages + i * STAGE + tid * ROW + HEAD + at) = at == 0 ? one : 0u;
    }
    wait_for_previous();

    // a thread has a piece of a row of keys, of the row that is ROWS below, and so on, and the same of values; some threads have none
    constexpr int PIECES = (ROOM ? HEAD : DIM) / VALUES, ROWS = power_of_two_within(THREADS / PIECES);
    static_assert(KEYS % ROWS == 0, "whole turns of rows");
    const int own = tid / PIECES, column = tid % PIECES * VALUES;
    const bool inside = ROOM || column < p.head_dim;
    const T* own_key = k + (group * KEYS + own) * p.k_token + column;
    const T* own_value = v + (group * KEYS + own) * p.v_token + column;
    // a tile, of which there are so many tokens, into the stage that begins so many bytes from the first
    auto fetch = [&](int stage_at, int left) {
        if (own >= ROWS) return;
        unsigned char* row = reinterpret_cast<unsigned char*>(stages) + (own * ROW + column) * 2 + stage_at;
        const T *key = own_key, *value = own_value;
        auto copy = [&](int i, bool there) {
            cp_async<BYTES>(row + i * ROW * 2, key, there);
            cp_async<BYTES>(row + (KEYS + i) * ROW * 2, value, there);
            key += ROWS * p.k_token;
            value += ROWS * p.v_token;
        };
        if (left >= KEYS) {
#pragma unroll
            for (int i = 0; i < KEYS; i += ROWS) copy(i, inside);
            own_key += KEYS * GROUPS * p.k_token;
            own_value += KEYS * GROUPS * p.v_token;
        } else {
            // the last one
#pragma unroll
            for (int i = 0; i < KEYS; i += ROWS) copy(i, inside && own + i < left);
        }
    };
    int left = p.tokens - group * KEYS;  // tokens from this group's next tile on
#pragma unroll
    for (int i = 0; i < STAGES - 1; i++) {
        if (left > i * GROUPS * KEYS) fetch(i * STAGE_BYTES, left - i * GROUPS * KEYS);
        cp_async_commit();
    }

    // queries as the left operand: rows lane / 4 and 8 below, two values at lane % 4 * 2 and 8 further
    const int first = (blockIdx.x * WARPS + warp) * 16 * TILES + lane / 4;
    uint32_t queries[TILES][STEPS][4];
#pragma unroll
    for (int t = 0; t < TILES; t++)
#pragma unroll
        for (int s = 0; s < STEPS; s++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int row = first + t * 16 + i % 2 * 8, column = s * 16 + lane % 4 * 2 + i / 2 * 8;
                const bool there = row < p.queries && column < p.head_dim;
                queries[t][s][i] = there ? *reinterpret_cast<const uint32_t*>(q + row * p.q_token + column) : 0u;
            }

    // the last is what is added to a score times the scale: minus the largest known one of its row, times the scale
    float sums[TILES][DIM / 8][4] = {}, totals[TILES][2] = {}, minus_largest[TILES][2];
#pragma unroll
    for (int t = 0; t < TILES; t++) minus_largest[t][0] = minus_largest[t][1] = INFINITY;
    const uint32_t ones = packed<T>(1.0f, 1.0f);
    // with twice 16 queries, scores come 16 keys at a time: for those of a whole tile there are no registers
    constexpr bool STREAMED = TILES > 1;
    constexpr unsigned POLYNOMIALS = STREAMED ? 0x88 : 0x80;  // which of eight columns of a tile's weights are polynomials

    // in the ring, in bytes: where the next tile lies, and where the one that is fetched goes; and in a stage, the row that this lane gives for ldmatrix
    int from = 0, next_at = (STAGES - 1) * STAGE_BYTES;
    const unsigned char* key_rows = reinterpret_cast<unsigned char*>(stages) + ((lane % 8 + lane / 16 * 8) * ROW + lane / 8 % 2 * 8) * 2;
    const unsigned char* value_rows = reinterpret_cast<unsigned char*>(stages) + ((KEYS + lane % 16) * ROW + lane / 16 * 8) * 2;
    bool exact = true;
#pragma unroll 1
    for (; left > 0; left -= GROUPS * KEYS) {
        cp_async_wait<STAGES - 2>();
        if constexpr (GROUPS == 1) __syncthreads();
        else meet<THREADS>(1 + group);
        if (left > (STAGES - 1) * GROUPS * KEYS) fetch(next_at, left - (STAGES - 1) * GROUPS * KEYS);
        cp_async_commit();
        const unsigned char *keys = key_rows + from, *values = value_rows + from;
        next_at = from;
        from = from == (STAGES - 1) * STAGE_BYTES ? 0 : from + STAGE_BYTES;

        // scores of columns j and j + 1, eight keys each
        auto score = [&](int j, float(&scores)[TILES][2][4]) {
#pragma unroll
            for (int t = 0; t < TILES; t++)
#pragma unroll
                for (int i = 0; i < 8; i++) scores[t][i / 4][i % 4] = 0.0f;
#pragma unroll
            for (int s = 0; s < STEPS; s++) {
                uint32_t b[4];
                ldmatrix_x4(b, keys + (j * 8 * ROW + s * 16) * 2);
#pragma unroll
                for (int t = 0; t < TILES; t++) {
                    mma_16x8x16<T>(scores[t][0], queries[t][s], b[0], b[1]);
                    mma_16x8x16<T>(scores[t][1], queries[t][s], b[2], b[3]);
                }
            }
        };
        // no weight where there is no key
        auto leave_out = [&](int j, float(&scores)[TILES][2][4]) {
#pragma unroll
            for (int t = 0; t < TILES; t++)
#pragma unroll
                for (int i = 0; i < 8; i++)
                    if (j * 8 + i / 4 * 8 + lane % 4 * 2 + i % 2 >= left) scores[t][i / 4][i % 4] = -INFINITY;
        };
        uint32_t weights[COLUMNS / 2][TILES][4];
        constexpr int ADDED = ROOM ? DIM / 8 : 1, TOTAL = HEAD / 8;
        float added[TILES][ADDED][4];  // by the tile: with ROOM to sums and totals, else to the totals alone
        auto add_values = [&](int j, auto& onto) {
#pragma unroll
            for (int d = 0; d < DIM / 8; d += 2) {
                uint32_t b[4];
                ldmatrix_x4_transposed(b, values + (j * 8 * ROW + d * 8) * 2);
#pragma unroll
                for (int t = 0; t < TILES; t++) {
                    mma_16x8x16<T>(onto[t][d], weights[j / 2][t], b[0], b[1]);
                    mma_16x8x16<T>(onto[t][d + 1], weights[j / 2][t], b[2], b[3]);
                }
            }
        };
        auto weigh = [&](int j, const float(&scores)[TILES][2][4]) {
#pragma unroll
            for (int t = 0; t < TILES; t++) {
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    // what is a result's layout is a left operand's
                    const float a = scores[t][i / 2][i % 2 * 2], b = scores[t][i / 2][i % 2 * 2 + 1], offset = minus_largest[t][i % 2];
                    const float x = fmaf(a, p.scale, offset), y = fmaf(b, p.scale, offset);
                    weights[j / 2][t][i] = POLYNOMIALS >> j + i / 2 & 1 ? exp2_polynomial<T>(x, y) : packed<T>(exp2_approx(x), exp2_approx(y));
                }
                if constexpr (!ROOM) mma_16x8x16<T>(added[t][0], weights[j / 2][t], ones, ones);
            }
            if constexpr (ROOM) add_values(j, added);
        };
        auto take_largest = [&](const float(&scores)[TILES][2][4], float(&of)[TILES][2]) {
#pragma unroll
            for (int t = 0; t < TILES; t++)
#pragma unroll
                for (int i = 0; i < 8; i++) of[t][i % 4 / 2] = fmaxf(of[t][i % 4 / 2], scores[t][i / 4][i % 4]);
        };

        // a row's weights are first taken relative to the largest score before this tile; where that makes their total so large that a
        // weight may have no room in its type, or sums none in f32, all is done again with the largest known, as for the first tile
#pragma unroll 1
        while (true) {
            float scores[COLUMNS / 2][TILES][2][4];
            if constexpr (!STREAMED) {
#pragma unroll
                for (int j = 0; j < COLUMNS; j += 2) score(j, scores[j / 2]);
                if (left < KEYS)
#pragma unroll
                    for (int j = 0; j < COLUMNS; j += 2) leave_out(j, scores[j / 2]);
            }
            if (exact) {
                float largest[TILES][2];
#pragma unroll
                for (int t = 0; t < TILES; t++) largest[t][0] = largest[t][1] = -INFINITY;
                if constexpr (STREAMED) {
#pragma unroll 1
                    for (int j = 0; j < COLUMNS; j += 2) {
                        score(j, scores[0]);
                        leave_out(j, scores[0]);
                        take_largest(scores[0], largest);
                    }
                } else {
#pragma unroll
                    for (int j = 0; j < COLUMNS; j += 2) take_largest(scores[j / 2], largest);
                }
#pragma unroll
                for (int t = 0; t < TILES; t++)
#pragma unroll
                    for (int r = 0; r < 2; r++) {
                        largest[t][r] = fmaxf(largest[t][r], __shfl_xor_sync(~0u, largest[t][r], 1));
                        largest[t][r] = fmaxf(largest[t][r], __shfl_xor_sync(~0u, largest[t][r], 2));
                        // nothing is known before the first tile, where this is infinite and the factor 0
                        const float now = Exponent<T>::PEAK - largest[t][r] * p.scale, factor = exp2_approx(fminf(now - minus_largest[t][r], 0.0f));
                        minus_largest[t][r] = fminf(now, minus_largest[t][r]);
                        totals[t][r] *= factor;
#pragma unroll
                        for (int d = 0; d < DIM / 8; d++) {
                            sums[t][d][2 * r] *= factor;
                            sums[t][d][2 * r + 1] *= factor;
                        }
                    }
            }
#pragma unroll
            for (int t = 0; t < TILES; t++)
#pragma unroll
                for (int i = 0; i < 4 * ADDED; i++) added[t][i / 4][i % 4] = 0.0f;
            if constexpr (STREAMED) {
                auto all = [&](bool whole) {
#pragma unroll
                    for (int j = 0; j < COLUMNS; j += 2) {
                        score(j, scores[j / 2]);
                        if (!whole) leave_out(j, scores[j / 2]);
                        weigh(j, scores[j / 2]);
                    }
                };
                // said twice, so that a whole tile is not asked about its keys
                if (left >= KEYS) all(true);
                else all(false);
            } else {
#pragma unroll
                for (int j = 0; j < COLUMNS; j += 2) weigh(j, scores[j / 2]);
            }
            bool fit = true;
#pragma unroll
            for (int t = 0; t < TILES; t++) fit = fit && added[t][TOTAL][0] < LARGEST && added[t][TOTAL][2] < LARGEST;
            if (exact || __all_sync(~0u, fit)) break;
            exact = true;
        }
        exact = false;
        if constexpr (ROOM) {
#pragma unroll
            for (int t = 0; t < TILES; t++)
#pragma unroll
                for (int i = 0; i < 4 * ADDED; i++) sums[t][i / 4][i % 4] += added[t][i / 4][i % 4];
        } else {
#pragma unroll
            for (int t = 0; t < TILES; t++) {
                totals[t][0] += added[t][0][0];
                totals[t][1] += added[t][0][2];
            }
#pragma unroll
            for (int j = 0; j < COLUMNS; j += 2) add_values(j, sums);
        }
    }
    if constexpr (ROOM) {
        // the column of ones belongs to one thread of four
#pragma unroll
        for (int t = 0; t < TILES; t++)
#pragma unroll
            for (int r = 0; r < 2; r++) totals[t][r] = __shfl_sync(~0u, sums[t][HEAD / 8][2 * r], lane / 4 * 4 + HEAD % 8 / 2);
    }
    cp_async_wait<0>();

    if constexpr (GROUPS == 2) {
        // the second group's sums, totals and what they are relative to, thread by thread
        constexpr int SUMS = DIM / 8 * 4;
        static_assert(TILES == 1 && (SUMS + 4) * 4 * THREADS <= 2 * STAGES * STAGE * 2, "they take the place of the stages");
        __syncthreads();
        float* shared = reinterpret_cast<float*>(memory) + tid;
        if (group == 1) {
#pragma unroll
            for (int d = 0; d < DIM / 8; d++)
#pragma unroll
                for (int i = 0; i < 4; i++) shared[(d * 4 + i) * THREADS] = sums[0][d][i];
#pragma unroll
            for (int r = 0; r < 2; r++) {
                shared[(SUMS + r) * THREADS] = totals[0][r];
                shared[(SUMS + 2 + r) * THREADS] = minus_largest[0][r];
            }
        }
        __syncthreads();
        if (group == 1) return;
#pragma unroll
        for (int r = 0; r < 2; r++) {
            const float other = shared[(SUMS + 2 + r) * THREADS], now = fminf(minus_largest[0][r], other);
            const float own_share = exp2_approx(now - minus_largest[0][r]), other_share = exp2_approx(now - other);
            totals[0][r] = totals[0][r] * own_share + shared[(SUMS + r) * THREADS] * other_share;
#pragma unroll
            for (int d = 0; d < DIM / 8; d++)
#pragma unroll
                for (int i = 2 * r; i < 2 * r + 2; i++) sums[0][d][i] = sums[0][d][i] * own_share + shared[(d * 4 + i) * THREADS] * other_share;
        }
    }

#pragma unroll
    for (int t = 0; t < TILES; t++)
#pragma unroll
        for (int r = 0; r < 2; r++) {
            const int row = first + t * 16 + r * 8;
            if (row >= p.queries) continue;
            const float share = __fdividef(1.0f, totals[t][r]);
            T* y = static_cast<T*>(p.y) + ((static_cast<int64_t>(sample) * p.queries + row) * p.heads + head) * p.head_dim;
#pragma unroll
            for (int d = 0; d < DIM / 8; d++) {
                const int column = d * 8 + lane % 4 * 2;
                if (column < (ROOM ? HEAD : p.head_dim))
                    *reinterpret_cast<uint32_t*>(y + column) = packed<T>(sums[t][d][2 * r] * share, sums[t][d][2 * r + 1] * share);
            }
        }
}

// RESIDENT: blocks that a processor holds at least.
#define ATTENTION(T, NAME, LABEL, DIM, HEAD, TILES, GROUPS, BYTES, STAGES, RESIDENT)                                              \
    extern "C" __global__ void __launch_bounds__(THREADS * GROUPS, RESIDENT)                                                      \
        mirage_attention_##NAME##_##LABEL##x##TILES##x##GROUPS(const AttentionParams p) {                                         \
        attention<T, DIM, HEAD, TILES, GROUPS, BYTES, STAGES>(p);                                                                 \
    }
#define ATTENTIONS(T, NAME)                                                                                                       \
    ATTENTION(T, NAME, 12, 16, 12, 1, 1, 8, 3, 5)                                                                                 \
    ATTENTION(T, NAME, 12, 16, 12, 1, 2, 8, 3, 2)                                                                                 \
    ATTENTION(T, NAME, 12, 16, 12, 2, 1, 8, 3, 4)                                                                                 \
    ATTENTION(T, NAME, 16, 16, 0, 1, 1, 8, 3, 6)                                                                                  \
    ATTENTION(T, NAME, 16, 16, 0, 1, 2, 8, 3, 3)                                                                                  \
    ATTENTION(T, NAME, 16, 16, 0, 2, 1, 8, 3, 3)                                                                                  \
    ATTENTION(T, NAME, 24, 32, 24, 1, 1, 16, 3, 4)                                                                                \
    ATTENTION(T, NAME, 24, 32, 24, 1, 2, 16, 3, 2)                                                                                \
    ATTENTION(T, NAME, 24, 32, 24, 2, 1, 16, 3, 3)                                                                                \
    ATTENTION(T, NAME, 32, 32, 0, 1, 1, 16, 3, 5)                                                                                 \
    ATTENTION(T, NAME, 32, 32, 0, 1, 2, 16, 3, 2)                                                                                 \
    ATTENTION(T, NAME, 32, 32, 0, 2, 1, 16, 3, 3)                                                                                 \
    ATTENTION(T, NAME, 48, 48, 0, 1, 1, 16, 3, 3)                                                                                 \
    ATTENTION(T, NAME, 64, 64, 0, 1, 1, 16, 3, 3)                                                                                 \
    ATTENTION(T, NAME, 96, 96, 0, 1, 1, 16, 2, 3)                                                                                 \
    ATTENTION(T, NAME, 128, 128, 0, 1, 1, 16, 2, 2)                                                                               \
    ATTENTION(T, NAME, 192, 192, 0, 1, 1, 16, 2, 2)
ATTENTIONS(__half, f16)
ATTENTIONS(__nv_bfloat16, bf16)
