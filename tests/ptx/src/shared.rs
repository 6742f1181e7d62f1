//! A block's shared memory, with a shadow that knows who touched each byte since the last barrier.
//!
//! Time in a block is counted in epochs: a barrier that completes starts the next. Two warps that touch a byte in one
//! epoch, one of them writing, race, since nothing orders them. Atomics don't race with each other. A byte that a
//! `cp.async` still has to fill may be neither read nor written.

use crate::error::{Blame, FaultKind, Ran};
use crate::memory::aligned;

const NOBODY: u16 = u16::MAX;
/// Several warps.
const MANY: u16 = u16::MAX - 1;
/// Several warps, each by an atomic.
const ATOMICS: u16 = u16::MAX - 2;
/// Marks a writer that wrote by an atomic.
const ATOMIC: u16 = 0x4000;

#[derive(Debug, Clone, Copy)]
struct Cell {
    /// Epoch of the last write; 0: never written.
    written: u32,
    /// Fences of the block before that write.
    fences: u32,
    read: u32,
    writer: u16,
    reader: u16,
}

/// Shared memory of one block.
#[derive(Debug)]
pub(crate) struct Shared {
    bytes: Vec<u8>,
    cells: Vec<Cell>,
    /// Copies under way to each byte.
    pending: Vec<u8>,
    copies: usize,
    epoch: u32,
    /// Fences for the asynchronous proxy so far, and how many there were at each warp's last one.
    fences: u32,
    fenced: [u32; 32],
}

impl Shared {
    pub fn new(bytes: u32) -> Self {
        let n = bytes as usize;
        let cell = Cell { written: 0, fences: 0, read: 0, writer: NOBODY, reader: NOBODY };
        let (bytes, cells, pending) = (vec![0; n], vec![cell; n], vec![0; n]);
        Self { bytes, cells, pending, copies: 0, epoch: 1, fences: 0, fenced: [0; 32] }
    }

    /// A barrier has completed.
    pub fn next_epoch(&mut self) {
        self.epoch += 1;
    }

    /// A warp fences its writes for the asynchronous proxy.
    pub fn fence(&mut self, warp: u16) {
        self.fences += 1;
        self.fenced[warp as usize] = self.fences;
    }

    /// The place of an access, which must be in bounds, aligned and not being filled.
    fn place(&self, address: u64, size: usize) -> Ran<std::ops::Range<usize>> {
        aligned(address, size)?;
        let end = address.wrapping_add(size as u64);
        if address > end || end > self.bytes.len() as u64 {
            let detail = format!("{size} bytes at shared {address:#x} of {}", self.bytes.len());
            return Err(Blame::new(FaultKind::OutOfBounds, detail));
        }
        let range = address as usize..end as usize;
        if self.copies > 0 && self.pending[range.clone()].iter().any(|&n| n > 0) {
            let detail = format!("a cp.async to shared {address:#x} is still under way");
            return Err(Blame::new(FaultKind::MissingAsyncWait, detail));
        }
        Ok(range)
    }

    /// Notes a read by a warp.
    pub fn check_read(&mut self, warp: u16, address: u64, size: usize) -> Ran<std::ops::Range<usize>> {
        let range = self.place(address, size)?;
        for (i, cell) in self.cells[range.clone()].iter_mut().enumerate() {
            if cell.written == 0 {
                let detail = format!("shared {:#x}", address + i as u64);
                return Err(Blame::new(FaultKind::UninitializedShared, detail));
            }
            if cell.written == self.epoch && cell.writer & !ATOMIC != warp {
                return Err(race(address + i as u64, warp, "reads", cell.writer, "wrote"));
            }
            cell.note_reader(warp, self.epoch);
        }
        Ok(range)
    }

    /// Notes a write by a warp.
    pub fn check_write(&mut self, warp: u16, address: u64, size: usize) -> Ran<std::ops::Range<usize>> {
        let range = self.place(address, size)?;
        self.note_write(warp, range.clone())?;
        Ok(range)
    }

    fn note_write(&mut self, warp: u16, range: std::ops::Range<usize>) -> Ran {
        let start = range.start as u64;
        for (i, cell) in self.cells[range].iter_mut().enumerate() {
            if cell.written == self.epoch && cell.writer & !ATOMIC != warp {
                return Err(race(start + i as u64, warp, "writes", cell.writer, "wrote"));
            }
            if cell.read == self.epoch && cell.reader != warp {
                return Err(race(start + i as u64, warp, "writes", cell.reader, "read"));
            }
            (cell.written, cell.writer, cell.fences) = (self.epoch, warp, self.fences);
        }
        Ok(())
    }

    pub fn load(&mut self, warp: u16, address: u64, out: &mut [u8]) -> Ran {
        let range = self.check_read(warp, address, out.len())?;
        out.copy_from_slice(&self.bytes[range]);
        Ok(())
    }

    /// The same by the asynchronous proxy, which sees only what its writer has fenced.
    pub fn load_async(&mut self, warp: u16, address: u64, out: &mut [u8]) -> Ran {
        let range = self.check_read(warp, address, out.len())?;
        let fenced = &self.fenced;
        // Of several warps' atomics none is known to be fenced.
        let last = |writer: u16| fenced.get((writer & !ATOMIC) as usize).copied().unwrap_or(0);
        if let Some(i) = self.cells[range.clone()].iter().position(|cell| cell.fences >= last(cell.writer)) {
            let at = address + i as u64;
            let detail = format!("shared {at:#x} was written with no fence.proxy.async by its writer since");
            return Err(Blame::new(FaultKind::MissingFence, detail));
        }
        out.copy_from_slice(&self.bytes[range]);
        Ok(())
    }

