// Attention for short heads: softmax(q·kᵀ · scale) · v with an online softmax (arXiv:2307.08691), made for head dims that are not what
// libraries are built for, such as 12 or 24, and for few tokens.
//
// Against the rung below: queries, keys and values are read where the projection left them, whatever lies between two tokens, so nothing
// is padded or copied; a head of 12 is computed as 16 and not as 32; the sums of a row's weights come out of the tensor cores, as the product
// with a column of ones, for which there is room behind a v of 12 or 24; a row's largest score is looked for in the first tile only, and
// again where weights relative to it become too large; and where exponentials are the limit (a processor makes 16 in a
// clock, and two million of them for 4096 tokens), a share of them is computed as polynomials by units that would be idle. Heads of up to 16 in f16 have
// their scores as halves, two at a time from the product to the weights.
//
// A warp has 16 queries, or twice 16; keys and values pass by in tiles of 64 through a ring of stages (cp.async, ldmatrix, mma.m16n8k16). Where
// there are few queries, two groups of warps share a block's queries, take the tiles in turn, and add up at the end.
//
// REGISTERS
#include "ptx.cuh"
#include <type_traits>

constexpr int KEYS = 64;                       // of a tile
constexpr float LARGEST = 0x1p60f;             // of the weights of a row in a tile: f16 ends at 2^16, bf16 where f32 does
constexpr float BELOW = 1.0f;                  // octaves from the weight 1 to a row's largest one, where scores are halves, which are the coarser the larger
constexpr unsigned POLYNOMIALS = 0x88;         // which of eight columns of a tile's weights are polynomials
constexpr unsigned HALVES_POLYNOMIALS = 0x92;  // the same where scores are halves

struct AttentionParams {
    const void* q;  // (batch, queries, heads, head_dim) by strides, each head's values together
    const void* k;  // (batch, tokens, heads, head_dim), likewise
    const void* v;  // likewise
    void* y;        // (batch, queries, heads, head_dim), contiguous
    int64_t q_batch, q_token, q_head, k_batch, k_token, k_head, v_batch, v_token, v_head;
    int queries, tokens, heads, head_dim;
    float scale;  // times log2(e)
};

// 2^x as a polynomial, x cut to where its exponent has room by the instruction that makes it, which can cut to [0, 1]: of y = (x - LOWEST) / RANGE.
// The nearest whole number goes into the exponent, 2^rest is within 7.5e-5 (the cubic whose largest relative error between -1/2 and 1/2
// is least; a weight is rounded to half precision, or 4.9e-4, afterwards).
constexpr float LOWEST = -125.0f, RANGE = 253.0f;
__device__ __forceinline__ float exp2_polynomial(float y) {
    const float magic = 12582912.0f + LOWEST;  // 1.5 · 2^23 is added: rounded to a whole number, whose low 9 bits are those of x
    const float shifted = fmaf(y, RANGE, magic), rest = fmaf(y, RANGE, magic - shifted);
    const float power = fmaf(fmaf(fmaf(0.05517167f, rest, 0.24261112f), rest, 0.69326099f), rest, 0.99992807f);
    return __int_as_float(__float_as_int(power) + (__float_as_int(shifted) << 23));
}

template <typename T> __device__ __forceinline__ uint32_t packed(float a, float b) {
    const typename Pair<T>::Type pair = Pair<T>::round(a, b);
    uint32_t bits;
    memcpy(&bits, &pair, 4);
    return bits;
}

