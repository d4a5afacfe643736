//! Work recorded once as a CUDA graph and replayed with one launch.
use super::steps::Steps;
use super::{Timer, bind, first_line, wrap};
use crate::cuda::address;
use crate::ops::graphs::{Graphs, Recorder, Work};
use crate::{Error, Result};
use candle_core::cuda_backend::CudaDevice;
use candle_core::cuda_backend::cudarc::driver::result::{self, memcpy_dtod_async};
use candle_core::cuda_backend::cudarc::driver::sys::{
    self, CUevent_flags, CUevent_record_flags, CUgraph, CUgraphExec, CUgraphInstantiate_flags, CUstreamCaptureMode,
};
use candle_core::cuda_backend::cudarc::driver::{CudaEvent, CudaSlice, CudaStream, DevicePtr};
use candle_core::{DType, Device, Tensor};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;
use std::time::Duration;

/// Recordings that one owner keeps; the one that was not used for longest goes first.
const KEPT: usize = 12;
/// Launches of a graph that is timed.
const TIMED: usize = 12;
/// What makes an event a step of a graph, and not a point that the capture joins.
const EXTERNAL: u32 = CUevent_record_flags::CU_EVENT_RECORD_EXTERNAL as u32;

/// Records work on a GPU.
///
/// # Errors
/// A device that is no NVIDIA GPU.
pub fn graphs(device: &Device) -> Result<Arc<dyn Graphs>> {
    Ok(Arc::new(CudaGraphs(device.as_cuda_device()?.clone())))
}

struct CudaGraphs(CudaDevice);

impl Graphs for CudaGraphs {
    fn stage(&self) -> &'static str {
        "fused-ops"
    }

    fn recorder(&self) -> Box<dyn Recorder> {
        Box::new(CudaRecorder { device: self.0.clone(), recordings: Mutex::default() })
    }
}

/// What a recording holds for: the caller's key, the inputs, and the thread, since Candle keeps small uploads for each thread.
#[derive(PartialEq)]
struct Key {
    work: String,
    inputs: Vec<(Vec<usize>, DType)>,
    thread: ThreadId,
}

/// A graph and the memory at its two ends, which it reads and writes at fixed addresses.
struct Recording {
    graph: Instance,
    inputs: Vec<Tensor>,
    outputs: Vec<Tensor>,
    /// All memory in between.
    _block: CudaSlice<u8>,
}

/// Work that ran once, as it is, and may have been recorded since.
struct Known {
    key: Key,
    recording: Option<Recording>,
}

/// The recordings of one owner, used last at the end.
#[derive(Default)]
struct Recordings(Vec<Known>);

// SAFETY: a CUDA graph must not be used from two threads at a time, and may be used from several in turn; the recordings lie behind
// a mutex, and nothing of them leaves it.
unsafe impl Send for Recordings {}

struct CudaRecorder {
    device: CudaDevice,
    recordings: Mutex<Recordings>,
}

impl Recorder for CudaRecorder {
    fn run(&self, key: &str, inputs: &[Tensor], work: Work<'_>) -> Result<Vec<Tensor>> {
        let key = Key {
            work: key.to_owned(),
            inputs: inputs.iter().map(|t| (t.dims().to_vec(), t.dtype())).collect(),
            thread: std::thread::current().id(),
        };
        let mut recordings = self.lock();
        let Some(at) = recordings.0.iter().position(|known| known.key == key) else {
            // the first run, as it is: it loads what is loaded lazily, and leaves its small uploads in Candle's cache
            let _uploads = self.device.enable_cuda_graph_htod_cache();
            let outputs = work(inputs)?;
            if recordings.0.len() == KEPT {
                recordings.0.remove(0);
            }
            recordings.0.push(Known { key, recording: None });
            return Ok(outputs);
        };
        let mut known = recordings.0.remove(at);
        let recording = match known.recording.take() {
            Some(recording) => recording,
            None => self.record(inputs, work)?,
        };
        let outputs = self.replay(&recording, inputs)?;
        recordings.0.push(Known { recording: Some(recording), ..known });
        Ok(outputs)
    }
}

