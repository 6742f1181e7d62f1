//! A real device: context, stream, loaded kernels.

use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::ops::Range;
use std::sync::Arc;

use cudarc::driver::{DriverError, result, sys};

use super::module::{self, Image};
use super::{Arch, Args, Buffer, Device, Graph, Launch, Pinned};
use crate::{Error, Result};

/// Dynamic shared memory that needs no permission.
const SHARED_WITHOUT_OPT_IN: u32 = 48 * 1024;

/// The error of a driver call.
pub(super) fn refused(op: &'static str, error: DriverError) -> Error {
    Error::device(op, error.to_string())
}

/// The primary context of a device, held until the last user is gone.
#[derive(Debug)]
pub(super) struct Context {
    device: sys::CUdevice,
    handle: sys::CUcontext,
}

// SAFETY: a context may be made current on any thread, on several at once too; the driver locks.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Context {
    fn new(device: sys::CUdevice) -> Result<Self> {
        // SAFETY: the device comes from the driver.
        let handle = unsafe { result::primary_ctx::retain(device) }.map_err(|e| refused("open the device", e))?;
        Ok(Self { device, handle })
    }

    /// For this thread's next calls.
    pub(super) fn make_current(&self) -> Result<()> {
        // SAFETY: retained, so alive.
        unsafe { result::ctx::set_current(self.handle) }.map_err(|e| refused("use the device", e))
    }

    fn attribute(&self, attribute: sys::CUdevice_attribute) -> Result<u32> {
        // SAFETY: the device comes from the driver.
        let value = unsafe { result::device::get_attribute(self.device, attribute) };
        value.map(|x| x as u32).map_err(|e| refused("ask the device", e))
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: retained once, released once.
        let _ = unsafe { result::primary_ctx::release(self.device) };
    }
}

/// One GPU with all kernels loaded and a stream they run on in order.
#[derive(Debug)]
pub struct Cuda {
    context: Arc<Context>,
    stream: sys::CUstream,
    stream_is_lent: bool,
    modules: Vec<sys::CUmodule>,
    functions: HashMap<&'static str, sys::CUfunction>,
    arch: Arch,
    shared_limit: u32,
}

// SAFETY: the handles are not tied to a thread: each call makes the context current first.
unsafe impl Send for Cuda {}

impl Cuda {
    /// Opens the device of that number and loads all kernels.
    ///
    /// # Errors
    /// [`Error::NoDevice`] without driver, device, or images it can run; [`Error::Device`] where the driver refuses.
    pub fn new(ordinal: usize) -> Result<Self> {
        let mut cuda = Self::open(ordinal)?;
        let stream = result::stream::create(result::stream::StreamKind::NonBlocking);
        cuda.stream = stream.map_err(|e| refused("create a stream", e))?;
        cuda.stream_is_lent = false;
        Ok(cuda)
    }

    /// The same on the caller's stream (a `CUstream`).
    ///
    /// # Errors
    /// As [`Cuda::new`], and for null, the default stream: launches on it cannot be recorded.
    ///
    /// # Safety
    /// The stream belongs to the primary context of that device and outlives what is returned.
    pub unsafe fn with_stream(ordinal: usize, stream: *mut c_void) -> Result<Self> {
        if stream.is_null() {
            return Err(Error::config("stream", "the default stream cannot be recorded; make one"));
        }
        let mut cuda = Self::open(ordinal)?;
        cuda.stream = stream.cast();
        Ok(cuda)
    }

