//! Writing past the caches. An ordinary store reads its cache line first and later pushes another out: of a result larger than the
//! caches that is half of the traffic, and nothing of it is there when it is read. x86-64 has stores that do neither.
#![cfg_attr(not(target_arch = "x86_64"), forbid(unsafe_code))]

use bytemuck::{Pod, cast_slice, cast_slice_mut};

/// Copies `src` to `dst`, of the same length, past the caches where the CPU can. Other threads may see the copy after
/// [`end_streams`], called by this one.
pub(crate) fn stream<T: Pod>(src: &[T], dst: &mut [T]) {
    assert_eq!(src.len(), dst.len());
    let (src, dst): (&[u8], &mut [u8]) = (cast_slice(src), cast_slice_mut(dst));
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_stream_si128};
        const VECTOR: usize = size_of::<__m128i>();

        let head = dst.as_ptr().align_offset(VECTOR).min(dst.len());
        let vectors = (dst.len() - head) / VECTOR;
        let tail = head + vectors * VECTOR;
        dst[..head].copy_from_slice(&src[..head]);
        for i in (head..tail).step_by(VECTOR) {
            // SAFETY: 16 bytes from i on lie in both slices; those of `dst` begin at a multiple of 16. Every x86-64 has SSE2.
            unsafe {
                let vector = _mm_loadu_si128(src.as_ptr().add(i).cast());
                _mm_stream_si128(dst.as_mut_ptr().add(i).cast(), vector);
            }
        }
        dst[tail..].copy_from_slice(&src[tail..]);
    }
    #[cfg(not(target_arch = "x86_64"))]
    dst.copy_from_slice(src);
}

/// Orders this thread's copies before whatever it writes next, such as the news that it has ended.
pub(crate) fn end_streams() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 has SSE.
    unsafe {
        std::arch::x86_64::_mm_sfence();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_at_every_alignment_is_copied_and_nothing_else_is_written() {
        let src: Vec<u8> = (0..=255).collect();
        for start in 0..20 {
            for len in 0..100 {
                let mut dst = [0u8; 140];
                stream(&src[1..][..len], &mut dst[start..][..len]);
                end_streams();
                assert_eq!(dst[start..][..len], src[1..][..len], "{len} bytes at {start}");
                assert!(dst[..start].iter().chain(&dst[start + len..]).all(|&b| b == 0), "{len} bytes at {start}");
            }
        }
    }
}
