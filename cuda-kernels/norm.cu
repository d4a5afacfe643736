// Group normalisation with SiLU, and layer normalisation.
//
// Group normalisation (arXiv:1803.08494) splits a sample's pixels over blocks: `group_norm_sums` leaves each block's sums, and
// `group_norm_apply` adds them in the blocks' order and normalises, so that a picture is read twice and written once however
// large it is, and a result never depends on the order in which blocks finish. Sums are of x minus the group's first value:
// the variance of values far from zero keeps its digits.
//
// Layer normalisation (arXiv:1607.06450) keeps a row in registers: read once, written once.
#include "ptx.cuh"

constexpr int THREADS = 256;

struct GroupNormParams {
    const void* x;        // (batch, pixels, channels)
    const float* weight;  // (channels)
    const float* bias;    // (channels)
    void* y;
    float* partial;  // (batch, blocks, groups, 2)
    int pixels, channels, groups, blocks, pixels_per_block, activation;
    float eps;
};

// Grid (blocks, batch). Shared memory: two f32 for each channel of each row of threads.
template <typename T, int V> __device__ __forceinline__ void group_norm_sums(const GroupNormParams& p) {
    let_next_begin();
    wait_for_previous();
    extern __shared__ float shared[];
    const int columns = p.channels / V, per_group = p.channels / p.groups;
    const int rows = columns < THREADS ? THREADS / columns : 1;
    float* sums = shared;
    float* squares = shared + rows * p.channels;
    const T* x = static_cast<const T*>(p.x) + static_cast<int64_t>(blockIdx.y) * p.pixels * p.channels;
    const int first = blockIdx.x * p.pixels_per_block, end = min(p.pixels, first + p.pixels_per_block);

    for (int from = 0; from < columns; from += THREADS) {
        const int row = columns < THREADS ? threadIdx.x / columns : 0;
        const int column = columns < THREADS ? threadIdx.x % columns : from + threadIdx.x;
        if (row >= rows || column >= columns) continue;
        float shift[V], sum[V] = {}, square[V] = {};
#pragma unroll
        for (int i = 0; i < V; i++) shift[i] = widen(x[(column * V + i) / per_group * per_group]);
#pragma unroll 4
        for (int pixel = first + row; pixel < end; pixel += rows) {
            float v[V];
            load<T, V>(x + static_cast<int64_t>(pixel) * p.channels + column * V, v);
#pragma unroll
            for (int i = 0; i < V; i++) {
                const float d = v[i] - shift[i];
                sum[i] += d;
                square[i] += d * d;
            }
        }
#pragma unroll
        for (int i = 0; i < V; i++) {
            sums[row * p.channels + column * V + i] = sum[i];
            squares[row * p.channels + column * V + i] = square[i];
        }
    }
    __syncthreads();
    // a warp adds a group's channels, lane by lane and then across lanes: always in the same order
    const int lane = threadIdx.x % 32;
    for (int group = threadIdx.x / 32; group < p.groups; group += THREADS / 32) {
        float sum = 0.0f, square = 0.0f;
        for (int i = lane; i < rows * per_group; i += 32) {
            const int at = i / per_group * p.channels + group * per_group + i % per_group;
            sum += sums[at];
            square += squares[at];
        }
#pragma unroll
        for (int step = 16; step > 0; step /= 2) {
            sum += __shfl_xor_sync(~0u, sum, step);
            square += __shfl_xor_sync(~0u, square, step);
        }
        if (lane == 0) {
            float* to = p.partial + ((static_cast<int64_t>(blockIdx.y) * p.blocks + blockIdx.x) * p.groups + group) * 2;
            to[0] = sum;
            to[1] = square;
        }
    }
}

