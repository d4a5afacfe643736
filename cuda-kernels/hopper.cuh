// What only compute capability 9.0a has, each instruction as one named function: asynchronous copies of whole boxes of a tensor,
// barriers that count bytes, products of matrices in shared memory or, the left one, in registers, clusters of blocks.
#pragma once
#include "ptx.cuh"
#include <cuda.h>

__device__ __forceinline__ uint32_t shared_address(const void* p) { return static_cast<uint32_t>(__cvta_generic_to_shared(p)); }

__device__ __forceinline__ void mbarrier_init(uint32_t barrier, unsigned arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\n" ::"r"(barrier), "r"(arrivals));
}
// Barriers that were just set up are seen by the copies and by the other blocks of the cluster.
__device__ __forceinline__ void mbarrier_init_fence() { asm volatile("fence.mbarrier_init.release.cluster;\n" ::: "memory"); }
__device__ __forceinline__ void mbarrier_arrive(uint32_t barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];\n" ::"r"(barrier) : "memory");
}
// Arrives, and lets the barrier wait for so many bytes.
__device__ __forceinline__ void mbarrier_expect(uint32_t barrier, unsigned bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;\n" ::"r"(barrier), "r"(bytes) : "memory");
}
// Until the phase of this parity is over; what the copies that it counts have brought is seen then.
#define WAIT(NAME, SCOPE)                                                                             \
    __device__ __forceinline__ void NAME(uint32_t barrier, unsigned parity) {                        \
        asm volatile(                                                                                \
            "{\n"                                                                                    \
            ".reg .pred done;\n"                                                                     \
            "again:\n"                                                                               \
            "mbarrier.try_wait.parity" SCOPE ".shared::cta.b64 done, [%0], %1;\n"                    \
            "@done bra over;\n"                                                                      \
            "bra again;\n"                                                                           \
            "over:\n"                                                                                \
            "}\n" ::"r"(barrier),                                                                    \
            "r"(parity)                                                                              \
            : "memory");                                                                             \
    }
WAIT(mbarrier_wait, "")
// The same where other blocks of the cluster sent it.
WAIT(mbarrier_wait_for_cluster, ".acquire.cluster")
#undef WAIT

// One thread of the warp, of which the compiler knows that it is one: what it asks for needs no loop over threads.
__device__ __forceinline__ bool elect_one() {
    unsigned elected;
    asm volatile(
        "{\n"
        ".reg .pred one;\n"
        "elect.sync _|one, 0xffffffff;\n"
        "selp.u32 %0, 1, 0, one;\n"
        "}\n"
        : "=r"(elected));
    return elected != 0;
}

// A box of a tensor of two to four dimensions, from the given corner; what lies outside of the tensor comes as zeros.
__device__ __forceinline__ void copy_box_2d(uint32_t to, const CUtensorMap* map, int c0, int c1, uint32_t barrier) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];\n" ::"r"(to),
                 "l"(map), "r"(c0), "r"(c1), "r"(barrier)
                 : "memory");
}
__device__ __forceinline__ void copy_box_3d(uint32_t to, const CUtensorMap* map, int c0, int c1, int c2, uint32_t barrier) {
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4}], [%5];\n" ::"r"(to),
                 "l"(map), "r"(c0), "r"(c1), "r"(c2), "r"(barrier)
                 : "memory");
}
__device__ __forceinline__ void copy_box_4d(uint32_t to, const CUtensorMap* map, int c0, int c1, int c2, int c3, uint32_t barrier) {
    asm volatile(
        "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4, %5}], [%6];\n" ::"r"(to),
        "l"(map), "r"(c0), "r"(c1), "r"(c2), "r"(c3), "r"(barrier)
        : "memory");
}
__device__ __forceinline__ void prefetch_map(const CUtensorMap* map) { asm volatile("prefetch.tensormap [%0];\n" ::"l"(map) : "memory"); }
// So many bytes, a multiple of 16, into the second-level cache.
__device__ __forceinline__ void prefetch_bulk(const void* global, unsigned bytes) {
    asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;\n" ::"l"(global), "r"(bytes));
}

// Each thread of the cluster says once that it has come. Those that go on to other blocks' memory wait until all have, and see the barriers that these had set up
// before their fence; one that has ended has come too. Nothing else is handed over here, so that arriving need not wait for what a thread has written.
__device__ __forceinline__ void cluster_arrive() { asm volatile("barrier.cluster.arrive.relaxed.aligned;\n" ::: "memory"); }
__device__ __forceinline__ void cluster_wait() { asm volatile("barrier.cluster.wait.acquire.aligned;\n" ::: "memory"); }
// Where the shared memory of another block of the cluster lies.
__device__ __forceinline__ uint32_t of_block(uint32_t shared, unsigned rank) {
    uint32_t there;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;\n" : "=r"(there) : "r"(shared), "r"(rank));
    return there;
}
// Into the shared memory of another block of the cluster, whose barrier counts the bytes that have come.
__device__ __forceinline__ void send(uint32_t to, const float4& v, uint32_t barrier) {
    asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%1, %2, %3, %4}, [%5];\n" ::"r"(to), "f"(v.x), "f"(v.y),
                 "f"(v.z), "f"(v.w), "r"(barrier)
                 : "memory");
}

// Two 8x8 matrices of 16-bit values into shared memory, laid out over the warp as results of products are; lanes 0 to 15 give the address of one row each. The other
// turns each matrix over.
__device__ __forceinline__ void stmatrix_x2(uint32_t row, uint32_t a, uint32_t b) {
    asm volatile("stmatrix.sync.aligned.m8n8.x2.shared.b16 [%0], {%1, %2};\n" ::"r"(row), "r"(a), "r"(b) : "memory");
}
__device__ __forceinline__ void stmatrix_x2_transposed(uint32_t row, uint32_t a, uint32_t b) {
    asm volatile("stmatrix.sync.aligned.m8n8.x2.trans.shared.b16 [%0], {%1, %2};\n" ::"r"(row), "r"(a), "r"(b) : "memory");
}