// The same of two halves: cut to where a half's exponent has room, and 2^-8 of it, by the instruction that finds the whole number below x, which can cut to [0, 1]. Within 1.1e-3 down
// to 2^-14, of which rounding is the most, and within 2^-24 below; infinite a little above 8.
__device__ __forceinline__ uint32_t exp2_polynomial_f16x2(uint32_t x) {
    constexpr float MOST = 31.25f, SHARE = 1.0f / 256;
    auto both = [](float v) { return packed<__half>(v, v); };
    // floor(x) + 23, at most 31, or one less just above a whole number: what is nearest to a little less than x + 22.5, as the low bits of 1024 and more
    const uint32_t near = fma_f16x2(fma_saturated_f16x2(x, both(1.0f / MOST), both(22.48f / MOST)), both(MOST), both(1024.0f));
    const uint32_t rest = fma_relu_f16x2(x, both(1.0f), fma_f16x2(near, both(-1.0f), both(1047.0f)));
    uint32_t power = both(0.07855224609375f * SHARE);
    power = fma_f16x2(power, rest, both(0.2254638671875f * SHARE));
    power = fma_f16x2(power, rest, both(0.69580078125f * SHARE));
    power = fma_f16x2(power, rest, both(SHARE));
    // those bits as exponents, 8 more than it should be; what the lower half's leading bits would leave in the upper one is always the same
    return fma_f16x2(power, (near << 10) - (0x6400u >> 6 << 16), 0x80008000u);
}

// Scores in f16 hold up to 2^15 in octaves, which is where queries times keys in f16 end as well.
//
// DIM: the head dim, up to the next multiple of 16; HEAD: the head dim itself where it is known and less, else 0. TILES of 16 queries for
// each of WARPS; GROUPS of so many warps. BYTES of a copy.
template <typename T, int DIM, int HEAD, int TILES, int GROUPS, int WARPS, int BYTES, int STAGES>
__device__ __forceinline__ void attention(const AttentionParams& p) {
    constexpr int THREADS = WARPS * 32;  // of a group
    constexpr int ROW = DIM + 8;         // so that the eight rows of a matrix lie in different banks
    constexpr int VALUES = BYTES / 2, CHUNKS = DIM / VALUES;
    constexpr int STAGE = 2 * KEYS * ROW;
    constexpr int STEPS = DIM / 16, COLUMNS = KEYS / 8;
    // scores as halves, which their weights take the place of: over more than one step they would be rounded between, and where there is less to do it gains nothing
    constexpr bool HALVES = std::is_same<T, __half>::value && STEPS == 1 && TILES == 2;
    extern __shared__ __align__(128) unsigned char memory[];
    const int group = threadIdx.x / THREADS, tid = threadIdx.x % THREADS, warp = tid / 32, lane = tid % 32;
    const int head = blockIdx.y, sample = blockIdx.z;
    T* stages = reinterpret_cast<T*>(memory) + group * STAGES * STAGE;
    const T* q = static_cast<const T*>(p.q) + sample * p.q_batch + head * p.q_head;
    const T* k = static_cast<const T*>(p.k) + sample * p.k_batch + head * p.k_head;
    const T* v = static_cast<const T*>(p.v) + sample * p.v_batch + head * p.v_head;
    const int all = (p.tokens + KEYS - 1) / KEYS, tiles = (all - group + GROUPS - 1) / GROUPS;
    let_next_begin();

    // where there is room behind a head, it is filled once: the first column behind v with ones, so that its product is a row's total
    constexpr bool ROOM = HEAD > 0;
    if constexpr (ROOM) {
        static_assert(DIM - HEAD == VALUES && THREADS >= 2 * KEYS, "one piece behind each row, a thread for each row");
        const uint32_t one = tid < KEYS ? 0u : packed<T>(1.0f, 0.0f);
        if (tid < 2 * KEYS) {
#pragma unroll
            for (int i = 0; i < STAGES; i++)
#pragma unroll
                for (int at = 0; at < VALUES; at += 2)
                    *reinterpret_cast<uint32_t*>(stages + i * STAGE + tid * ROW + HEAD + at) = at == 0 ? one : 0u;
        }
    }
    wait_for_previous();

    // with a known head dim a thread has the same pieces of rows in each tile, keys first and then values
    constexpr int PIECES = ROOM ? HEAD / VALUES : 1, ROWS = THREADS / PIECES, TURNS = ROOM ? (2 * KEYS + ROWS - 1) / ROWS : 1;
    const int own_row = tid / PIECES, own_column = tid % PIECES * VALUES;
    const T* own[TURNS];
#pragma unroll
    for (int i = 0; i < TURNS; i++) {
        const int row = own_row + i * ROWS;
        own[i] = (row < KEYS ? k + (group * KEYS + row) * p.k_token : v + (group * KEYS + row - KEYS) * p.v_token) + own_column;
    }
    auto fetch = [&](int turn) {
        T* to = stages + turn % STAGES * STAGE;
        if constexpr (ROOM) {
            const int left = p.tokens - (turn * GROUPS + group) * KEYS;
#pragma unroll
            for (int i = 0; i < TURNS; i++) {
                const int row = own_row + i * ROWS;
                if (own_row < ROWS && row < 2 * KEYS) {
                    const bool there = row % KEYS < left;
                    cp_async<BYTES>(to + row * ROW + own_column, there ? own[i] : k, there);
                    own[i] += KEYS * GROUPS * (row < KEYS ? p.k_token : p.v_token);
                }
            }
        } else {
#pragma unroll 1
            for (int at = tid; at < KEYS * CHUNKS; at += THREADS) {
                const int row = at / CHUNKS, column = at % CHUNKS * VALUES, token = (turn * GROUPS + group) * KEYS + row;
                const bool there = token < p.tokens && column < p.head_dim;
                cp_async<BYTES>(to + row * ROW + column, k + (there ? token * p.k_token + column : 0), there);
                cp_async<BYTES>(to + (KEYS + row) * ROW + column, v + (there ? token * p.v_token + column : 0), there);
            }
        }
    };

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
                uint32_t pair = there ? *reinterpret_cast<const uint32_t*>(q + row * p.q_token + column) : 0u;
                if constexpr (HALVES) {
                    // so that scores are exponents of two
                    __half2 two;
                    memcpy(&two, &pair, 4);
                    const float2 wide = __half22float2(two);
                    pair = packed<T>(wide.x * p.scale, wide.y * p.scale);
                }
                queries[t][s][i] = pair;
            }
    const float scale = HALVES ? 1.0f : p.scale;
    const uint32_t lane_of_keys = shared_address(stages) + ((lane % 8 + lane / 16 * 8) * ROW + lane / 8 % 2 * 8) * 2;
    const uint32_t lane_of_values = shared_address(stages) + ((KEYS + lane % 16) * ROW + lane / 16 * 8) * 2;

    // most: what a row's weights are relative to
    float sums[TILES][DIM / 8][4] = {}, totals[TILES][4] = {}, most[TILES][2];
    uint32_t start[TILES][2];  // less that, in halves
    constexpr int TOTAL = HEAD / 8;  // where the column of ones is
    const uint32_t ones = packed<T>(1.0f, 1.0f);