impl CudaRecorder {
    fn lock(&self) -> MutexGuard<'_, Recordings> {
        self.recordings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, inputs: &[Tensor], work: Work<'_>) -> Result<Recording> {
        let stream = self.device.cuda_stream();
        let inputs = inputs.iter().map(Tensor::force_contiguous).collect::<candle_core::Result<Vec<_>>>()?;
        // run once more on the recording's own inputs, to know what its outputs look like
        let outputs = {
            let _uploads = self.device.enable_cuda_graph_htod_cache();
            work(&inputs)?.iter().map(Tensor::force_contiguous).collect::<candle_core::Result<Vec<_>>>()?
        };
        let expected = outputs.iter().map(bytes).collect::<candle_core::Result<Vec<_>>>()?;
        let refused = |why: String| {
            Error::Device(format!(
                "this work cannot be recorded as a CUDA graph: {why}; leave fused-ops out of --stages"
            ))
        };
        bind(&self.device)?;
        let captured = capture(&stream, || {
            let _uploads = self.device.enable_cuda_graph_htod_cache();
            for (made, kept) in work(&inputs)?.iter().zip(&outputs) {
                copy(&stream, &made.contiguous()?, kept)?;
            }
            Ok(())
        });
        let captured = captured.map_err(|e| match e {
            Error::Tensor(e) => refused(first_line(&e)),
            other => other,
        })?;
        // SAFETY: the graph is this thread's alone, and the work went through one stream.
        let steps = unsafe { Steps::of(captured.0, None) }.map_err(|e| refused(first_line(&e)))?;
        drop(captured);
        // SAFETY: the recording keeps the inputs and the outputs; what else the work uses, such as weights, its owner keeps.
        let (graph, block) = unsafe { relaunched(&steps, &stream, |_| Ok(())) }?;
        let recording = Recording { graph, inputs, outputs, _block: block };
        recording.graph.launch(&stream)?;
        for (output, expected) in recording.outputs.iter().zip(expected) {
            if bytes(output)? != expected {
                return Err(refused("its replay gives other values than the run that it was made from".into()));
            }
        }
        Ok(recording)
    }

    fn replay(&self, recording: &Recording, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let stream = self.device.cuda_stream();
        for (given, kept) in inputs.iter().zip(&recording.inputs) {
            copy(&stream, &given.contiguous()?, kept)?;
        }
        bind(&self.device)?;
        recording.graph.launch(&stream)?;
        // the next replay writes the same memory: the caller gets a copy
        Ok(recording.outputs.iter().map(Tensor::copy).collect::<candle_core::Result<_>>()?)
    }
}

/// Steps as a graph of their own, and the block of memory that it uses, which must live as long.
///
/// # Safety
/// So must all other memory that the steps were captured with.
unsafe fn relaunched(
    steps: &Steps,
    stream: &Arc<CudaStream>,
    marked: impl FnMut(bool) -> candle_core::Result<()>,
) -> Result<(Instance, CudaSlice<u8>)> {
    // SAFETY: what is read of it was written by a step before.
    let block = unsafe { stream.alloc::<u8>(steps.bytes.max(1) as usize) }.map_err(wrap)?;
    let (start, _) = block.device_ptr(stream);
    // SAFETY: the block is as large as the steps need; the caller's promise.
    let graph = capture(stream, || Ok(unsafe { steps.launch(stream.cu_stream(), start, marked) }?))?;
    Ok((graph.instantiate(stream)?, block))
}

/// Says where parts of recorded work begin and end.
#[derive(Clone)]
pub struct Marker(Tensor);

impl Marker {
    /// For work on this device; `None` for a CPU.
    ///
    /// # Errors
    /// No memory is left.
    pub fn new(device: &Device) -> candle_core::Result<Option<Self>> {
        if device.is_cpu() {
            return Ok(None);
        }
        Ok(Some(Self(Tensor::zeros(1, DType::U32, device)?)))
    }

