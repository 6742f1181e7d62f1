//! The first layer's rows, each updated on its own, cut for several threads.
#![forbid(unsafe_code)]

/// Some rows and all that belongs to them.
pub(super) struct Rows<'a, T, S> {
    /// Which, rising and different; `None`: all that are here.
    pub which: Option<&'a [u32]>,
    /// The row that weights, moments and steps begin with.
    pub start: usize,
    /// Elements of a row, at least one.
    pub width: usize,
    pub w: &'a mut [S],
    pub m: &'a mut [T],
    pub v: &'a mut [T],
    /// The step each row has been brought to; of a dense layer none.
    pub at: &'a mut [u64],
    /// A gradient for each of `which`, or none.
    pub g: Option<&'a [T]>,
    /// A row for each lane.
    pub wide: &'a mut [T],
}

/// One of them.
pub(super) struct Row<'a, T, S> {
    pub w: &'a mut [S],
    pub m: &'a mut [T],
    pub v: &'a mut [T],
    pub at: Option<&'a mut u64>,
    pub g: Option<&'a [T]>,
    pub wide: &'a mut [T],
}

impl<'a, T, S> Rows<'a, T, S> {
    /// How many.
    pub fn len(&self) -> usize {
        self.which.map_or(self.w.len() / self.width, <[u32]>::len)
    }

    /// Cuts off what the first `left` of `all` lanes do.
    pub fn split(self, left: usize, all: usize) -> (Self, Self) {
        let count = self.len() * left / all;
        // Where the right part's first row begins.
        let rows = match self.which {
            Some(which) => which.get(count).map_or(self.w.len() / self.width, |&row| row as usize - self.start),
            None => count,
        };
        let (which, right_which) = self.which.map(|which| which.split_at(count)).unzip();
        let (w, right_w) = self.w.split_at_mut(rows * self.width);
        let (m, right_m) = self.m.split_at_mut(rows * self.width);
        let (v, right_v) = self.v.split_at_mut(rows * self.width);
        let (at, right_at) = self.at.split_at_mut(if self.at.is_empty() { 0 } else { rows });
        let (g, right_g) = self.g.map(|g| g.split_at(count * self.width)).unzip();
        let (wide, right_wide) = self.wide.split_at_mut(left * self.width);
        let (start, width) = (self.start, self.width);
        let right = Rows {
            which: right_which,
            start: start + rows,
            width,
            w: right_w,
            m: right_m,
            v: right_v,
            at: right_at,
            g: right_g,
            wide: right_wide,
        };
        (Rows { which, start, width, w, m, v, at, g, wide }, right)
    }

    /// Calls `f` with one after the other, up to the first error.
    pub fn try_for_each<E>(self, mut f: impl FnMut(Row<T, S>) -> Result<(), E>) -> Result<(), E> {
        let width = self.width;
        for i in 0..self.len() {
            let row = self.which.map_or(i, |which| which[i] as usize - self.start);
            let range = row * width..(row + 1) * width;
            f(Row {
                w: &mut self.w[range.clone()],
                m: &mut self.m[range.clone()],
                v: &mut self.v[range],
                at: self.at.get_mut(row),
                g: self.g.map(|g| &g[i * width..(i + 1) * width]),
                wide: &mut self.wide[..width],
            })?;
        }
        Ok(())
    }
}
