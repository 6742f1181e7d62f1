//! Architectures, and which images a device runs.
#![forbid(unsafe_code)]

use std::fmt;

/// A compilation target such as `sm_90a`: compute capability times ten, and whether it has the suffix of instructions
/// that only this very architecture runs (`a`) or its family (`f`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Arch {
    number: u32,
    suffix: Option<char>,
}

impl Arch {
    /// From `sm_80`, `sm_90a`, `sm_100`; `None` for anything else.
    pub fn parse(name: &str) -> Option<Self> {
        let digits = name.strip_prefix("sm_")?;
        let suffix = digits.chars().last().filter(|c| matches!(c, 'a' | 'f'));
        let number = digits.trim_end_matches(['a', 'f']).parse().ok()?;
        Some(Self { number, suffix })
    }

    /// Whether it has the warpgroup instructions (`wgmma`), which are those of `sm_90a` alone.
    pub fn has_wgmma(self) -> bool {
        self.number == 90 && self.suffix == Some('a')
    }

    /// Whether a device of capability (major, minor) runs its CUBIN: the same major, no later minor; with `a` exactly it.
    fn cubin_runs_on(self, (major, minor): (u32, u32)) -> bool {
        let exact = self.suffix == Some('a');
        self.number / 10 == major && if exact { self.number % 10 == minor } else { self.number % 10 <= minor }
    }

    /// Whether a driver can translate its PTX for a device: any later one, without suffix.
    fn ptx_runs_on(self, (major, minor): (u32, u32)) -> bool {
        self.suffix.is_none() && self.number <= 10 * major + minor
    }

    /// The best of `built` for a device: an exact CUBIN, else one of its major version, else the newest PTX.
    pub fn choose(built: impl Iterator<Item = Arch> + Clone, capability: (u32, u32)) -> Option<Self> {
        let order = |arch: &Arch| (arch.number, arch.suffix.is_some());
        let cubin = built.clone().filter(|arch| arch.cubin_runs_on(capability)).max_by_key(order);
        cubin.or_else(|| built.filter(|arch| arch.ptx_runs_on(capability)).max_by_key(order))
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sm_{}", self.number)?;
        self.suffix.map_or(Ok(()), |c| write!(f, "{c}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_image_is_chosen() {
        let built = ["sm_80", "sm_90a", "sm_100"].map(|name| Arch::parse(name).unwrap());
        let choose = |capability| Arch::choose(built.into_iter(), capability).map(|arch| arch.to_string());
        for (capability, wanted) in [
            ((7, 5), None),
            ((8, 0), Some("sm_80")),
            ((8, 9), Some("sm_80")),
            ((9, 0), Some("sm_90a")),
            ((10, 0), Some("sm_100")),
            ((10, 3), Some("sm_100")),
            ((12, 0), Some("sm_100")),
        ] {
            assert_eq!(choose(capability).as_deref(), wanted, "{capability:?}");
        }
    }

    #[test]
    fn other_names_are_refused() {
        for name in ["", "sm_", "sm_a", "compute_80", "90a"] {
            assert_eq!(Arch::parse(name), None, "{name}");
        }
    }
}
