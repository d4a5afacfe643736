// What a launch costs where each waits for the one ahead, as the layers of a recorded frame do: the least that a layer can take, whatever it computes.
//
//   nvcc -O3 -gencode arch=compute_90a,code=sm_90a -o launches benches/launches.cu && ./launches
//
// 845 launches, as many as five calls of the reference network have, are recorded as a CUDA graph and run 20 times; the median is printed, in microseconds a
// launch. Kernels do nothing, or read 16 bytes a thread that the kernel ahead has written and write as many, or do that in clusters that meet twice.
// Beside them, what could take a launch's place: the same steps where each waits not for the kernel ahead to end but for a counter in memory that its blocks
// add to once they have written, by kernels that begin early, or as the turns of one kernel that stays (a persistent kernel).
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cuda_runtime.h>
#include <vector>

constexpr int LAUNCHES = 845, RUNS = 20, WARMUP = 5, VECTORS = 1 << 16;

static void check(cudaError_t error, const char* what) {
    if (error == cudaSuccess) return;
    fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(error));
    exit(1);
}

enum Work { NOTHING, COPY, MEET };

template <Work WORK> __global__ void step(const uint4* x, uint4* y) {
    extern __shared__ char memory[];
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    // both return at once where the launch was not allowed to begin early
    asm volatile("griddepcontrol.wait;\n" ::: "memory");
    if (WORK == NOTHING) {
        asm volatile("griddepcontrol.launch_dependents;\n" ::: "memory");
        return;
    }
    uint4 v = i < VECTORS ? __ldcg(x + i) : uint4{};
    v.x += 1;
    if (WORK == MEET) asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;\n" ::: "memory");
    asm volatile("griddepcontrol.launch_dependents;\n" ::: "memory");
    if (WORK == MEET) asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;\n" ::: "memory");
    if (i < VECTORS) y[i] = v;
}

// Once all of a block has written: adds it to a counter, so that who waits for the counter sees what was written.
__device__ void arrive(unsigned* counter) {
    __syncthreads();
    if (threadIdx.x == 0) asm volatile("red.release.gpu.global.add.u32 [%0], 1;\n" ::"l"(counter) : "memory");
}

__device__ void await(const unsigned* counter, unsigned count) {
    if (threadIdx.x == 0) {
        unsigned seen;
        do asm volatile("ld.acquire.gpu.global.u32 %0, [%1];\n" : "=r"(seen) : "l"(counter) : "memory");
        while (seen < count);
    }
    __syncthreads();
}

__device__ void copy(const uint4* x, uint4* y) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= VECTORS) return;
    uint4 v = __ldcg(x + i);
    v.x += 1;
    __stcg(y + i, v);
}

// Begins as soon as all blocks of the kernel ahead have, so those are on the card already, and waiting for them ends.
__global__ void counted(const uint4* x, uint4* y, unsigned* counters, int turn) {
    asm volatile("griddepcontrol.launch_dependents;\n" ::: "memory");
    if (turn > 0) await(counters + turn - 1, gridDim.x);
    copy(x, y);
    arrive(counters + turn);
}

// No more blocks than the card takes at a time.
__global__ void persistent(uint4* a, uint4* b, unsigned* counters) {
    for (int turn = 0; turn < LAUNCHES; turn++) {
        if (turn > 0) await(counters + turn - 1, gridDim.x);
        copy(turn % 2 ? b : a, turn % 2 ? a : b);
        arrive(counters + turn);
    }
}

// The two arrays that kernels write in turn, and a counter for each launch.
struct Memory {
    uint4* vectors[2];
    unsigned* counters;
};

