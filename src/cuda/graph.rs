//! A recorded sequence of launches, replayed by one call: the driver's part of each launch is paid once.

use std::sync::Arc;

use cudarc::driver::{result, sys};

use super::Cuda;
use super::driver::{Context, refused};
use crate::Result;

/// Work recorded from a [`Cuda`]'s stream.
#[derive(Debug)]
pub struct Graph {
    context: Arc<Context>,
    graph: sys::CUgraph,
    run: sys::CUgraphExec,
}

// SAFETY: the handles are not tied to a thread: each call makes the context current first.
unsafe impl Send for Graph {}

impl Cuda {
    /// [`Device::record`](super::Device::record).
    pub(super) fn capture(&mut self, work: impl FnOnce(&mut Cuda) -> Result<()>) -> Result<Graph> {
        self.context().make_current()?;
        let stream = self.raw_stream();
        let mode = sys::CUstreamCaptureMode_enum::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream is alive.
        unsafe { result::stream::begin_capture(stream, mode) }.map_err(|e| refused("record", e))?;
        let done = work(self);
        // SAFETY: a recording is open on this stream; it must be closed also where `work` failed.
        let graph = unsafe { result::stream::end_capture(stream) };
        if let (Err(error), Ok(graph)) = (done, graph) {
            // SAFETY: made above, not used again.
            let _ = unsafe { result::graph::destroy(graph) };
            return Err(error);
        }
        let graph = graph.map_err(|e| refused("record", e))?;
        // SAFETY: the graph was just made.
        match unsafe { result::graph::instantiate(graph, sys::CUgraphInstantiate_flags(0)) } {
            Ok(run) => Ok(Graph { context: self.context().clone(), graph, run }),
            Err(e) => {
                // SAFETY: made above, not used again.
                let _ = unsafe { result::graph::destroy(graph) };
                Err(refused("record", e))
            }
        }
    }

    /// [`Device::replay`](super::Device::replay).
    ///
    /// # Safety
    /// As there.
    pub(super) unsafe fn run_graph(&mut self, graph: &Graph) -> Result<()> {
        self.context().make_current()?;
        // SAFETY: graph and stream are alive, of one context; the memory is the caller's promise.
        unsafe { result::graph::launch(graph.run, self.raw_stream()) }.map_err(|e| refused("replay", e))
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        if self.context.make_current().is_ok() {
            // SAFETY: each handle is given back once.
            unsafe {
                let _ = result::graph::exec_destroy(self.run);
                let _ = result::graph::destroy(self.graph);
            }
        }
    }
}
