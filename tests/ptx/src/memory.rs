//! Global memory: allocations with exact bounds, and which of their bytes were ever written.

use crate::error::{Blame, FaultKind, Ran};

/// Generic addresses from here on are shared memory; below lie the local window and, lowest, allocations.
pub(crate) const SHARED_WINDOW: u64 = 0xfffe << 48;
pub(crate) const LOCAL_WINDOW: u64 = 0xfffd << 48;
pub(crate) const PARAM_WINDOW: u64 = 0xfffc << 48;

#[derive(Debug, Default)]
struct Allocation {
    bytes: Vec<u8>,
    /// A bit per byte.
    written: Vec<u64>,
}

/// All allocations; number `n` (from 1) starts at address `n << 32`.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    allocations: Vec<Option<Allocation>>,
}

impl Memory {
    pub fn alloc(&mut self, bytes: usize) -> u64 {
        let written = vec![0; bytes.div_ceil(64)];
        self.allocations.push(Some(Allocation { bytes: vec![0; bytes], written }));
        (self.allocations.len() as u64) << 32
    }

    pub fn free(&mut self, address: u64) -> bool {
        let slot = (address >> 32).checked_sub(1).and_then(|i| self.allocations.get_mut(i as usize));
        address as u32 == 0 && slot.is_some_and(|s| s.take().is_some())
    }

    /// The allocation and the place in it of an access.
    fn find(&self, address: u64, size: usize) -> Ran<(usize, usize)> {
        let out = |why: String| Blame::new(FaultKind::OutOfBounds, format!("{size} bytes at {address:#x}: {why}"));
        let index = (address >> 32).wrapping_sub(1) as usize;
        let Some(allocation) = self.allocations.get(index).and_then(Option::as_ref) else {
            return Err(out("in no allocation".into()));
        };
        let (at, length) = (address as u32 as usize, allocation.bytes.len());
        if at + size > length {
            return Err(out(format!("offset {at} in an allocation of {length}")));
        }
        Ok((index, at))
    }

    /// A power of two of bytes, as the kernel reads them.
    pub fn load(&self, address: u64, out: &mut [u8]) -> Ran {
        aligned(address, out.len())?;
        let (index, at) = self.find(address, out.len())?;
        let Some(a) = &self.allocations[index] else { return Ok(()) };
        let want = crate::types::ones(out.len() as u32) << (at % 64);
        if a.written[at / 64] & want != want {
            let detail = format!("{} bytes at {address:#x}, offset {at} in its allocation", out.len());
            return Err(Blame::new(FaultKind::UninitializedGlobal, detail));
        }
        out.copy_from_slice(&a.bytes[at..at + out.len()]);
        Ok(())
    }

    /// A power of two of bytes, as the kernel writes them.
    pub fn store(&mut self, address: u64, data: &[u8]) -> Ran {
        aligned(address, data.len())?;
        self.write(address, data)
    }

    /// Any number of bytes, from the host.
    pub fn write(&mut self, address: u64, data: &[u8]) -> Ran {
        let (index, at) = self.find(address, data.len())?;
        let Some(a) = &mut self.allocations[index] else { return Ok(()) };
        a.bytes[at..at + data.len()].copy_from_slice(data);
        let (mut i, end) = (at, at + data.len());
        while i < end {
            let n = (64 - i % 64).min(end - i);
            a.written[i / 64] |= crate::types::ones(n as u32) << (i % 64);
            i += n;
        }
        Ok(())
    }

    /// Any number of bytes, to the host; never written ones are zero.
    pub fn read(&self, address: u64, out: &mut [u8]) -> Ran {
        let (index, at) = self.find(address, out.len())?;
        if let Some(a) = &self.allocations[index] {
            out.copy_from_slice(&a.bytes[at..at + out.len()]);
        }
        Ok(())
    }
}

/// Refuses an address that is no multiple of the size.
pub(crate) fn aligned(address: u64, size: usize) -> Ran {
    if size > 1 && address & (size as u64 - 1) != 0 {
        return Err(Blame::new(FaultKind::Misaligned, format!("{size} bytes at {address:#x}")));
    }
    Ok(())
}
