//! What a CUDA graph does, step by step, so that the same can be launched again on memory of our own.
//!
//! A captured graph that allocates has a node for each allocation and each release between its kernels, and a kernel after such a node
//! cannot begin before the kernel ahead of it has ended. Launched again with all pieces in one block, kernels follow each other
//! directly, and ours overlap (programmatic dependent launch: CUDA C++ programming guide, 4.5).
use super::{launch, wrap};
use crate::cuda::Grid;
use crate::cuda::arena::Arena;
use candle_core::Result;
use candle_core::cuda_backend::cudarc::driver::result::memcpy_dtod_async;
use candle_core::cuda_backend::cudarc::driver::sys::{
    self, CUfunction, CUfunction_attribute, CUgraph, CUgraphNode, CUgraphNodeType, CUlaunchAttributeID,
    CUlaunchAttributeValue, CUmemorytype, CUstream,
};
use std::collections::BTreeMap;
use std::ffi::{CStr, c_void};
use std::mem::MaybeUninit;
use std::ptr::{null_mut, without_provenance_mut};

/// How the names of our own kernels begin.
pub(super) const OWN_KERNELS: &str = "mirage_";
/// The [`generation`] from which on they wait for the kernel ahead themselves, as `cuda-kernels/ptx.cuh` says.
const OVERLAPPING: i32 = 90;

/// The names in `extra` of `cuLaunchKernel`.
const BUFFER_POINTER: usize = 1;
/// See `BUFFER_POINTER`.
const BUFFER_SIZE: usize = 2;

/// Memory: where it is, or where in the block it will be.
#[derive(Clone, Copy)]
enum Place {
    At(u64),
    Offset(u64),
}

impl Place {
    fn of(arena: &Arena, address: u64) -> Self {
        arena.offset(address).map_or(Self::At(address), Self::Offset)
    }

    fn address(self, block: u64) -> u64 {
        match self {
            Self::At(address) => address,
            Self::Offset(offset) => block + offset,
        }
    }
}

struct Launch {
    function: CUfunction,
    grid: Grid,
    /// Along x, y and z.
    threads: [u32; 3],
    /// Each argument, as 64-bit words; or all of them in one buffer of so many bytes.
    arguments: Vec<Vec<u64>>,
    buffer: Option<usize>,
    /// Words that are addresses in the block: argument, word, offset.
    addresses: Vec<(usize, usize, u64)>,
    /// Whether it takes the one argument that ours do.
    own: bool,
    /// Whether it waits for the kernel ahead itself, and so may begin before that has ended.
    overlaps: bool,
}

enum Step {
    Launch(Launch),
    Copy {
        to: Place,
        from: Place,
        bytes: usize,
    },
    Fill {
        to: Place,
        value: u32,
        element: u32,
        count: usize,
    },
    /// Where work said that a part of it begins or ends.
    Mark,
}

/// The steps of a graph in their order, and how much memory they need.
pub(super) struct Steps {
    steps: Vec<Step>,
    pub bytes: u64,
}

/// Asks the driver for a value that it writes.
fn ask<T>(call: impl FnOnce(*mut T) -> sys::CUresult) -> Result<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    call(value.as_mut_ptr()).result().map_err(wrap)?;
    // SAFETY: the call succeeded, so the driver wrote the value; all types asked for here are plain and valid as zeros.
    Ok(unsafe { value.assume_init() })
}

