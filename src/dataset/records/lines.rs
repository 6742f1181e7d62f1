//! Lines of a text file, plain or gzip: UTF-8, of bounded length, numbered.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use super::{MAX_LINE_BYTES, read_error};
use crate::{Error, Result};

const BUFFER_BYTES: usize = 1 << 16;
const GZIP: [u8; 2] = [0x1f, 0x8b];
const BYTE_ORDER_MARK: char = '\u{feff}';

/// Opens a file and unpacks it if it begins as gzip does.
pub(super) fn open(path: &Path) -> Result<Box<dyn BufRead + Send>> {
    let mut file = File::open(path).map_err(|e| Error::io("open", path, e))?;
    // A pipe cannot go back to its beginning, so the bytes looked at are put before the rest.
    let mut head = Vec::new();
    (&mut file).take(GZIP.len() as u64).read_to_end(&mut head).map_err(|e| Error::io("read", path, e))?;
    let packed = head == GZIP;
    let whole = BufReader::with_capacity(BUFFER_BYTES, Cursor::new(head).chain(file));
    if packed {
        Ok(Box::new(BufReader::with_capacity(BUFFER_BYTES, MultiGzDecoder::new(whole))))
    } else {
        Ok(Box::new(whole))
    }
}

/// Gives the lines of a file without their ends.
pub(super) struct Lines {
    pub(super) file: PathBuf,
    input: Box<dyn BufRead + Send>,
    buffer: Vec<u8>,
    /// The number of the last line given; 0 before the first.
    pub(super) line: u64,
}

impl Lines {
    pub(super) fn open(path: &Path) -> Result<Self> {
        Ok(Lines { file: path.to_path_buf(), input: open(path)?, buffer: Vec::new(), line: 0 })
    }

    /// The next line that is not blank.
    pub(super) fn next(&mut self) -> Result<Option<&str>> {
        loop {
            if !self.fill()? {
                return Ok(None);
            }
            if !self.buffer.is_empty() {
                break;
            }
        }
        let text = std::str::from_utf8(&self.buffer).map_err(|e| {
            Error::input(&self.file, self.line, format!("not UTF-8 from byte {} of the line on", e.valid_up_to() + 1))
        })?;
        Ok(Some(if self.line == 1 { text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text) } else { text }))
    }

    /// Reads a line into the buffer; false at the end of the file.
    fn fill(&mut self) -> Result<bool> {
        self.buffer.clear();
        self.line += 1;
        let limit = MAX_LINE_BYTES as u64 + 1;
        let read = (&mut self.input).take(limit).read_until(b'\n', &mut self.buffer);
        if read.map_err(|e| read_error(&self.file, self.line, e))? == 0 {
            return Ok(false);
        }
        if self.buffer.len() > MAX_LINE_BYTES {
            let detail = format!("the line is longer than {MAX_LINE_BYTES} bytes");
            return Err(Error::input(&self.file, self.line, detail));
        }
        if self.buffer.ends_with(b"\n") {
            self.buffer.pop();
        }
        if self.buffer.ends_with(b"\r") {
            self.buffer.pop();
        }
        Ok(true)
    }
}

/// Stops a reader that takes in more for one record than a record may have.
pub(super) struct Guard {
    input: Box<dyn BufRead + Send>,
    left: usize,
}

impl Guard {
    pub(super) fn new(input: Box<dyn BufRead + Send>) -> Self {
        let mut guard = Guard { input, left: 0 };
        guard.next_record();
        guard
    }

    /// The next record begins; the reader above may have read a buffer ahead.
    pub(super) fn next_record(&mut self) {
        self.left = MAX_LINE_BYTES + BUFFER_BYTES;
    }
}

impl Read for Guard {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        let len = into.len().min(self.left);
        let read = self.input.read(&mut into[..len])?;
        self.left -= read;
        Ok(read)
    }
}
