//! The zoo's switches: known failover bugs that can be put back into the code, in simulation builds only.
//!
//! A defect is one expression at the place where the correct line stands:
//!
//! ```
//! use weir_defect::defect;
//! # let (high_watermark, end_of_epoch) = (3, 5);
//! let cut = if defect!(truncate_to_hw) { high_watermark } else { end_of_epoch };
//! assert_eq!(cut, 5, "switched off unless a simulation switches it on");
//! ```
//!
//! In a production build [`is_on`] is the constant `false`, so the wrong branch costs nothing and no flag can turn
//! it on. In a build with `--cfg madsim` the switches belong to the thread: one thread runs one seed.

mod table;

pub use table::Defect;

/// Whether the named defect is switched on: `defect!(no_fsync_vote)`.
#[macro_export]
macro_rules! defect {
    ($name:ident) => {
        $crate::is_on($crate::Defect::$name)
    };
}

#[cfg(madsim)]
std::thread_local! {
    static SWITCHES: std::cell::Cell<u128> = const { std::cell::Cell::new(0) };
}

/// Whether `defect` is switched on in this thread.
#[cfg(madsim)]
pub fn is_on(defect: Defect) -> bool {
    SWITCHES.with(|switches| switches.get() & (1 << defect as u32) != 0)
}

/// Always `false`: production code has no defects that can be switched on.
#[cfg(not(madsim))]
#[inline(always)]
pub const fn is_on(_defect: Defect) -> bool {
    false
}

/// Switches exactly these defects on in this thread and all others off. Returns whether this build has switches at all.
pub fn switch_on(defects: &[Defect]) -> bool {
    #[cfg(madsim)]
    SWITCHES.with(|switches| switches.set(defects.iter().fold(0, |set, defect| set | 1 << *defect as u32)));
    let _ = defects;
    cfg!(madsim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_defect_is_found_by_its_name_and_has_a_bit_of_its_own() {
        assert!(Defect::ALL.len() <= 128, "the switches are one u128");
        for (position, defect) in Defect::ALL.iter().enumerate() {
            assert_eq!(*defect as usize, position);
            assert_eq!(Defect::by_name(defect.name()), Some(*defect));
            assert_eq!(Defect::by_name(&defect.id()), Some(*defect));
        }
    }

    #[test]
    fn a_switch_works_in_a_simulation_build_only() {
        assert!(!defect!(retry_fsync));
        let has_switches = switch_on(&[Defect::retry_fsync]);
        assert_eq!(defect!(retry_fsync), has_switches);
        assert!(!defect!(no_fsync_vote), "the others stay off");
        switch_on(&[]);
        assert!(!defect!(retry_fsync));
    }
}