// Grid (blocks, batch). Shared memory: two f32 for each group.
template <typename T, int V> __device__ __forceinline__ void group_norm_apply(const GroupNormParams& p) {
    let_next_begin();
    wait_for_previous();
    extern __shared__ float shared[];
    const int columns = p.channels / V, per_group = p.channels / p.groups;
    const int rows = columns < THREADS ? THREADS / columns : 1;
    float* mean = shared;
    float* scale = shared + p.groups;
    const T* x = static_cast<const T*>(p.x) + static_cast<int64_t>(blockIdx.y) * p.pixels * p.channels;
    T* y = static_cast<T*>(p.y) + static_cast<int64_t>(blockIdx.y) * p.pixels * p.channels;
    const int first = blockIdx.x * p.pixels_per_block, end = min(p.pixels, first + p.pixels_per_block);

    const int lane = threadIdx.x % 32;
    const float count = static_cast<float>(p.pixels) * per_group;
    for (int group = threadIdx.x / 32; group < p.groups; group += THREADS / 32) {
        float sum = 0.0f, square = 0.0f;
        for (int block = lane; block < p.blocks; block += 32) {
            const float* from = p.partial + ((static_cast<int64_t>(blockIdx.y) * p.blocks + block) * p.groups + group) * 2;
            sum += from[0];
            square += from[1];
        }
#pragma unroll
        for (int step = 16; step > 0; step /= 2) {
            sum += __shfl_xor_sync(~0u, sum, step);
            square += __shfl_xor_sync(~0u, square, step);
        }
        if (lane == 0) {
            const float from_shift = sum / count;
            mean[group] = widen(x[group * per_group]) + from_shift;
            scale[group] = rsqrtf(fmaxf(square / count - from_shift * from_shift, 0.0f) + p.eps);
        }
    }
    __syncthreads();
    for (int from = 0; from < columns; from += THREADS) {
        const int row = columns < THREADS ? threadIdx.x / columns : 0;
        const int column = columns < THREADS ? threadIdx.x % columns : from + threadIdx.x;
        if (row >= rows || column >= columns) continue;
        float gain[V], centre[V], offset[V];
#pragma unroll
        for (int i = 0; i < V; i++) {
            const int channel = column * V + i, group = channel / per_group;
            gain[i] = scale[group] * p.weight[channel];
            centre[i] = mean[group];
            offset[i] = p.bias[channel];
        }
#pragma unroll 2
        for (int pixel = first + row; pixel < end; pixel += rows) {
            const int64_t at = static_cast<int64_t>(pixel) * p.channels + column * V;
            float v[V];
            load<T, V>(x + at, v);
#pragma unroll
            for (int i = 0; i < V; i++) v[i] = activate((v[i] - centre[i]) * gain[i] + offset[i], p.activation);
            store<T, V>(y + at, v);
        }
    }
}

struct LayerNormParams {
    const void* x;  // (rows, width)
    const float* weight;
    const float* bias;
    void* y;
    int rows, width;
    float eps;
};

// `TEAM` threads a row; a thread holds at most 32 values of it.
template <typename T, int V, int TEAM> __device__ __forceinline__ void layer_norm(const LayerNormParams& p) {
    let_next_begin();
    wait_for_previous();
    constexpr int HELD = 32 / V, WARPS = TEAM / 32;
    __shared__ float across[2][THREADS / 32];
    const int team = threadIdx.x / TEAM, member = threadIdx.x % TEAM, warp = threadIdx.x / 32;
    const int row = blockIdx.x * (THREADS / TEAM) + team;
    const bool active = row < p.rows;
    const int columns = p.width / V;
    const T* x = static_cast<const T*>(p.x) + static_cast<int64_t>(row) * p.width;
    float v[HELD][V];
    float sum = 0.0f;
#pragma unroll
    for (int h = 0; h < HELD; h++) {
        const int column = member + h * TEAM;
#pragma unroll
        for (int i = 0; i < V; i++) v[h][i] = 0.0f;
        if (active && column < columns) load<T, V>(x + column * V, v[h]);
#pragma unroll
        for (int i = 0; i < V; i++) sum += v[h][i];
    }
    auto total = [&](float value, int round) {
#pragma unroll
        for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(~0u, value, step);
        if constexpr (WARPS > 1) {
            if (threadIdx.x % 32 == 0) across[round][warp] = value;
            __syncthreads();
            value = 0.0f;
#pragma unroll
            for (int w = 0; w < WARPS; w++) value += across[round][team * WARPS + w];
        }
        return value;
    };
    const float mean = total(sum, 0) / p.width;
    float square = 0.0f;
#pragma unroll
    for (int h = 0; h < HELD; h++)
        if (member + h * TEAM < columns)
#pragma unroll
            for (int i = 0; i < V; i++) square += (v[h][i] - mean) * (v[h][i] - mean);
    const float scale = rsqrtf(total(square, 1) / p.width + p.eps);
    T* y = static_cast<T*>(p.y) + static_cast<int64_t>(row) * p.width;
#pragma unroll
    for (int h = 0; h < HELD; h++) {
        const int column = member + h * TEAM;
        if (!active || column >= columns) continue;
#pragma unroll
        for (int i = 0; i < V; i++)
            v[h][i] = (v[h][i] - mean) * scale * p.weight[column * V + i] + p.bias[column * V + i];
        store<T, V>(y + column * V, v[h]);
    }
}