    /// Everything but the stream.
    fn open(ordinal: usize) -> Result<Self> {
        // SAFETY: opens the driver's library by name.
        if !unsafe { sys::is_culib_present() } {
            return Err(Error::no_device(ordinal, "the CUDA driver's library (libcuda) is not on this machine"));
        }
        result::init().map_err(|e| Error::no_device(ordinal, e.to_string()))?;
        let device = result::device::get(ordinal as i32).map_err(|e| Error::no_device(ordinal, e.to_string()))?;
        let context = Arc::new(Context::new(device)?);
        context.make_current()?;
        let major = context.attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let minor = context.attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        let arch = Arch::choose(module::archs(), (major, minor)).ok_or_else(|| {
            Error::no_device(ordinal, format!("no kernel was built for compute capability {major}.{minor}"))
        })?;
        let limit = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN;
        let shared_limit = context.attribute(limit)?;
        let (stream, modules, functions) = (std::ptr::null_mut(), vec![], HashMap::new());
        let mut cuda = Self { context, stream, stream_is_lent: true, modules, functions, arch, shared_limit };
        module::images_for(arch).try_for_each(|image| cuda.load(image))?;
        Ok(cuda)
    }

    /// Loads one file's kernels: machine code where the device takes it, else PTX.
    fn load(&mut self, image: &'static Image) -> Result<()> {
        // SAFETY: an image as the compiler made it; a context is current.
        let cubin = unsafe { result::module::load_data(image.cubin.as_ptr().cast()) };
        let module = cubin.or_else(|_| {
            let text = CString::new(image.ptx).expect("PTX holds no NUL");
            // SAFETY: a text that ends with NUL; the driver copies it.
            unsafe { result::module::load_data(text.as_ptr().cast()) }
        });
        let module = module.map_err(|e| Error::device("load kernels", format!("{}: {e}", image.stem)))?;
        self.modules.push(module);
        for kernel in image.kernels {
            let name = CString::new(kernel.kernel).expect("a name holds no NUL");
            // SAFETY: the module is loaded.
            let function = unsafe { result::module::get_function(module, name) };
            let function = function.map_err(|e| Error::device(kernel.kernel, e.to_string()))?;
            self.permit_shared(kernel.shared, function)?;
            self.functions.insert(kernel.kernel, function);
        }
        Ok(())
    }

    /// Lets a kernel have all the dynamic shared memory there is beside its static part.
    fn permit_shared(&self, fixed: u32, function: sys::CUfunction) -> Result<()> {
        let most = self.shared_limit.saturating_sub(fixed);
        if most <= SHARED_WITHOUT_OPT_IN {
            return Ok(());
        }
        let attribute = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: the function is of a loaded module.
        let set = unsafe { result::function::set_function_attribute(function, attribute, most as i32) };
        set.map_err(|e| refused("permit shared memory", e))
    }

    /// The device's name, as the driver gives it.
    pub fn name(&self) -> Result<String> {
        result::device::get_name(self.context.device).map_err(|e| refused("ask the device", e))
    }

    /// Multiprocessors of the device.
    pub fn multiprocessors(&self) -> Result<u32> {
        self.context.attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)
    }

    /// The stream, a `CUstream`.
    pub fn stream(&self) -> *mut c_void {
        self.stream.cast()
    }

    /// Memory of the caller as a buffer.
    ///
    /// # Safety
    /// `address` is valid on this device for `bytes`, and lives longer than the buffer and the work on it.
    pub unsafe fn lend(&self, address: u64, bytes: usize) -> Buffer {
        Buffer::lent(&self.context, address, bytes)
    }

    pub(super) fn context(&self) -> &Arc<Context> {
        &self.context
    }

    pub(super) fn raw_stream(&self) -> sys::CUstream {
        self.stream
    }
}

/// The address of a range that must lie in the buffer.
fn inside(op: &'static str, buffer: &Buffer, offset: usize, bytes: usize) -> Result<sys::CUdeviceptr> {
    match offset.checked_add(bytes) {
        Some(end) if end <= buffer.bytes() => Ok(buffer.address() + offset as u64),
        _ => Err(Error::shape(op, format!("{bytes} bytes at {offset} of a buffer of {}", buffer.bytes()))),
    }
}

impl Device for Cuda {
    type Buffer = Buffer;
    type Host = Pinned;
    type Graph = Graph;

    fn arch(&self) -> Arch {
        self.arch
    }

    fn shared_limit(&self) -> u32 {
        self.shared_limit
    }

    fn alloc(&mut self, bytes: usize) -> Result<Buffer> {
        Buffer::new(&self.context, bytes)
    }