impl Steps {
    /// Takes a graph apart. What fills the memory at `mark` stands for a mark.
    ///
    /// # Safety
    /// `graph` was captured from one stream and is not changed or destroyed by another thread meanwhile.
    ///
    /// # Errors
    /// A graph that is not one chain of kernels, copies and fills on the device, or that keeps memory which it allocated.
    pub unsafe fn of(graph: CUgraph, mark: Option<u64>) -> Result<Self> {
        let (mut arena, mut steps) = (Arena::default(), Vec::new());
        for node in chain(graph)? {
            // SAFETY: the nodes are the graph's, which lives; each question fits the type of the node.
            let kind = ask(|to| unsafe { sys::cuGraphNodeGetType(node, to) })?;
            match kind {
                CUgraphNodeType::CU_GRAPH_NODE_TYPE_MEM_ALLOC => {
                    // SAFETY: as above.
                    let p = ask(|to| unsafe { sys::cuGraphMemAllocNodeGetParams(node, to) })?;
                    arena.allocate(p.dptr, p.bytesize as u64);
                }
                CUgraphNodeType::CU_GRAPH_NODE_TYPE_MEM_FREE => {
                    // SAFETY: as above.
                    let address = ask(|to| unsafe { sys::cuGraphMemFreeNodeGetParams(node, to) })?;
                    if !arena.free(address) {
                        candle_core::bail!("it frees memory that was there before");
                    }
                }
                CUgraphNodeType::CU_GRAPH_NODE_TYPE_KERNEL => steps.push(Step::Launch(kernel(node, &arena)?)),
                CUgraphNodeType::CU_GRAPH_NODE_TYPE_MEMCPY => steps.push(copy(node, &arena)?),
                CUgraphNodeType::CU_GRAPH_NODE_TYPE_MEMSET => {
                    // SAFETY: as above.
                    let p = ask(|to| unsafe { sys::cuGraphMemsetNodeGetParams(node, to) })?;
                    if mark == Some(p.dst) {
                        steps.push(Step::Mark);
                        continue;
                    }
                    if p.height > 1 {
                        candle_core::bail!("it fills rows apart from each other");
                    }
                    let to = Place::of(&arena, p.dst);
                    steps.push(Step::Fill { to, value: p.value, element: p.elementSize, count: p.width });
                }
                CUgraphNodeType::CU_GRAPH_NODE_TYPE_EMPTY => (),
                other => candle_core::bail!("it has a step of type {other:?}"),
            }
        }
        if arena.live() > 0 {
            candle_core::bail!("it keeps {} pieces of memory that it allocated", arena.live());
        }
        Ok(Self { steps, bytes: arena.bytes() })
    }

    /// Launches every step on `stream`, with the block of memory at `block`; `marked` is called at each mark, and told whether there was a step
    /// since the one before.
    ///
    /// # Safety
    /// The block is of at least `bytes` bytes, lives until all steps are done (those of a graph, until the graph is destroyed), and
    /// is used by nothing else meanwhile; so does all other memory that the steps were captured with.
    ///
    /// # Errors
    /// Whatever the driver finds wrong.
    pub unsafe fn launch(
        &self,
        stream: CUstream,
        block: u64,
        mut marked: impl FnMut(bool) -> Result<()>,
    ) -> Result<()> {
        let mut since = false;
        for step in &self.steps {
            if matches!(step, Step::Mark) {
                marked(std::mem::take(&mut since))?;
                continue;
            }
            since = true;
            match step {
                Step::Mark => (),
                // SAFETY: the caller's promise; addresses within the block were those of pieces that the kernel was captured with.
                Step::Launch(launch) => unsafe { relaunch(launch, stream, block) }?,
                Step::Copy { to, from, bytes } => {
                    // SAFETY: likewise, and as many bytes as were captured.
                    unsafe { memcpy_dtod_async(to.address(block), from.address(block), *bytes, stream) }
                        .map_err(wrap)?;
                }
                Step::Fill { to, value, element, count } => {
                    let to = to.address(block);
                    // SAFETY: likewise.
                    let result = unsafe {
                        match element {
                            1 => sys::cuMemsetD8Async(to, *value as u8, *count, stream),
                            2 => sys::cuMemsetD16Async(to, *value as u16, *count, stream),
                            _ => sys::cuMemsetD32Async(to, *value, *count, stream),
                        }
                    };
                    result.result().map_err(wrap)?;
                }
            }
        }
        Ok(())
    }
}

