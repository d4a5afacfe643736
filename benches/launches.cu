// What a launch costs where each waits for the one ahead, as the layers of a recorded frame do: the least that a layer can take, whatever it computes.
//
//   nvcc -O3 -gencode arch=compute_90a,code=sm_90a -o launches benches/launches.cu && ./launches
//
// 845 launches, as many as five calls of the reference network have, are recorded as a CUDA graph and run 20 times; the median is printed, in microseconds a
// launch. Kernels do nothing, or read 16 bytes a thread that the kernel ahead has written and write as many, or do that in clusters that meet twice.
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

template <Work WORK> static void time(const char* what, int blocks, int threads, int shared, int cluster, bool early) {
    cudaStream_t stream;
    check(cudaStreamCreate(&stream), "a stream");
    uint4* vectors[2];
    for (uint4*& v : vectors) {
        check(cudaMalloc(&v, VECTORS * sizeof(uint4)), "memory");
        check(cudaMemset(v, 0, VECTORS * sizeof(uint4)), "memory");
    }
    check(cudaFuncSetAttribute(step<WORK>, cudaFuncAttributeMaxDynamicSharedMemorySize, shared), "shared memory");
    cudaGraph_t graph;
    check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), "a capture");
    for (int i = 0; i < LAUNCHES; i++) {
        cudaLaunchAttribute attributes[2];
        int count = 0;
        if (early) {
            attributes[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
            attributes[count++].val.programmaticStreamSerializationAllowed = 1;
        }
        if (cluster > 1) {
            attributes[count].id = cudaLaunchAttributeClusterDimension;
            attributes[count].val.clusterDim.x = cluster;
            attributes[count].val.clusterDim.y = attributes[count].val.clusterDim.z = 1;
            count++;
        }
        cudaLaunchConfig_t config{};
        config.gridDim = blocks;
        config.blockDim = threads;
        config.dynamicSmemBytes = shared;
        config.stream = stream;
        config.attrs = attributes;
        config.numAttrs = count;
        check(cudaLaunchKernelEx(&config, step<WORK>, static_cast<const uint4*>(vectors[i % 2]), vectors[(i + 1) % 2]), "a launch");
    }
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
    printf("%-18s %4d blocks of %3d threads, %3d KiB, clusters of %d, %-10s %5.2f\n", what, blocks, threads, shared >> 10, cluster, early ? "early:" : "in turn:",
           times[RUNS / 2] * 1000 / LAUNCHES);
    check(cudaGraphExecDestroy(recorded), "a graph");
    check(cudaGraphDestroy(graph), "a graph");
    for (uint4* v : vectors) check(cudaFree(v), "memory");
    check(cudaStreamDestroy(stream), "a stream");
}

int main() {
    for (bool early : {false, true}) {
        time<NOTHING>("nothing", 132, 160, 1 << 10, 1, early);
        time<NOTHING>("nothing", 132, 160, 200 << 10, 1, early);
        time<COPY>("read and write", 132, 160, 100 << 10, 1, early);
        time<COPY>("read and write", 256, 160, 100 << 10, 1, early);
        time<MEET>("and meet twice", 128, 160, 100 << 10, 4, early);
        time<MEET>("and meet twice", 192, 160, 100 << 10, 8, early);
    }
    return 0;
}