    pub fn store(&mut self, warp: u16, address: u64, data: &[u8]) -> Ran {
        let range = self.check_write(warp, address, data.len())?;
        self.bytes[range].copy_from_slice(data);
        Ok(())
    }

    /// Reads and replaces, as one step that no other atomic can come between.
    pub fn atomic(&mut self, warp: u16, address: u64, size: usize, f: impl FnOnce(u64) -> u64) -> Ran<u64> {
        let range = self.place(address, size)?;
        for (i, cell) in self.cells[range.clone()].iter_mut().enumerate() {
            let at = address + i as u64;
            if cell.written == 0 {
                return Err(Blame::new(FaultKind::UninitializedShared, format!("shared {at:#x}")));
            }
            let current = cell.written == self.epoch;
            let plain = current && cell.writer & ATOMIC == 0;
            if plain && cell.writer != warp {
                return Err(race(at, warp, "updates", cell.writer, "wrote"));
            }
            if cell.read == self.epoch && cell.reader != warp {
                return Err(race(at, warp, "updates", cell.reader, "read"));
            }
            let other = current && !plain && cell.writer & !ATOMIC != warp;
            cell.writer = if other { ATOMICS } else { warp | ATOMIC };
            (cell.written, cell.fences) = (self.epoch, self.fences);
        }
        let mut old = [0; 8];
        old[..size].copy_from_slice(&self.bytes[range.clone()]);
        let old = u64::from_le_bytes(old);
        self.bytes[range].copy_from_slice(&f(old).to_le_bytes()[..size]);
        Ok(old)
    }

    /// A synchronisation object (mbarrier) is neither raced for nor shadowed.
    pub fn object(&mut self, address: u64) -> Ran<&mut [u8]> {
        let range = self.place(address, 8)?;
        for cell in &mut self.cells[range.clone()] {
            cell.written = cell.written.max(1);
        }
        Ok(&mut self.bytes[range])
    }

    /// A copy to here starts.
    pub fn begin_copy(&mut self, warp: u16, address: u64, size: usize) -> Ran {
        let range = self.check_write(warp, address, size)?;
        self.pending[range].iter_mut().for_each(|n| *n += 1);
        self.copies += 1;
        Ok(())
    }

    /// A copy that was begun lands.
    pub fn end_copy(&mut self, warp: u16, address: u64, data: &[u8]) -> Ran {
        let range = address as usize..address as usize + data.len();
        self.pending[range.clone()].iter_mut().for_each(|n| *n -= 1);
        self.copies -= 1;
        self.note_write(warp, range.clone())?;
        self.bytes[range].copy_from_slice(data);
        Ok(())
    }
}

impl Cell {
    fn note_reader(&mut self, warp: u16, epoch: u32) {
        let other = self.read == epoch && self.reader != warp;
        (self.reader, self.read) = (if other { MANY } else { warp }, epoch);
    }
}

fn race(address: u64, warp: u16, does: &str, other: u16, did: &str) -> Blame {
    let who = match other {
        MANY | ATOMICS => "several warps".to_string(),
        w => format!("warp {}", w & !ATOMIC),
    };
    let detail = format!("warp {warp} {does} shared {address:#x}, which {who} {did} with no barrier between");
    Blame::new(FaultKind::Race, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind<T: std::fmt::Debug>(r: Ran<T>) -> FaultKind {
        r.unwrap_err().kind
    }

    #[test]
    fn a_barrier_orders_and_its_absence_races() {
        let mut s = Shared::new(16);
        s.store(0, 0, &[1; 4]).unwrap();
        assert_eq!(kind(s.load(1, 2, &mut [0; 2])), FaultKind::Race);
        s.load(0, 0, &mut [0; 4]).unwrap();
        assert_eq!(kind(s.store(1, 0, &[0])), FaultKind::Race);
        s.next_epoch();
        s.load(1, 0, &mut [0; 4]).unwrap();
        s.load(2, 0, &mut [0; 4]).unwrap();
        assert_eq!(kind(s.store(1, 0, &[0; 4])), FaultKind::Race);
        s.store(1, 4, &[0; 4]).unwrap();
    }

    #[test]
    fn atomics_race_with_plain_accesses_only() {
        let mut s = Shared::new(8);
        s.store(0, 0, &[0; 8]).unwrap();
        s.next_epoch();
        assert_eq!(s.atomic(0, 0, 4, |x| x + 1).unwrap(), 0);
        s.load(0, 0, &mut [0; 4]).unwrap();
        s.next_epoch();
        assert_eq!(s.atomic(1, 0, 4, |x| x + 1).unwrap(), 1);
        assert_eq!(s.atomic(0, 0, 4, |x| x + 1).unwrap(), 2);
        assert_eq!(kind(s.load(0, 0, &mut [0; 4])), FaultKind::Race);
        assert_eq!(kind(s.atomic(0, 12, 4, |x| x)), FaultKind::OutOfBounds);
    }

    #[test]
    fn bytes_under_way_are_out_of_reach() {
        let mut s = Shared::new(16);
        s.begin_copy(0, 0, 4).unwrap();
        assert_eq!(kind(s.load(0, 0, &mut [0; 2])), FaultKind::MissingAsyncWait);
        s.end_copy(0, 0, &[7; 4]).unwrap();
        let mut out = [0; 4];
        s.load(0, 0, &mut out).unwrap();
        assert_eq!(out, [7; 4]);
        assert_eq!(kind(s.load(1, 0, &mut out)), FaultKind::Race);
        assert_eq!(kind(s.load(1, 8, &mut out)), FaultKind::UninitializedShared);
        assert_eq!(kind(s.load(1, 2, &mut out)), FaultKind::Misaligned);
    }
}