    /// One part ends, another begins.
    ///
    /// # Errors
    /// An earlier error of the device.
    pub fn mark(&self) -> candle_core::Result<()> {
        let stream = self.0.device().as_cuda_device()?.cuda_stream();
        // SAFETY: the tensor's one value is written, which nobody reads.
        unsafe { sys::cuMemsetD32Async(address(&self.0)?, 0, 1, stream.cu_stream()) }.result().map_err(wrap)
    }
}

/// How long each part of `work` takes in its place in a recorded frame, the first from its start to the first mark, as the median of so many
/// launches. `work` queues everything, twice, and leaves nothing allocated.
///
/// # Errors
/// Work that cannot be recorded, or that the card cannot run.
pub fn time_parts(marker: &Marker, launches: usize, work: &mut dyn FnMut() -> Result<()>) -> Result<Vec<Duration>> {
    let device = marker.0.device().clone();
    let cuda = device.as_cuda_device()?;
    let stream = cuda.cuda_stream();
    bind(cuda)?;
    let mut work = || {
        let _uploads = cuda.enable_cuda_graph_htod_cache();
        work()
    };
    work()?;
    let captured = capture(&stream, work)?;
    // SAFETY: the graph is this thread's alone, and the work went through one stream.
    let steps = unsafe { Steps::of(captured.0, Some(address(&marker.0)?)) }?;
    let event = || stream.context().new_event(Some(CUevent_flags::CU_EVENT_DEFAULT)).map_err(wrap);
    let mut events = vec![event()?];
    // by the number of its event; a part without a step ends where it began
    let mut marks = vec![];
    let record = |event: &CudaEvent| {
        // SAFETY: both live; recorded so, the event is a step of the graph, and has a time after each launch.
        let recorded = unsafe { sys::cuEventRecordWithFlags(event.cu_event(), stream.cu_stream(), EXTERNAL) };
        recorded.result().map_err(wrap)
    };
    let start = |since: bool| {
        if since || marks.is_empty() {
            let next = event()?;
            record(&next)?;
            events.push(next);
        }
        marks.push(events.len() - 1);
        Ok(())
    };
    // SAFETY: all memory that the work uses its owner keeps until this returns.
    let (graph, _block) = unsafe { relaunched(&steps, &stream, start) }?;
    let mut times = vec![vec![]; marks.len()];
    for launch in 0..=launches {
        events[0].record(&stream).map_err(wrap)?;
        graph.launch(&stream)?;
        stream.synchronize().map_err(wrap)?;
        // the first brings the graph to the card
        for (mark, times) in times.iter_mut().enumerate().filter(|_| launch > 0) {
            let from = if mark == 0 { 0 } else { marks[mark - 1] };
            let milliseconds = match marks[mark] {
                to if to == from => 0.0,
                to => events[from].elapsed_ms(&events[to]).map_err(wrap)?,
            };
            times.push(Duration::from_secs_f64(f64::from(milliseconds) / 1e3));
        }
    }
    let median = |mut times: Vec<Duration>| {
        times.sort();
        times.get(times.len() / 2).copied().unwrap_or_default()
    };
    Ok(times.into_iter().map(median).collect())
}

