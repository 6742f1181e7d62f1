//! `cp.async` (PTX ISA 9.7.9.25.3): a copy happens when it is waited for, so that a missing wait shows.

use crate::error::Ran;
use crate::memory::{Memory, aligned};
use crate::shared::Shared;
use crate::warp::lanes;

/// One lane's copy under way.
#[derive(Debug, Clone, Copy)]
struct Copy {
    lane: usize,
    dst: u64,
    src: u64,
    size: usize,
    /// Bytes read; the others become zero.
    source_size: usize,
    /// How many groups its lane had committed before.
    group: u32,
}

/// A warp's copies.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    open: Vec<Copy>,
    /// Groups committed by each lane.
    committed: [u32; 32],
}

/// Where from and where to.
pub(crate) struct Request {
    pub lane: usize,
    pub dst: u64,
    pub src: u64,
    pub size: usize,
    pub source_size: usize,
}

impl Copies {
    pub fn begin(&mut self, warp: u16, r: &Request, memory: &Memory, shared: &mut Shared) -> Ran {
        aligned(r.src, r.size)?;
        let source_size = r.source_size.min(r.size);
        if source_size > 0 {
            memory.read(r.src, &mut [0; 16][..source_size])?;
        }
        shared.begin_copy(warp, r.dst, r.size)?;
        let group = self.committed[r.lane];
        self.open.push(Copy { lane: r.lane, dst: r.dst, src: r.src, size: r.size, source_size, group });
        Ok(())
    }

    pub fn commit(&mut self, mask: u32) {
        lanes(mask).for_each(|lane| self.committed[lane] += 1);
    }

    /// Finishes all but the last `pending` groups of the lanes, or everything.
    pub fn wait(&mut self, warp: u16, mask: u32, pending: Option<u32>, memory: &Memory, shared: &mut Shared) -> Ran {
        let committed = self.committed;
        let done = |c: &Copy| {
            let old = pending.is_none_or(|n| c.group.saturating_add(n) < committed[c.lane]);
            mask >> c.lane & 1 == 1 && old
        };
        for copy in self.open.iter().filter(|c| done(c)) {
            let mut data = [0; 16];
            // Read in the units the kernel would: whole words, so that unwritten memory shows.
            let n = copy.source_size;
            if n.is_power_of_two() {
                memory.load(copy.src, &mut data[..n]).map_err(|b| b.at(copy.lane))?;
            } else {
                memory.read(copy.src, &mut data[..n]).map_err(|b| b.at(copy.lane))?;
            }
            shared.end_copy(warp, copy.dst, &data[..copy.size]).map_err(|b| b.at(copy.lane))?;
        }
        self.open.retain(|c| !done(c));
        Ok(())
    }
}