// The median time of a recording, by what is recorded into a stream.
template <typename Record> static void time(const char* what, const char* shape, bool writes, Record record) {
    Memory memory;
    for (uint4*& v : memory.vectors) {
        check(cudaMalloc(&v, VECTORS * sizeof(uint4)), "memory");
        check(cudaMemset(v, 0, VECTORS * sizeof(uint4)), "memory");
    }
    check(cudaMalloc(&memory.counters, LAUNCHES * sizeof(unsigned)), "memory");
    cudaStream_t stream;
    check(cudaStreamCreate(&stream), "a stream");
    cudaGraph_t graph;
    check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), "a capture");
    check(cudaMemsetAsync(memory.counters, 0, LAUNCHES * sizeof(unsigned), stream), "memory");
    record(stream, memory);
    check(cudaStreamEndCapture(stream, &graph), "a capture");
    cudaGraphExec_t recorded;
    check(cudaGraphInstantiate(&recorded, graph, 0), "a graph");
    cudaEvent_t start, stop;
    check(cudaEventCreate(&start), "an event");
    check(cudaEventCreate(&stop), "an event");
    std::vector<float> times;
    for (int run = 0; run < WARMUP + RUNS; run++) {
        check(cudaEventRecord(start, stream), "an event");
        check(cudaGraphLaunch(recorded, stream), "a graph");
        check(cudaEventRecord(stop, stream), "an event");
        check(cudaStreamSynchronize(stream), "a run");
        float ms = 0;
        check(cudaEventElapsedTime(&ms, start, stop), "an event");
        if (run >= WARMUP) times.push_back(ms);
    }
    std::sort(times.begin(), times.end());
    // Each launch adds one to the first word, which one block reads and writes: so all ran. The first of a run reads what the last but one of the run ahead wrote.
    unsigned first = 0;
    check(cudaMemcpy(&first, memory.vectors[LAUNCHES % 2], sizeof first, cudaMemcpyDeviceToHost), "memory");
    const bool right = !writes || first == (LAUNCHES - 1) * (WARMUP + RUNS) + 1;
    printf("%-34s %-52s %5.2f%s\n", what, shape, times[RUNS / 2] * 1000 / LAUNCHES, right ? "" : " WRONG");
    check(cudaGraphExecDestroy(recorded), "a graph");
    check(cudaGraphDestroy(graph), "a graph");
    check(cudaEventDestroy(start), "an event");
    check(cudaEventDestroy(stop), "an event");
    check(cudaStreamDestroy(stream), "a stream");
    check(cudaFree(memory.counters), "memory");
    for (uint4* v : memory.vectors) check(cudaFree(v), "memory");
}

struct Shape {
    int blocks, threads, shared, cluster;
    bool early;
};

template <typename... Arguments> static void launch(cudaStream_t stream, const Shape& shape, void (*kernel)(Arguments...), Arguments... arguments) {
    cudaLaunchAttribute attributes[2];
    int count = 0;
    if (shape.early) {
        attributes[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
        attributes[count++].val.programmaticStreamSerializationAllowed = 1;
    }
    if (shape.cluster > 1) {
        attributes[count].id = cudaLaunchAttributeClusterDimension;
        attributes[count].val.clusterDim.x = shape.cluster;
        attributes[count].val.clusterDim.y = attributes[count].val.clusterDim.z = 1;
        count++;
    }
    cudaLaunchConfig_t config{};
    config.gridDim = shape.blocks;
    config.blockDim = shape.threads;
    config.dynamicSmemBytes = shape.shared;
    config.stream = stream;
    config.attrs = attributes;
    config.numAttrs = count;
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shape.shared), "shared memory");
    check(cudaLaunchKernelEx(&config, kernel, arguments...), "a launch");
}

template <Work WORK> static void steps(const char* what, Shape shape) {
    char text[80];
    snprintf(text, sizeof text, "%d blocks of %d threads, %d KiB, clusters of %d", shape.blocks, shape.threads, shape.shared >> 10, shape.cluster);
    char label[80];
    snprintf(label, sizeof label, "%s, %s", what, shape.early ? "early" : "in turn");
    time(label, text, WORK != NOTHING, [=](cudaStream_t stream, const Memory& m) {
        for (int i = 0; i < LAUNCHES; i++) launch(stream, shape, step<WORK>, static_cast<const uint4*>(m.vectors[i % 2]), m.vectors[(i + 1) % 2]);
    });
}

int main() {
    for (bool early : {false, true}) {
        steps<NOTHING>("nothing", {132, 160, 1 << 10, 1, early});
        steps<NOTHING>("nothing", {132, 160, 200 << 10, 1, early});
        steps<COPY>("read and write", {132, 160, 100 << 10, 1, early});
        steps<COPY>("read and write", {256, 160, 100 << 10, 1, early});
        steps<MEET>("read, meet twice, write", {128, 160, 100 << 10, 4, early});
        steps<MEET>("read, meet twice, write", {192, 160, 100 << 10, 8, early});
    }
    for (int blocks : {132, 256}) {
        const Shape shape{blocks, 160, 100 << 10, 1, true};
        char text[80];
        snprintf(text, sizeof text, "%d blocks of 160 threads, 100 KiB", blocks);
        time("read and write, by counters", text, true, [=](cudaStream_t stream, const Memory& m) {
            for (int i = 0; i < LAUNCHES; i++)
                launch(stream, shape, counted, static_cast<const uint4*>(m.vectors[i % 2]), m.vectors[(i + 1) % 2], m.counters, i);
        });
        time("read and write, one kernel", text, true, [=](cudaStream_t stream, const Memory& m) {
            launch(stream, {blocks, 160, 100 << 10, 1, false}, persistent, m.vectors[0], m.vectors[1], m.counters);
        });
    }
    return 0;
}