#pragma unroll
    for (int t = 0; t < TILES; t++) most[t][0] = most[t][1] = -INFINITY;
#pragma unroll
    for (int i = 0; i < STAGES - 1; i++) {
        if (i < tiles) fetch(i);
        cp_async_commit();
    }
    // what a row's weights are relative to follows its largest score, upwards, and what there is of the row follows that
    auto raise = [&](int t, int r, float now) {
        now = fmaxf(now, __shfl_xor_sync(~0u, now, 1));
        now = fmaxf(now, __shfl_xor_sync(~0u, now, 2));
        if constexpr (HALVES) now = widen(rounded<__half>(now - BELOW));
        now = fmaxf(now, most[t][r]);
        const float factor = exp2_approx((most[t][r] - now) * scale);
        most[t][r] = now;
        start[t][r] = packed<__half>(-now, -now);
#pragma unroll
        for (int i = 2 * r; i < 2 * r + 2; i++) {
            totals[t][i] *= factor;
#pragma unroll
            for (int d = 0; d < DIM / 8; d++) sums[t][d][i] *= factor;
        }
    };

    int slot = 0;
    auto step = [&](int turn, auto whole) {
        constexpr bool WHOLE = decltype(whole)::value;
        cp_async_wait<STAGES - 2>();
        if constexpr (GROUPS == 1) __syncthreads();
        else meet<THREADS>(1 + group);
        if (turn + STAGES - 1 < tiles) fetch(turn + STAGES - 1);
        cp_async_commit();
        const uint32_t keys = lane_of_keys + slot * (STAGE * 2), values = lane_of_values + slot * (STAGE * 2);
        if (++slot == STAGES) slot = 0;
        const int first_key = (turn * GROUPS + group) * KEYS + lane % 4 * 2;

        uint32_t weights[TILES][COLUMNS][2];
        // 16 keys at a time: the weights' layout as a result is that of a left operand
        auto weigh = [&](float(&of)[TILES][DIM / 8][4]) {
#pragma unroll
            for (int j = 0; j < COLUMNS; j += 2)
#pragma unroll
                for (int d = 0; d < DIM / 8; d += 2) {
                    uint32_t b[4];
                    ldmatrix_x4_transposed(b, values + (j * 8 * ROW + d * 8) * 2);
#pragma unroll
                    for (int t = 0; t < TILES; t++) {
                        const uint32_t a[4] = {weights[t][j][0], weights[t][j][1], weights[t][j + 1][0], weights[t][j + 1][1]};
                        mma_16x8x16<T>(of[t][d], a, b[0], b[1]);
                        mma_16x8x16<T>(of[t][d + 1], a, b[2], b[3]);
                    }
                }
        };
        // a row's weights are first taken relative to the largest score before this tile; where that makes their total so large that a
        // weight may have no room in its type, or sums none in f32, all is done again with the largest known, as for the first tile
        float products[ROOM ? TILES : 1][DIM / 8][4], added[TILES][4];
#pragma unroll 1
        for (bool exact = turn == 0;; exact = true) {
            if constexpr (HALVES) {
                if (exact) {
                    float now[TILES][2];
#pragma unroll
                    for (int t = 0; t < TILES; t++) now[t][0] = now[t][1] = -INFINITY;
#pragma unroll 1
                    for (int j = 0; j < COLUMNS; j += 2) {
                        uint32_t b[4];
                        ldmatrix_x4(b, keys + j * 8 * ROW * 2);
#pragma unroll
                        for (int t = 0; t < TILES; t++)
#pragma unroll
                            for (int n = 0; n < 2; n++) {
                                float scores[4] = {};
                                mma_16x8x16<T>(scores, queries[t][0], b[2 * n], b[2 * n + 1]);
#pragma unroll
                                for (int i = 0; i < 4; i++)
                                    if (WHOLE || first_key + (j + n) * 8 + i % 2 < p.tokens) now[t][i / 2] = fmaxf(now[t][i / 2], scores[i]);
                            }
                    }
#pragma unroll
                    for (int t = 0; t < TILES; t++) raise(t, 0, now[t][0]), raise(t, 1, now[t][1]);
                }
#pragma unroll
                for (int j = 0; j < COLUMNS; j += 2) {
                    uint32_t b[4];
                    ldmatrix_x4(b, keys + j * 8 * ROW * 2);
#pragma unroll
                    for (int t = 0; t < TILES; t++)
#pragma unroll
                        for (int n = 0; n < 2; n++) mma_16x8x16_f16(weights[t][j + n], queries[t][0], b[2 * n], b[2 * n + 1], start[t]);
                }
                if constexpr (!WHOLE) {
                    constexpr uint32_t NONE = 0xfc00;  // minus infinity
#pragma unroll
                    for (int t = 0; t < TILES; t++)
#pragma unroll
                        for (int j = 0; j < COLUMNS; j++)
#pragma unroll
                            for (int r = 0; r < 2; r++) {
                                if (first_key + j * 8 >= p.tokens) weights[t][j][r] = NONE << 16 | NONE;
                                else if (first_key + j * 8 + 1 >= p.tokens) weights[t][j][r] = (weights[t][j][r] & 0xffffu) | NONE << 16;
                            }
                }
#pragma unroll
                for (int t = 0; t < TILES; t++)
#pragma unroll
                    for (int j = 0; j < COLUMNS; j++)
#pragma unroll
                        for (int r = 0; r < 2; r++)
                            weights[t][j][r] = HALVES_POLYNOMIALS >> j & 1 ? exp2_polynomial_f16x2(weights[t][j][r]) : exp2_approx_f16x2(weights[t][j][r]);
            } else {
                float scores[TILES][COLUMNS][4] = {};
#pragma unroll
                for (int s = 0; s < STEPS; s++)
#pragma unroll
                    for (int j = 0; j < COLUMNS; j += 2) {
                        uint32_t b[4];
                        ldmatrix_x4(b, keys + (j * 8 * ROW + s * 16) * 2);
#pragma unroll
                        for (int t = 0; t < TILES; t++) {
                            mma_16x8x16<T>(scores[t][j], queries[t][s], b[0], b[1]);
                            mma_16x8x16<T>(scores[t][j + 1], queries[t][s], b[2], b[3]);
                        }
                    }
                if constexpr (!WHOLE) {
#pragma unroll
                    for (int t = 0; t < TILES; t++)
#pragma unroll
                        for (int j = 0; j < COLUMNS; j++)
#pragma unroll
                            for (int i = 0; i < 4; i++)
                                if (first_key + j * 8 + i % 2 >= p.tokens) scores[t][j][i] = -INFINITY;
                }
                if (exact) {
#pragma unroll
                    for (int t = 0; t < TILES; t++)
#pragma unroll
                        for (int r = 0; r < 2; r++) {
                            float now = -INFINITY;
#pragma unroll
                            for (int j = 0; j < COLUMNS; j++) now = fmaxf(now, fmaxf(scores[t][j][2 * r], scores[t][j][2 * r + 1]));
                            raise(t, r, now);
                        }
                }
#pragma unroll
                for (int t = 0; t < TILES; t++)
#pragma unroll
                    for (int r = 0; r < 2; r++) {
                        const float offset = most[t][r] * scale, above = (-offset - LOWEST) * (1.0f / RANGE), step = scale * (1.0f / RANGE);
#pragma unroll
                        for (int j = 0; j < COLUMNS; j++) {
                            const float a = scores[t][j][2 * r], b = scores[t][j][2 * r + 1];
                            weights[t][j][r] = POLYNOMIALS >> j & 1
                                                   ? packed<T>(exp2_polynomial(fma_saturated(a, step, above)), exp2_polynomial(fma_saturated(b, step, above)))
                                                   : packed<T>(exp2_approx(fmaf(a, scale, -offset)), exp2_approx(fmaf(b, scale, -offset)));
                        }
                    }
            }
            bool fit = true;
            if constexpr (ROOM) {
#pragma unroll
                for (int t = 0; t < TILES; t++)
#pragma unroll
                    for (int d = 0; d < DIM / 8; d++)
#pragma unroll
                        for (int i = 0; i < 4; i++) products[t][d][i] = 0.0f;
                weigh(products);
#pragma unroll
                for (int t = 0; t < TILES; t++) fit = fit && products[t][TOTAL][0] < LARGEST && products[t][TOTAL][2] < LARGEST;
            } else {
#pragma unroll
                for (int t = 0; t < TILES; t++) {
#pragma unroll
                    for (int i = 0; i < 4; i++) added[t][i] = 0.0f;
#pragma unroll
                    for (int j = 0; j < COLUMNS; j += 2) {
                        const uint32_t a[4] = {weights[t][j][0], weights[t][j][1], weights[t][j + 1][0], weights[t][j + 1][1]};
                        mma_16x8x16<T>(added[t], a, ones, ones);
                    }
                    fit = fit && added[t][0] < LARGEST && added[t][2] < LARGEST;
                }
            }
            if (exact || __all_sync(~0u, fit)) break;
        }
#pragma unroll
        for (int t = 0; t < TILES; t++)
            if constexpr (ROOM) {
#pragma unroll
                for (int d = 0; d < DIM / 8; d++)
#pragma unroll
                    for (int i = 0; i < 4; i++) sums[t][d][i] += products[t][d][i];
            } else {
                totals[t][0] += added[t][0];
                totals[t][2] += added[t][2];
            }
        if constexpr (!ROOM) weigh(sums);
    };
    // the last tile of all may have fewer keys
    const int whole = (p.tokens / KEYS - group + GROUPS - 1) / GROUPS;
