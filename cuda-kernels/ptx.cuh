// Instructions that CUDA C++ has no word for, each as one named function. For sm_80 and later.
#pragma once
#include "common.cuh"

// 16 bytes from global to shared memory without registers; zeros where `valid` is false (the source is not read then).
__device__ __forceinline__ void cp_async_16(void* shared, const void* global, bool valid) {
    const uint32_t to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;\n" ::"r"(to), "l"(global), "r"(valid ? 16 : 0));
}

// The same without a question.
__device__ __forceinline__ void cp_async_16(void* shared, const void* global) {
    const uint32_t to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;\n" ::"r"(to), "l"(global));
}

// 8 or 16 bytes likewise.
template <int BYTES> __device__ __forceinline__ void cp_async(void* shared, const void* global, bool valid) {
    if constexpr (BYTES == 16) {
        cp_async_16(shared, global, valid);
    } else {
        const uint32_t to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
        asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;\n" ::"r"(to), "l"(global), "r"(valid ? 8 : 0));
    }
}

__device__ __forceinline__ void cp_async_commit() { asm volatile("cp.async.commit_group;\n" ::); }

// Until at most `N` of this thread's groups are under way.
template <int N> __device__ __forceinline__ void cp_async_wait() { asm volatile("cp.async.wait_group %0;\n" ::"n"(N)); }

// A line of 128 bytes into the second-level cache.
__device__ __forceinline__ void prefetch_l2(const void* global) { asm volatile("prefetch.global.L2 [%0];\n" ::"l"(global)); }

// Four 8x8 matrices of 16-bit values from shared memory; each lane gives the address of one row.
__device__ __forceinline__ void ldmatrix_x4(uint32_t (&r)[4], const void* row) {
    const uint32_t from = static_cast<uint32_t>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(from));
}

// The same, each matrix turned over.
__device__ __forceinline__ void ldmatrix_x4_transposed(uint32_t (&r)[4], const void* row) {
    const uint32_t from = static_cast<uint32_t>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(from));
}

// 2^x within 2 units of the last place; results too small for a normal number are zero.
__device__ __forceinline__ float exp2_approx(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(y) : "f"(x));
    return y;
}

// Two whole numbers, `low` in the lower half, each cut to 16 bits with a sign.
__device__ __forceinline__ uint32_t pack_saturated(int low, int high) {
    uint32_t pair;
    asm("cvt.pack.sat.s16.s32 %0, %1, %2;\n" : "=r"(pair) : "r"(high), "r"(low));
    return pair;
}

// c += a·b on tensor cores: a is 16x16 (row-major), b 16x8 (column-major), c in f32.
template <typename T> __device__ __forceinline__ void mma_16x8x16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);
template <>
__device__ __forceinline__ void mma_16x8x16<__half>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
template <>
__device__ __forceinline__ void mma_16x8x16<__nv_bfloat16>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// A weight in eight bits: four bits of exponent, three of mantissa. Of each 16 values of a row, which a step of the tensor cores takes
// in, k = 2t, 2t + 1, 2t + 8 and 2t + 9 lie side by side, t from 0 to 3: the four that one lane holds of a row.
struct E4m3 {
    uint8_t bits;
};

// Where chunk `chunk`, of 16 bytes, of row `row` of 64 such weights lies in shared memory: two rows share what a row of 16-bit values takes.
__device__ __forceinline__ int swizzled_e4m3(int row, int chunk) { return row * 64 + ((chunk ^ (row >> 1 & 3)) * 16); }

// Four e4m3 values as two pairs of a wider type, exactly, the first two before the others. For sm_89 and later.
template <typename T> __device__ __forceinline__ void widen_e4m3(uint32_t four, uint32_t& low, uint32_t& high);
template <> __device__ __forceinline__ void widen_e4m3<__half>(uint32_t four, uint32_t& low, uint32_t& high) {
    asm("{ .reg .b16 l, h; mov.b32 {l, h}, %2; cvt.rn.f16x2.e4m3x2 %0, l; cvt.rn.f16x2.e4m3x2 %1, h; }\n"
        : "=r"(low), "=r"(high)
        : "r"(four));
}
template <> __device__ __forceinline__ void widen_e4m3<__nv_bfloat16>(uint32_t four, uint32_t& low, uint32_t& high) {
    widen_e4m3<__half>(four, low, high);
    auto as_bf16 = [](uint32_t& bits) {
        __half2 halves;
        memcpy(&halves, &bits, 4);
        const float2 wide = __half22float2(halves);
        const __nv_bfloat162 pair = __floats2bfloat162_rn(wide.x, wide.y);
        memcpy(&bits, &pair, 4);
    };
    as_bf16(low);
    as_bf16(high);
}

// The threads of some warps meet at a barrier of this number, from 1 to 15.
template <int THREADS> __device__ __forceinline__ void meet(int barrier) {
    asm volatile("bar.sync %0, %1;\n" ::"r"(barrier), "n"(THREADS) : "memory");
}

// Adds and returns what was there; what this block did before is seen by whoever reads the sum, and the other way round.
__device__ __forceinline__ unsigned atomic_add_acq_rel(unsigned* at, unsigned value) {
    unsigned before;
    asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], %2;\n" : "=r"(before) : "l"(at), "r"(value) : "memory");
    return before;
}

// Programmatic dependent launch: kernels of a recorded frame may begin while the kernel ahead still runs, from the moment at which
// all its blocks have come to `let_next_begin` or have ended, and must not touch what other kernels write, nor write, before
// `wait_for_previous` returns. Then the kernel ahead has ended, and, since it waited likewise, so have all before it. Every kernel
// here waits; the host relies on it for all names that begin with mirage_.
__device__ __forceinline__ void let_next_begin() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;\n" ::: "memory");
#endif
}
__device__ __forceinline__ void wait_for_previous() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;\n" ::: "memory");
#endif
}
