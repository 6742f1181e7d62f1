//! Memory: on the device, and pages of the host that the device copies from and to without a stop between.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use cudarc::driver::{result, sys};

use super::driver::{Context, refused};
use crate::Result;

/// Device memory of one [`super::Cuda`], or memory the caller lends.
#[derive(Debug)]
pub struct Buffer {
    context: Arc<Context>,
    address: sys::CUdeviceptr,
    bytes: usize,
    lent: bool,
}

impl Buffer {
    pub(super) fn new(context: &Arc<Context>, bytes: usize) -> Result<Self> {
        context.make_current()?;
        // SAFETY: a context is current; the memory is not read before it is written, which is the kernels' contract.
        let address = unsafe { result::malloc_sync(bytes.max(1)) }.map_err(|e| refused("allocate", e))?;
        Ok(Self { context: context.clone(), address, bytes, lent: false })
    }

    /// Memory of the caller, which stays the owner.
    pub(super) fn lent(context: &Arc<Context>, address: u64, bytes: usize) -> Self {
        Self { context: context.clone(), address, bytes, lent: true }
    }

    /// Its start on the device.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Its size in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if !self.lent && self.context.make_current().is_ok() {
            // SAFETY: allocated by `new`, freed once; freeing waits for work that uses it.
            let _ = unsafe { result::free_sync(self.address) };
        }
    }
}

/// Page-locked host memory: copies from it run beside kernels.
#[derive(Debug)]
pub struct Pinned {
    context: Arc<Context>,
    start: *mut u8,
    bytes: usize,
}

// SAFETY: the memory is owned by this value alone and not tied to a thread.
unsafe impl Send for Pinned {}

impl Pinned {
    pub(super) fn new(context: &Arc<Context>, bytes: usize) -> Result<Self> {
        context.make_current()?;
        // SAFETY: a context is current; what comes back is written before it is lent out.
        let start = unsafe { result::malloc_host(bytes.max(1), 0) }.map_err(|e| refused("allocate", e))?.cast::<u8>();
        // SAFETY: `start` is valid for `bytes`.
        unsafe { start.write_bytes(0, bytes) };
        Ok(Self { context: context.clone(), start, bytes })
    }
}

impl Deref for Pinned {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: initialised, owned, and `bytes` long.
        unsafe { std::slice::from_raw_parts(self.start, self.bytes) }
    }
}

impl DerefMut for Pinned {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.bytes) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if self.context.make_current().is_ok() {
            // SAFETY: allocated by `new`, freed once; the caller of an asynchronous copy keeps it until the copy is done.
            let _ = unsafe { result::free_host(self.start.cast()) };
        }
    }
}
