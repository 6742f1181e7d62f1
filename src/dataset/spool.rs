//! A column of unknown length on its way into a dataset: appended to an unnamed file, then read back in order.
//!
//! safetensors wants each tensor in one piece, but rows arrive with a piece of every tensor. Unnamed files vanish
//! with the process, however it ends.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::marker::PhantomData;
use std::path::Path;

use bytemuck::Pod;

const BUFFER_BYTES: usize = 1 << 16;

/// A column being written.
pub(super) struct Spool<T> {
    file: BufWriter<File>,
    len: u64,
    element: PhantomData<T>,
}

impl<T: Pod> Spool<T> {
    /// The unnamed file lies in `folder`, so that the space it needs is where the dataset's space is.
    pub(super) fn new(folder: &Path) -> io::Result<Self> {
        let file = BufWriter::with_capacity(BUFFER_BYTES, tempfile::tempfile_in(folder)?);
        Ok(Spool { file, len: 0, element: PhantomData })
    }

    pub(super) fn push(&mut self, values: &[T]) -> io::Result<()> {
        self.file.write_all(bytemuck::cast_slice(values))?;
        self.len += values.len() as u64;
        Ok(())
    }

    /// The number of elements so far.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Ends writing and goes back to the first element.
    pub(super) fn into_reader(self) -> io::Result<SpoolReader<T>> {
        let mut file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.seek(SeekFrom::Start(0))?;
        let file = BufReader::with_capacity(BUFFER_BYTES, file);
        Ok(SpoolReader { file, len: self.len, left: self.len, element: PhantomData })
    }
}

/// A column being read back.
pub(super) struct SpoolReader<T> {
    file: BufReader<File>,
    len: u64,
    left: u64,
    element: PhantomData<T>,
}

impl<T: Pod> SpoolReader<T> {
    /// The next `len` elements, or as many as are left; they replace what `into` held.
    pub(super) fn read(&mut self, len: usize, into: &mut Vec<T>) -> io::Result<()> {
        let len = self.left.min(len as u64);
        into.clear();
        into.resize(len as usize, T::zeroed());
        self.file.read_exact(bytemuck::cast_slice_mut(into))?;
        self.left -= len;
        Ok(())
    }

    /// The next element, or none after the last.
    pub(super) fn next(&mut self) -> io::Result<Option<T>> {
        if self.left == 0 {
            return Ok(None);
        }
        let mut value = T::zeroed();
        self.file.read_exact(bytemuck::bytes_of_mut(&mut value))?;
        self.left -= 1;
        Ok(Some(value))
    }

    /// Copies the whole column and goes back to its first element.
    pub(super) fn copy_to(&mut self, out: &mut impl Write) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(0))?;
        io::copy(&mut self.file, out)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.left = self.len;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_in_order() {
        let mut spool = Spool::<u32>::new(Path::new(".")).unwrap();
        let values: Vec<u32> = (0..200_000).collect();
        spool.push(&values[..7]).unwrap();
        spool.push(&values[7..]).unwrap();
        assert_eq!(spool.len(), 200_000);
        let (mut reader, mut part) = (spool.into_reader().unwrap(), vec![9; 3]);
        assert_eq!(reader.next().unwrap(), Some(0));
        reader.read(150_000, &mut part).unwrap();
        assert_eq!(part, values[1..150_001]);
        reader.read(150_000, &mut part).unwrap();
        assert_eq!(part, values[150_001..]);
        assert_eq!(reader.next().unwrap(), None);
    }
}