/// The nodes of a graph in which each depends on at most one other, from first to last.
fn chain(graph: CUgraph) -> Result<Vec<CUgraphNode>> {
    let mut count = 0;
    // SAFETY: without a list the driver only counts.
    unsafe { sys::cuGraphGetNodes(graph, null_mut(), &raw mut count) }.result().map_err(wrap)?;
    let mut nodes: Vec<CUgraphNode> = vec![null_mut(); count];
    // SAFETY: the list has room for as many as the driver counted.
    unsafe { sys::cuGraphGetNodes(graph, nodes.as_mut_ptr(), &raw mut count) }.result().map_err(wrap)?;
    let mut after = BTreeMap::new();
    for node in nodes {
        let mut count = 0;
        // SAFETY: without lists the driver only counts.
        unsafe { sys::cuGraphNodeGetDependencies_v2(node, null_mut(), null_mut(), &raw mut count) }
            .result()
            .map_err(wrap)?;
        let mut before: CUgraphNode = null_mut();
        if count > 1 {
            candle_core::bail!("a step of it waits for {count} others");
        }
        if count == 1 {
            let mut edge = MaybeUninit::zeroed();
            // SAFETY: one dependency and its edge fit where the pointers point.
            unsafe { sys::cuGraphNodeGetDependencies_v2(node, &raw mut before, edge.as_mut_ptr(), &raw mut count) }
                .result()
                .map_err(wrap)?;
        }
        if after.insert(before, node).is_some() {
            candle_core::bail!("two steps of it wait for the same one");
        }
    }
    let mut ordered = Vec::with_capacity(after.len());
    let mut at: CUgraphNode = null_mut();
    while let Some(node) = after.remove(&at) {
        ordered.push(node);
        at = node;
    }
    if !after.is_empty() {
        candle_core::bail!("{} steps of it wait for none of the others", after.len());
    }
    Ok(ordered)
}

fn kernel(node: CUgraphNode, arena: &Arena) -> Result<Launch> {
    // SAFETY: the node is a kernel's.
    let p = ask(|to| unsafe { sys::cuGraphKernelNodeGetParams_v2(node, to) })?;
    let function = if p.func.is_null() {
        // SAFETY: a node has a function or, as here, a kernel of the current context.
        ask(|to| unsafe { sys::cuKernelGetFunction(to, p.kern) })?
    } else {
        p.func
    };
    // SAFETY: the function is loaded, and the driver's string lives as long as it is.
    let name = unsafe { CStr::from_ptr(ask(|to| sys::cuFuncGetName(to, function))?) };
    let own = name.to_bytes().starts_with(OWN_KERNELS.as_bytes());
    let mut launch = Launch {
        function,
        grid: Grid {
            blocks: [p.gridDimX, p.gridDimY, p.gridDimZ],
            threads: p.blockDimX * p.blockDimY * p.blockDimZ,
            shared: p.sharedMemBytes,
            cluster: cluster(node)?,
        },
        threads: [p.blockDimX, p.blockDimY, p.blockDimZ],
        arguments: Vec::new(),
        buffer: None,
        addresses: Vec::new(),
        own,
        overlaps: own && generation(function)? >= OVERLAPPING,
    };
    if p.kernelParams.is_null() {
        // SAFETY: the node has its arguments in the other of the two forms.
        let (bytes, size) = unsafe { one_buffer(p.extra) }?;
        launch.buffer = Some(size);
        // SAFETY: the buffer is so many bytes long.
        launch.arguments.push(unsafe { words(bytes, size) });
    } else {
        let (mut offset, mut size) = (0usize, 0usize);
        // ours take one argument; of others, the driver says beyond the last that there is none, which tools that look on report as an error
        // SAFETY: the driver writes two numbers.
        while !(launch.own && launch.arguments.len() == 1)
            && unsafe { sys::cuFuncGetParamInfo(function, launch.arguments.len(), &raw mut offset, &raw mut size) }
                .result()
                .is_ok()
        {
            // SAFETY: the node has a pointer to each of the kernel's arguments, which is so many bytes long.
            let argument = unsafe { words((*p.kernelParams.add(launch.arguments.len())).cast_const().cast(), size) };
            launch.arguments.push(argument);
        }
    }
    // an address is a whole word, and points into a piece that is in use; a word that only looks like one would show when the
    // recording is compared with the run that it was made from
    for (index, argument) in launch.arguments.iter().enumerate() {
        let found = argument.iter().enumerate().filter_map(|(at, word)| Some((index, at, arena.offset(*word)?)));
        launch.addresses.extend(found);
    }
    Ok(launch)
}

/// The generation of cards, ten times its compute capability, that a function's code was written for.
fn generation(function: CUfunction) -> Result<i32> {
    let attribute = CUfunction_attribute::CU_FUNC_ATTRIBUTE_PTX_VERSION;
    // SAFETY: the function is loaded.
    ask(|to| unsafe { sys::cuFuncGetAttribute(to, attribute, function) })
}

