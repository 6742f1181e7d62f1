//! Lines of a small text file, plain or gzip, with their numbers; invalid UTF-8 is an error that names its line.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use crate::error::{Error, Result};

/// The first bytes of a gzip file (RFC 1952).
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// The lines of a file, without line ends, from 1; empty lines are passed over.
pub(super) struct Lines {
    path: PathBuf,
    reader: Box<dyn BufRead>,
    number: u64,
}

impl Lines {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let fail = |e| Error::io("read", path, e);
        let mut file = BufReader::new(File::open(path).map_err(fail)?);
        let gzip = file.fill_buf().map_err(fail)?.starts_with(&GZIP);
        let reader: Box<dyn Read> = if gzip { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
        Ok(Self { path: path.to_path_buf(), reader: Box::new(BufReader::new(reader)), number: 0 })
    }

    fn read(&mut self) -> Result<Option<(u64, String)>> {
        loop {
            let mut bytes = Vec::new();
            self.number += 1;
            if self.reader.read_until(b'\n', &mut bytes).map_err(|e| Error::io("read", &self.path, e))? == 0 {
                return Ok(None);
            }
            while bytes.last().is_some_and(|b| matches!(b, b'\n' | b'\r')) {
                bytes.pop();
            }
            let text = String::from_utf8(bytes);
            let text = text.map_err(|_| Error::input(&self.path, self.number, "it is not UTF-8; wanted UTF-8 text"))?;
            if !text.is_empty() {
                return Ok(Some((self.number, text)));
            }
        }
    }
}

impl Iterator for Lines {
    type Item = Result<(u64, String)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}
