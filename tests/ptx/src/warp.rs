//! A warp: registers of 32 lanes, and where its lanes are.

use crate::copy::Copies;
use crate::inst::Slot;
use crate::wgmma::Queue;

/// One value a lane.
pub(crate) type Lanes = [u64; 32];

/// Why lanes can't go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hold {
    No,
    /// At an operation whose other members are elsewhere in the warp.
    Members,
    /// At a block barrier.
    Barrier {
        id: u32,
        threads: u32,
    },
    /// At an mbarrier whose phase isn't over.
    Poll,
}

/// Lanes at one instruction.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Group {
    pub pc: u32,
    pub mask: u32,
    pub hold: Hold,
}

#[derive(Debug)]
pub(crate) struct Warp {
    pub id: u16,
    /// Lanes that exist: all, except in the last warp.
    pub members: u32,
    /// Lanes that haven't left the kernel.
    pub live: u32,
    pub groups: Vec<Group>,
    pub registers: Vec<Lanes>,
    pub tid: [Lanes; 3],
    /// Local memory, lane after lane.
    pub local: Vec<u8>,
    pub copies: Copies,
    pub queue: Queue,
    /// Instructions executed.
    pub clock: u64,
    pub lane_instructions: u64,
}

impl Warp {
    /// Warp `id` of a block.
    pub fn new(id: u32, block: [u32; 3], registers: u32, local_bytes: u32) -> Self {
        let threads = block.iter().product::<u32>();
        let place = |f: fn(u32, [u32; 3]) -> u32| std::array::from_fn(|lane| f(id * 32 + lane as u32, block).into());
        let tid = [place(|t, b| t % b[0]), place(|t, b| t / b[0] % b[1]), place(|t, b| t / b[0] / b[1])];
        let lanes = (threads - id * 32).min(32);
        let members = crate::types::ones(lanes) as u32;
        Self {
            id: id as u16,
            members,
            live: members,
            groups: vec![Group { pc: 0, mask: members, hold: Hold::No }],
            registers: vec![[0; 32]; registers as usize],
            tid,
            local: vec![0; local_bytes as usize * 32],
            copies: Copies::default(),
            queue: Queue::default(),
            clock: 0,
            lane_instructions: 0,
        }
    }

    /// Writes a register in the lanes of a mask.
    pub fn write(&mut self, slot: Slot, mask: u32, values: &Lanes) {
        let register = &mut self.registers[slot as usize];
        if mask == u32::MAX {
            *register = *values;
            return;
        }
        for lane in lanes(mask) {
            register[lane] = values[lane];
        }
    }

    /// The lanes of a mask in which a predicate holds.
    pub fn holds(&self, slot: Slot, negated: bool) -> u32 {
        let bits = ballot(&self.registers[slot as usize]);
        if negated { !bits } else { bits }
    }

    /// The group to run next: of those that can, the lowest.
    pub fn next(&self) -> Option<usize> {
        let free = self.groups.iter().enumerate().filter(|(_, g)| g.hold == Hold::No);
        free.min_by_key(|(_, g)| g.pc).map(|(i, _)| i)
    }

    /// Lets groups that wait for members look again.
    pub fn retry(&mut self) {
        self.groups.iter_mut().filter(|g| g.hold == Hold::Members).for_each(|g| g.hold = Hold::No);
    }

    /// Joins groups that stand at the same instruction, and drops empty ones.
    pub fn merge(&mut self) {
        self.groups.retain(|g| g.mask != 0);
        let mut i = 0;
        while i < self.groups.len() {
            let (pc, mut mask) = (self.groups[i].pc, 0);
            for j in (i + 1..self.groups.len()).rev() {
                if self.groups[j].pc == pc {
                    mask |= self.groups.swap_remove(j).mask;
                }
            }
            if mask != 0 {
                self.groups[i].mask |= mask;
                self.groups[i].hold = Hold::No;
            }
            i += 1;
        }
    }
}

/// The lanes of a mask, from the lowest.
pub(crate) fn lanes(mut mask: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        (mask != 0).then(|| {
            let lane = mask.trailing_zeros();
            mask &= mask - 1;
            lane as usize
        })
    })
}

/// A bit for each lane whose value isn't zero.
pub(crate) fn ballot(values: &Lanes) -> u32 {
    values.iter().enumerate().fold(0, |bits, (lane, &x)| bits | u32::from(x != 0) << lane)
}