__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory"); }
// Until at most `N` groups of products are under way.
template <int N> __device__ __forceinline__ void wgmma_wait() { asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(N) : "memory"); }

// How products find a matrix in shared memory: rows of 128 bytes, swizzled as the copies write them, eight of them in 1024 bytes and the next
// eight `EIGHT_ROWS` bytes further on. The swizzle goes by the address, so a matrix may begin at any row.
template <int EIGHT_ROWS = 1024> __device__ __forceinline__ uint64_t matrix_in_shared(uint32_t shared) {
    return (static_cast<uint64_t>(shared & 0x3ffff) >> 4) | (1ull << 16) | (static_cast<uint64_t>(EIGHT_ROWS >> 4) << 32) | (1ull << 62);
}

// d += a·b for 64 rows, N columns and 16 steps: a is (64, 16) and b (N, 16), the steps side by side; d in f32, spread over the 128 threads
// of a warp group: thread t has rows t / 32 * 16 + t % 32 / 4 (and 8 below), columns 8 j + t % 4 * 2 (and the next). b is in shared memory; a too,
// or in registers, each with two values: of a thread's first row steps t % 4 * 2 and the next, of its second row the same, and of both 8 steps further on.
template <typename T, int N> __device__ __forceinline__ void wgmma(float (&d)[N / 2], uint64_t a, uint64_t b);
template <typename T, int N> __device__ __forceinline__ void wgmma(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b);

// eight sums: where they are named, and what they are
#define D0 "%0, %1, %2, %3, %4, %5, %6, %7"
#define D1 D0 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define D2 D1 ", %16, %17, %18, %19, %20, %21, %22, %23"
#define D3 D2 ", %24, %25, %26, %27, %28, %29, %30, %31"
#define D4 D3 ", %32, %33, %34, %35, %36, %37, %38, %39"
#define D5 D4 ", %40, %41, %42, %43, %44, %45, %46, %47"
#define D6 D5 ", %48, %49, %50, %51, %52, %53, %54, %55"
#define D7 D6 ", %56, %57, %58, %59, %60, %61, %62, %63"
#define D8 D7 ", %64, %65, %66, %67, %68, %69, %70, %71"
#define D9 D8 ", %72, %73, %74, %75, %76, %77, %78, %79"
#define D10 D9 ", %80, %81, %82, %83, %84, %85, %86, %87"
#define D11 D10 ", %88, %89, %90, %91, %92, %93, %94, %95"
#define EIGHT(i) \
    "+f"(d[8 * i]), "+f"(d[8 * i + 1]), "+f"(d[8 * i + 2]), "+f"(d[8 * i + 3]), "+f"(d[8 * i + 4]), "+f"(d[8 * i + 5]), "+f"(d[8 * i + 6]), "+f"(d[8 * i + 7])
#define S0 EIGHT(0)
#define S1 S0, EIGHT(1)
#define S2 S1, EIGHT(2)
#define S3 S2, EIGHT(3)
#define S4 S3, EIGHT(4)
#define S5 S4, EIGHT(5)
#define S6 S5, EIGHT(6)
#define S7 S6, EIGHT(7)
#define S8 S7, EIGHT(8)
#define S9 S8, EIGHT(9)
#define S10 S9, EIGHT(10)
#define S11 S10, EIGHT(11)
// N columns: the last eight sums, and the numbers of the five operands behind the sums
#define WGMMA_OF(T, TYPE, N, LAST, A0, A1, A2, A3, A4)                                                                                   \
    template <> __device__ __forceinline__ void wgmma<T, N>(float (&d)[N / 2], uint64_t a, uint64_t b) {                                  \
        asm volatile("wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." TYPE "." TYPE " {" D##LAST "}, %" #A0 ", %" #A1 ", 1, 1, 1, 0, 0;\n" \
                     : S##LAST                                                                                                           \
                     : "l"(a), "l"(b));                                                                                                  \
    }                                                                                                                                    \
    template <> __device__ __forceinline__ void wgmma<T, N>(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b) {                      \
        asm volatile("wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." TYPE "." TYPE " {" D##LAST "}, {%" #A0 ", %" #A1 ", %" #A2         \
                     ", %" #A3 "}, %" #A4 ", 1, 1, 1, 0;\n"                                                                             \
                     : S##LAST                                                                                                           \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                                                              \
    }
#define WGMMA(...)                      \
    WGMMA_OF(__half, "f16", __VA_ARGS__) \
    WGMMA_OF(__nv_bfloat16, "bf16", __VA_ARGS__)
WGMMA(16, 0, 8, 9, 10, 11, 12)
WGMMA(32, 1, 16, 17, 18, 19, 20)
WGMMA(48, 2, 24, 25, 26, 27, 28)
WGMMA(64, 3, 32, 33, 34, 35, 36)
WGMMA(80, 4, 40, 41, 42, 43, 44)
WGMMA(96, 5, 48, 49, 50, 51, 52)
WGMMA(128, 7, 64, 65, 66, 67, 68)
WGMMA(192, 11, 96, 97, 98, 99, 100)
#undef WGMMA
#undef WGMMA_OF
#undef EIGHT
#undef D0
#undef S0
#undef D1
#undef S1
#undef D2
#undef S2
#undef D3
#undef S3
#undef D4
#undef S4
#undef D5
#undef S5
#undef D6
#undef S6
#undef D7
#undef S7
#undef D8
#undef S8
#undef D9
#undef S9
#undef D10
#undef S10
#undef D11
#undef S11
