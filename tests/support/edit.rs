//! Changes of PTX text that plant a bug.

/// Lines that hold `word` are replaced by what `change` makes of them and their number among these.
pub fn lines(ptx: &str, word: &str, change: impl Fn(usize, &str) -> String) -> String {
    let mut count = 0;
    let mut one = |line: &str| {
        if !line.contains(word) {
            return line.to_string();
        }
        count += 1;
        change(count - 1, line)
    };
    ptx.lines().map(&mut one).collect::<Vec<_>>().join("\n")
}

/// Those of the lines that hold `word` become empty.
pub fn without(ptx: &str, word: &str, which: impl Fn(usize) -> bool) -> String {
    lines(ptx, word, |i, line| if which(i) { String::new() } else { line.into() })
}

/// The address in lines that hold `word` is `by` bytes further on.
pub fn shifted(ptx: &str, word: &str, by: i64) -> String {
    let shift = |line: &str| {
        let (before, rest) = line.split_once('[')?;
        let (address, after) = rest.split_once(']')?;
        let (base, offset) = address.split_once('+').unwrap_or((address, "0"));
        Some(format!("{before}[{base}+{}]{after}", offset.parse::<i64>().ok()? + by))
    };
    lines(ptx, word, |_, line| shift(line).unwrap_or_else(|| panic!("no address in `{line}`")))
}

/// Only seven lanes execute lines that hold `word`.
pub fn in_seven_lanes(ptx: &str, word: &str) -> String {
    lines(ptx, word, |_, line| {
        let lane = ".reg .pred seven; .reg .b32 lane; mov.u32 lane, %laneid; setp.lt.u32 seven, lane, 7;";
        format!("{{ {lane}\n@seven {}\n}}", line.trim())
    })
}
