//! Memory between two pages that no one may touch: a read or write outside ends the test with a fault.

use std::ptr;

/// An array that starts right behind a forbidden page, or ends right before one.
pub struct Guarded<T> {
    map: *mut u8,
    map_len: usize,
    data: *mut T,
    len: usize,
}

/// At which end of the memory the forbidden page lies without a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    Before,
    Behind,
}

impl<T: Copy> Guarded<T> {
    pub fn new(values: &[T], guard: Guard) -> Self {
        // SAFETY: asks for a number.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
        let bytes = size_of_val(values);
        let inner = bytes.div_ceil(page).max(1) * page;
        let map_len = inner + 2 * page;
        // SAFETY: a new private mapping, readable nowhere; then its inner pages are opened.
        let map = unsafe {
            let map = libc::mmap(ptr::null_mut(), map_len, libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANON, -1, 0);
            assert_ne!(map, libc::MAP_FAILED);
            let map = map.cast::<u8>();
            assert_eq!(libc::mprotect(map.add(page).cast(), inner, libc::PROT_READ | libc::PROT_WRITE), 0);
            map
        };
        let start = if guard == Guard::Before { page } else { page + inner - bytes };
        // SAFETY: `bytes` from `start` lie in the open pages; a page's end less whole elements is aligned for them.
        let data = unsafe {
            let data = map.add(start).cast::<T>();
            ptr::copy_nonoverlapping(values.as_ptr(), data, values.len());
            data
        };
        Self { map, map_len, data, len: values.len() }
    }
}

impl<T> std::ops::Deref for Guarded<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `len` elements were written in `new`.
        unsafe { std::slice::from_raw_parts(self.data, self.len) }
    }
}

impl<T> std::ops::DerefMut for Guarded<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`; borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.data, self.len) }
    }
}

impl<T> Drop for Guarded<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping of `new`, which nothing borrows any more.
        unsafe { libc::munmap(self.map.cast(), self.map_len) };
    }
}
