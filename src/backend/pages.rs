//! Huge pages for large memory.
//!
//! A row of an embedding table lies on a page of its own, and so does every row of a wide input: each costs a walk through the
//! page tables, which took a seventh of a token-bag step over 10^6 rows (`benches/README.md`, "Huge pages"). Where Linux gives
//! huge pages only to those who ask (`madvise` in /sys/kernel/mm/transparent_hugepage/enabled), this asks.

/// Size and alignment of a huge page on x86-64 and on aarch64 with pages of 4 KiB.
const HUGE_PAGE: usize = 2 << 20;

/// Asks the system to back `memory` with huge pages, as far as it covers whole ones. For memory that was not written yet (the
/// spare capacity of a vector, fresh zeros): pages that are there already are replaced late or never. For memory that will be
/// used as a whole: a huge page is there as soon as one byte of it is written. Changes no value, and nothing at all where the
/// system has no such pages.
pub fn prefer_huge_pages<T>(memory: &[T]) {
    let start = (memory.as_ptr() as usize).next_multiple_of(HUGE_PAGE);
    let end = (memory.as_ptr() as usize + size_of_val(memory)) / HUGE_PAGE * HUGE_PAGE;
    #[cfg(target_os = "linux")]
    if start < end {
        // SAFETY: whole pages inside `memory`; the advice leaves their contents as they are. A refusal changes nothing.
        unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_HUGEPAGE) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (start, end);
}

/// `len` values on huge pages.
pub(crate) fn collect_on_huge_pages<T>(len: usize, values: impl Iterator<Item = T>) -> Vec<T> {
    let mut memory = Vec::with_capacity(len);
    prefer_huge_pages(memory.spare_capacity_mut());
    memory.extend(values);
    memory
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// The flags of the mapping that holds an address, as the kernel lists them.
    fn flags_at(address: usize) -> String {
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut inside = false;
        for line in maps.lines() {
            let range = line.split(' ').next().unwrap().split_once('-');
            let bounds =
                range.and_then(|(a, b)| Some((usize::from_str_radix(a, 16).ok()?, usize::from_str_radix(b, 16).ok()?)));
            match bounds {
                Some((from, to)) => inside = (from..to).contains(&address),
                None if inside && line.starts_with("VmFlags:") => return line.to_string(),
                None => {}
            }
        }
        panic!("no mapping holds {address:x}")
    }

    #[test]
    fn large_memory_is_marked_and_values_stay() {
        let (large, small) = (vec![7u8; 3 * HUGE_PAGE], vec![7u8; HUGE_PAGE / 2]);
        prefer_huge_pages(&large);
        prefer_huge_pages(&small);
        prefer_huge_pages::<f32>(&[]);
        assert!(large.iter().chain(&small).all(|&x| x == 7));
        if !std::path::Path::new("/sys/kernel/mm/transparent_hugepage").exists() {
            return println!("skipped: this kernel has no huge pages to ask for");
        }
        let middle = (large.as_ptr() as usize).next_multiple_of(HUGE_PAGE);
        assert!(flags_at(middle).contains(" hg"), "{}", flags_at(middle));
    }
}