#pragma unroll 1
    for (int turn = 0; turn < whole; turn++) step(turn, std::true_type{});
    if (whole < tiles) step(whole, std::false_type{});
    cp_async_wait<0>();
    if constexpr (ROOM) {
#pragma unroll
        for (int t = 0; t < TILES; t++)
#pragma unroll
            for (int r = 0; r < 2; r++) totals[t][2 * r] = __shfl_sync(~0u, sums[t][TOTAL][2 * r], lane / 4 * 4 + HEAD % 8 / 2);
    }

    if constexpr (GROUPS == 2) {
        // the second group's sums, totals and maxima, thread by thread
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
                shared[(SUMS + r) * THREADS] = totals[0][2 * r];
                shared[(SUMS + 2 + r) * THREADS] = most[0][r];
            }
        }
        __syncthreads();
        if (group == 1) return;
#pragma unroll
        for (int r = 0; r < 2; r++) {
            const float other = shared[(SUMS + 2 + r) * THREADS], now = fmaxf(most[0][r], other);
            const float own_share = exp2_approx((most[0][r] - now) * scale), other_share = exp2_approx((other - now) * scale);
            totals[0][2 * r] = totals[0][2 * r] * own_share + shared[(SUMS + r) * THREADS] * other_share;
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
            const float share = __fdividef(1.0f, totals[t][2 * r]);
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
#define ATTENTION(T, NAME, LABEL, DIM, HEAD, TILES, GROUPS, WARPS, BYTES, STAGES, RESIDENT)                                       \
    extern "C" __global__ void __launch_bounds__(WARPS * 32 * GROUPS, RESIDENT)                                                   \
        mirage_attention_##NAME##_##LABEL##x##TILES##x##GROUPS##x##WARPS(const AttentionParams p) {                               \
        attention<T, DIM, HEAD, TILES, GROUPS, WARPS, BYTES, STAGES>(p);                                                          \
    }
