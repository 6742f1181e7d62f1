//! A workspace planned before any memory is taken: pieces of one allocation, each aligned for the widest loads.
#![forbid(unsafe_code)]

/// Alignment of every piece in bytes: that of allocations, a multiple of every load and of a swizzled tile's row group.
pub(super) const ALIGN: usize = 256;

/// A piece of the workspace, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// From the workspace's start.
    pub offset: usize,
    /// How long.
    pub bytes: usize,
}

impl Span {
    /// The address in a workspace that starts at `base`.
    pub fn at(self, base: u64) -> u64 {
        base + self.offset as u64
    }
}

/// Takes pieces one behind the other; [`Layout::bytes`] is then what to allocate.
#[derive(Clone, Copy, Debug, Default)]
pub struct Layout {
    bytes: usize,
}

impl Layout {
    /// Room for `count` elements of `T`.
    pub fn take<T>(&mut self, count: usize) -> Span {
        let span = Span { offset: self.bytes, bytes: count * size_of::<T>() };
        self.bytes = (span.offset + span.bytes).next_multiple_of(ALIGN);
        span
    }

    /// The size of the whole.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_aligned_and_do_not_overlap() {
        let mut layout = Layout::default();
        let spans = [layout.take::<f32>(3), layout.take::<u16>(129), layout.take::<f32>(0), layout.take::<u8>(1)];
        let offsets = spans.map(|span| span.offset);
        assert_eq!(offsets, [0, 256, 768, 768]);
        assert_eq!((spans[1].bytes, layout.bytes()), (258, 1024));
    }
}