    fn alloc_host(&mut self, bytes: usize) -> Result<Pinned> {
        Pinned::new(&self.context, bytes)
    }

    fn address(&self, buffer: &Buffer) -> u64 {
        buffer.address()
    }

    fn bytes(&self, buffer: &Buffer) -> usize {
        buffer.bytes()
    }

    fn upload(&mut self, dst: &mut Buffer, offset: usize, src: &[u8]) -> Result<()> {
        let address = inside("upload", dst, offset, src.len())?;
        self.context.make_current()?;
        // SAFETY: the range was checked; the wait below keeps the source until the copy is done.
        unsafe { result::memcpy_htod_async(address, src, self.stream) }.map_err(|e| refused("upload", e))?;
        self.synchronize()
    }

    fn download(&mut self, src: &Buffer, offset: usize, dst: &mut [u8]) -> Result<()> {
        let address = inside("download", src, offset, dst.len())?;
        self.context.make_current()?;
        // SAFETY: the range was checked; the wait below keeps the destination until the copy is done.
        unsafe { result::memcpy_dtoh_async(dst, address, self.stream) }.map_err(|e| refused("download", e))?;
        self.synchronize()
    }

    unsafe fn upload_async(&mut self, dst: &mut Buffer, src: &Pinned, range: Range<usize>) -> Result<()> {
        let address = inside("upload", dst, range.start, range.len())?;
        let src = src.get(range).ok_or_else(|| Error::device("upload", "the source is shorter than the copy"))?;
        self.context.make_current()?;
        // SAFETY: both ranges were checked; the caller keeps the source.
        unsafe { result::memcpy_htod_async(address, src, self.stream) }.map_err(|e| refused("upload", e))
    }

    unsafe fn download_async(&mut self, src: &Buffer, range: Range<usize>, dst: &mut Pinned) -> Result<()> {
        let address = inside("download", src, range.start, range.len())?;
        let dst = dst.get_mut(..range.len());
        let dst = dst.ok_or_else(|| Error::device("download", "the destination is shorter than the copy"))?;
        self.context.make_current()?;
        // SAFETY: both ranges were checked; the caller keeps the destination.
        unsafe { result::memcpy_dtoh_async(dst, address, self.stream) }.map_err(|e| refused("download", e))
    }

    unsafe fn launch(&mut self, launch: &Launch, args: &Args) -> Result<()> {
        launch.check(self.shared_limit)?;
        let function = self.functions.get(launch.kernel);
        let &function = function.ok_or_else(|| Error::device(launch.kernel, "no such kernel for this device"))?;
        self.context.make_current()?;
        let ([gx, gy, gz], [bx, by, bz]) = (launch.grid, launch.block);
        // SAFETY: the driver reads each parameter's bytes during the call; the rest is the caller's promise.
        unsafe {
            let (mut params, count) = args.pointers();
            let params = &mut params[..count];
            result::launch_kernel(function, (gx, gy, gz), (bx, by, bz), launch.shared, self.stream, params)
        }
        .map_err(|e| Error::device(launch.kernel, e.to_string()))
    }

    fn record(&mut self, work: impl FnOnce(&mut Self) -> Result<()>) -> Result<Graph> {
        self.capture(work)
    }

    unsafe fn replay(&mut self, graph: &Graph) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.run_graph(graph) }
    }

    fn synchronize(&mut self) -> Result<()> {
        self.context.make_current()?;
        // SAFETY: the stream is alive.
        unsafe { result::stream::synchronize(self.stream) }.map_err(|e| refused("wait for the device", e))
    }
}

impl Drop for Cuda {
    fn drop(&mut self) {
        if self.context.make_current().is_err() {
            return;
        }
        // SAFETY: work is waited for, then each handle is given back once.
        unsafe {
            let _ = result::stream::synchronize(self.stream);
            if !self.stream_is_lent {
                let _ = result::stream::destroy(self.stream);
            }
            for &module in &self.modules {
                let _ = result::module::unload(module);
            }
        }
    }
}