#define ATTENTIONS(T, NAME)                                                                                                      \
    ATTENTION(T, NAME, 12, 16, 12, 1, 1, 4, 8, 3, 4)                                                                             \
    ATTENTION(T, NAME, 12, 16, 12, 1, 2, 8, 8, 4, 1)                                                                             \
    ATTENTION(T, NAME, 12, 16, 12, 2, 1, 4, 8, 4, (std::is_same<T, __half>::value ? 4 : 3)) \
    ATTENTION(T, NAME, 16, 16, 0, 1, 1, 4, 8, 3, 5)                                                                              \
    ATTENTION(T, NAME, 16, 16, 0, 1, 2, 4, 8, 3, 2)                                                                              \
    ATTENTION(T, NAME, 16, 16, 0, 2, 1, 4, 8, 3, 3)                                                                              \
    ATTENTION(T, NAME, 24, 32, 24, 1, 1, 4, 16, 3, 4)                                                                            \
    ATTENTION(T, NAME, 24, 32, 24, 1, 2, 8, 16, 4, 1)                                                                            \
    ATTENTION(T, NAME, 24, 32, 24, 2, 1, 4, 16, 3, 2)                                                                            \
    ATTENTION(T, NAME, 32, 32, 0, 1, 1, 4, 16, 3, 4)                                                                             \
    ATTENTION(T, NAME, 32, 32, 0, 1, 2, 4, 16, 3, 2)                                                                             \
    ATTENTION(T, NAME, 32, 32, 0, 2, 1, 4, 16, 3, 3)                                                                             \
    ATTENTION(T, NAME, 48, 48, 0, 1, 1, 4, 16, 3, 3)                                                                             \
    ATTENTION(T, NAME, 64, 64, 0, 1, 1, 4, 16, 3, 3)                                                                             \
    ATTENTION(T, NAME, 96, 96, 0, 1, 1, 4, 16, 2, 3)                                                                             \
    ATTENTION(T, NAME, 128, 128, 0, 1, 1, 4, 16, 2, 2)                                                                           \
    ATTENTION(T, NAME, 192, 192, 0, 1, 1, 4, 16, 2, 2)
ATTENTIONS(__half, f16)
ATTENTIONS(__nv_bfloat16, bf16)
