//! Work recorded once as a CUDA graph and replayed with one launch.
use super::steps::Steps;
use super::{bind, first_line, wrap};
use crate::cuda::address;
use crate::ops::graphs::{Graphs, Recorder, Work};
use crate::{Error, Result};
use candle_core::cuda_backend::CudaDevice;
use candle_core::cuda_backend::cudarc::driver::result::{self, memcpy_dtod_async};
use candle_core::cuda_backend::cudarc::driver::sys::{
    CUgraph, CUgraphExec, CUgraphInstantiate_flags, CUstreamCaptureMode,
};
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaStream, DevicePtr};
use candle_core::{DType, Device, Tensor};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;

/// Recordings that one owner keeps; the one that was not used for longest goes first.
const KEPT: usize = 12;

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
        let steps = unsafe { Steps::of(captured.0) }.map_err(|e| refused(first_line(&e)))?;
        drop(captured);
        // SAFETY: what is read of it was written by a step before.
        let block = unsafe { stream.alloc::<u8>(steps.bytes.max(1) as usize) }.map_err(wrap)?;
        let (start, _) = block.device_ptr(&stream);
        // SAFETY: the block is as large as the steps need, and the recording keeps it, the inputs and the outputs; what else the work
        // uses, such as weights, its owner keeps.
        let again = capture(&stream, || Ok(unsafe { steps.launch(stream.cu_stream(), start) }?))?;
        let recording = Recording { graph: again.instantiate(&stream)?, inputs, outputs, _block: block };
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