/// Time that one of `turns` takes which follow each other as in a recorded frame, `before` having run ahead of the first; `work` queues
/// the turn of a number, and allocates nothing. `None` for a CPU.
///
/// # Errors
/// Work that cannot be recorded, or that the card cannot run.
pub fn time_in_turns(
    device: &Device,
    turns: usize,
    before: &dyn Fn() -> candle_core::Result<()>,
    work: &dyn Fn(usize) -> candle_core::Result<()>,
) -> candle_core::Result<Option<Duration>> {
    let Device::Cuda(cuda) = device else { return Ok(None) };
    let stream = cuda.cuda_stream();
    let recorded = || -> Result<(Instance, CudaSlice<u8>)> {
        bind(cuda)?;
        let captured = capture(&stream, || Ok((0..turns).try_for_each(work)?))?;
        // SAFETY: the graph is this thread's alone, and the work went through one stream.
        let steps = unsafe { Steps::of(captured.0, None) }?;
        // SAFETY: what the work uses, its owner keeps until this returns.
        unsafe { relaunched(&steps, &stream, |_| Ok(())) }
    };
    let (graph, _block) = recorded().map_err(candle_core::Error::wrap)?;
    let mut least = Duration::MAX;
    for round in 0..TIMED {
        before()?;
        let Some(timer) = Timer::start(device)? else { return Ok(None) };
        graph.launch(&stream).map_err(candle_core::Error::wrap)?;
        let time = timer.stop()?;
        // the first brings the graph to the card
        least = if round == 0 { least } else { least.min(time) };
    }
    Ok(Some(least / turns as u32))
}

/// Captures what `work` queues on the stream.
fn capture(stream: &CudaStream, work: impl FnOnce() -> Result<()>) -> Result<Graph> {
    stream.synchronize().map_err(wrap)?;
    stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED).map_err(wrap)?;
    let done = catch_unwind(AssertUnwindSafe(work));
    // whatever came of the work, the stream must not stay in capture
    // SAFETY: the capture was begun on this stream, by this thread.
    let ended = unsafe { result::stream::end_capture(stream.cu_stream()) }.map(Graph);
    done.unwrap_or_else(|panic| resume_unwind(panic))?;
    Ok(ended.map_err(wrap)?)
}

/// A graph that is not launched yet.
struct Graph(CUgraph);

impl Graph {
    fn instantiate(self, stream: &CudaStream) -> Result<Instance> {
        let flags = CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
        // SAFETY: the graph lives and belongs to nobody else.
        let instance = Instance(unsafe { result::graph::instantiate(self.0, flags) }.map_err(wrap)?);
        // SAFETY: both live.
        unsafe { result::graph::upload(instance.0, stream.cu_stream()) }.map_err(wrap)?;
        Ok(instance)
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: nobody else has it. There is nothing to do about an error.
            let _ = unsafe { result::graph::destroy(self.0) };
        }
    }
}

/// A graph that can be launched.
struct Instance(CUgraphExec);

impl Instance {
    fn launch(&self, stream: &CudaStream) -> Result<()> {
        // SAFETY: both live; the recording keeps the memory that the graph uses.
        Ok(unsafe { result::graph::launch(self.0, stream.cu_stream()) }.map_err(wrap)?)
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // SAFETY: nobody else has it; the driver lets a launch that is under way end first. There is nothing to do about an error.
        let _ = unsafe { result::graph::exec_destroy(self.0) };
    }
}

/// The bytes of a contiguous tensor.
fn bytes(tensor: &Tensor) -> candle_core::Result<Vec<u8>> {
    let mut bytes = vec![0u8; tensor.elem_count() * tensor.dtype().size_in_bytes()];
    tensor.device().synchronize()?;
    // SAFETY: the tensor is contiguous and of this many bytes, and all that writes it is done.
    unsafe { result::memcpy_dtoh_sync(&mut bytes, address(tensor)?) }.map_err(wrap)?;
    Ok(bytes)
}

/// Copies between contiguous tensors of one shape and type.
fn copy(stream: &Arc<CudaStream>, from: &Tensor, to: &Tensor) -> candle_core::Result<()> {
    let bytes = from.elem_count() * from.dtype().size_in_bytes();
    if from.dims() != to.dims() || from.dtype() != to.dtype() {
        candle_core::bail!(
            "work that gave {:?} {:?} now gives {:?} {:?}",
            to.dtype(),
            to.dims(),
            from.dtype(),
            from.dims()
        );
    }
    // SAFETY: both are contiguous and of this many bytes; `to` belongs to a recording, and nobody else reads or writes it.
    unsafe { memcpy_dtod_async(address(to)?, address(from)?, bytes, stream.cu_stream()) }.map_err(wrap)
}