/// # Safety
/// So many bytes can be read there.
unsafe fn words(bytes: *const u8, count: usize) -> Vec<u64> {
    let mut words = vec![0u64; count.div_ceil(8)];
    // SAFETY: the words have room for the bytes, which the caller vouches for.
    unsafe { std::ptr::copy_nonoverlapping(bytes, words.as_mut_ptr().cast::<u8>(), count) };
    words
}

/// Where a buffer of arguments is, and its bytes.
///
/// # Safety
/// `extra` is null, or what `cuLaunchKernel` takes by that name.
unsafe fn one_buffer(extra: *mut *mut c_void) -> Result<(*const u8, usize)> {
    let (mut bytes, mut size) = (null_mut(), None);
    let mut at = extra;
    // SAFETY: pairs of a name and a pointer, up to the name that ends them.
    unsafe {
        while !at.is_null() && !(*at).is_null() {
            match (*at).addr() {
                BUFFER_POINTER => bytes = *at.add(1),
                BUFFER_SIZE => size = Some(*(*at.add(1)).cast::<usize>()),
                other => candle_core::bail!("a kernel takes its arguments in the form {other}"),
            }
            at = at.add(2);
        }
    }
    match size {
        Some(size) if !bytes.is_null() => Ok((bytes.cast_const().cast(), size)),
        _ => candle_core::bail!("a kernel's arguments are not known"),
    }
}

/// Blocks of a cluster, along z as for all kernels here; 1 where there are none.
fn cluster(node: CUgraphNode) -> Result<u32> {
    let id = CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
    // SAFETY: the node is a kernel's.
    let value: CUlaunchAttributeValue = ask(|to| unsafe { sys::cuGraphKernelNodeGetAttribute(node, id, to) })?;
    // SAFETY: the driver wrote the value of this attribute.
    let cluster = unsafe { value.clusterDim };
    if cluster.x > 1 || cluster.y > 1 {
        candle_core::bail!("a kernel has clusters along more than one dimension");
    }
    Ok(cluster.z.max(1))
}

/// # Safety
/// As [`Steps::launch`].
unsafe fn relaunch(launch: &Launch, stream: CUstream, block: u64) -> Result<()> {
    let mut arguments = launch.arguments.clone();
    for (argument, word, offset) in &launch.addresses {
        arguments[*argument][*word] = block + offset;
    }
    let mut size = launch.buffer.unwrap_or_default();
    let mut extra = [
        without_provenance_mut(BUFFER_POINTER),
        arguments.first_mut().map_or(null_mut(), |words| words.as_mut_ptr().cast()),
        without_provenance_mut(BUFFER_SIZE),
        (&raw mut size).cast(),
        null_mut(),
    ];
    let mut pointers: Vec<*mut c_void> = arguments.iter_mut().map(|words| words.as_mut_ptr().cast()).collect();
    let (pointers, extra): (&mut [_], &mut [_]) = match launch.buffer {
        Some(_) => (&mut [], &mut extra),
        None => (&mut pointers, &mut []),
    };
    // SAFETY: the arguments are those that the kernel was captured with, at addresses that the caller vouches for; a kernel that may
    // overlap with the one ahead is ours, and waits for it before it touches what others write.
    unsafe { launch::launch(launch.function, stream, launch.grid, launch.threads, launch.overlaps, pointers, extra) }
}

fn copy(node: CUgraphNode, arena: &Arena) -> Result<Step> {
    // SAFETY: the node is a copy's.
    let p = ask(|to| unsafe { sys::cuGraphMemcpyNodeGetParams(node, to) })?;
    let on_device = |kind| matches!(kind, CUmemorytype::CU_MEMORYTYPE_DEVICE | CUmemorytype::CU_MEMORYTYPE_UNIFIED);
    if !on_device(p.srcMemoryType) || !on_device(p.dstMemoryType) {
        candle_core::bail!("it copies between host and device");
    }
    if p.Height > 1 || p.Depth > 1 {
        candle_core::bail!("it copies rows apart from each other");
    }
    let place = |device: u64, at: usize| Place::of(arena, device + at as u64);
    Ok(Step::Copy {
        to: place(p.dstDevice, p.dstXInBytes),
        from: place(p.srcDevice, p.srcXInBytes),
        bytes: p.WidthInBytes,
    })
}