struct SoftmaxParams {
    const float* x;  // (rows, width)
    void* y;         // likewise, in the storage type
    int width;
    float scale;
};

// Eight values of f32, or one.
template <int V> __device__ __forceinline__ void load_wide(const float* from, float (&v)[V]) {
    if constexpr (V == VECTOR) {
#pragma unroll
        for (int i = 0; i < V; i += 4) *reinterpret_cast<float4*>(v + i) = *reinterpret_cast<const float4*>(from + i);
    } else {
        v[0] = *from;
    }
}

// softmax(x · scale), a block for each row: read twice, the second time from the cache, and written once.
template <typename T, int V> __device__ __forceinline__ void softmax(const SoftmaxParams& p) {
    let_next_begin();
    wait_for_previous();
    __shared__ float across[2][THREADS / 32];
    const float* x = p.x + static_cast<int64_t>(blockIdx.x) * p.width;
    T* y = static_cast<T*>(p.y) + static_cast<int64_t>(blockIdx.x) * p.width;
    const int columns = p.width / V;
    // the largest value and the sum of exponentials over it, in one pass (arXiv:1805.02867)
    float largest = -INFINITY, sum = 0.0f;
    for (int column = threadIdx.x; column < columns; column += THREADS) {
        float v[V];
        load_wide<V>(x + column * V, v);
        float most = v[0] * p.scale;
#pragma unroll
        for (int i = 0; i < V; i++) most = fmaxf(most, v[i] * p.scale);
        const float now = fmaxf(largest, most);
        sum *= __expf(largest - now);
#pragma unroll
        for (int i = 0; i < V; i++) sum += __expf(v[i] * p.scale - now);
        largest = now;
    }
    auto join = [&](float other_largest, float other_sum) {
        const float now = fmaxf(largest, other_largest);
        if (now == -INFINITY) return;
        sum = sum * __expf(largest - now) + other_sum * __expf(other_largest - now);
        largest = now;
    };
#pragma unroll
    for (int step = 16; step > 0; step /= 2) {
        const float other_largest = __shfl_xor_sync(~0u, largest, step), other_sum = __shfl_xor_sync(~0u, sum, step);
        join(other_largest, other_sum);
    }
    if (threadIdx.x % 32 == 0) {
        across[0][threadIdx.x / 32] = largest;
        across[1][threadIdx.x / 32] = sum;
    }
    __syncthreads();
    largest = -INFINITY;
    sum = 0.0f;
#pragma unroll
    for (int warp = 0; warp < THREADS / 32; warp++) join(across[0][warp], across[1][warp]);
    const float share = 1.0f / sum;
    for (int column = threadIdx.x; column < columns; column += THREADS) {
        float v[V];
        load_wide<V>(x + column * V, v);
#pragma unroll
        for (int i = 0; i < V; i++) v[i] = __expf(v[i] * p.scale - largest) * share;
        store<T, V>(y + column * V, v);
    }
}

#define NORMS(T, NAME, V, KIND)                                                                                                   \
    extern "C" __global__ void __launch_bounds__(THREADS) mirage_group_norm_sums_##NAME##KIND(const GroupNormParams p) {                 \
        group_norm_sums<T, V>(p);                                                                                                 \
    }                                                                                                                             \
    extern "C" __global__ void __launch_bounds__(THREADS) mirage_group_norm_apply_##NAME##KIND(const GroupNormParams p) {                \
        group_norm_apply<T, V>(p);                                                                                                \
    }                                                                                                                             \
    extern "C" __global__ void __launch_bounds__(THREADS) mirage_layer_norm_32_##NAME##KIND(const LayerNormParams p) {                   \
        layer_norm<T, V, 32>(p);                                                                                                  \
    }                                                                                                                             \
    extern "C" __global__ void __launch_bounds__(THREADS) mirage_layer_norm_128_##NAME##KIND(const LayerNormParams p) {                  \
        layer_norm<T, V, 128>(p);                                                                                                 \
    }                                                                                                                             \
    extern "C" __global__ void __launch_bounds__(THREADS) mirage_softmax_##NAME##KIND(const SoftmaxParams p) { softmax<T, V>(p); }
NORMS(__half, f16, VECTOR, )
NORMS(__half, f16, 1, _any)
NORMS(__nv_bfloat16, bf16, VECTOR, )
NORMS(__nv_bfloat16, bf16, 1, _any)
