//! Bins and the layout of rows in them: against the quadratic packer, and any numbers without a panic.

#![no_main]

#[path = "../../tests/oracles/binpack.rs"]
mod bins;
#[path = "../../tests/oracles/pack.rs"]
mod rows;

use libfuzzer_sys::arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use rollkit::binpack::{Algorithm, Options, Oversize, plan_bins};
use rollkit::layout::Slots;
use rollkit::pack::{pack_rows, placed};

#[derive(Arbitrary, Debug)]
struct Case {
    lengths: Vec<u8>,
    hostile: Option<(u8, i64)>,
    scale: u16,
    capacity: i64,
    align: u8,
    segments: Option<u8>,
    algorithm: u8,
    oversize: u8,
    multiple: u8,
}

impl Case {
    /// As it comes where it is hostile, and else within what the oracle can do.
    fn options(&self) -> Options {
        let tame = self.hostile.is_none();
        Options {
            capacity: if tame { self.capacity.rem_euclid(300) + 1 } else { self.capacity },
            align: i64::from(self.align) + i64::from(tame),
            max_segments: self.segments.map(|most| usize::from(most) + usize::from(tame)),
            algorithm: [
                Algorithm::FirstFitDecreasing,
                Algorithm::BestFitDecreasing,
                Algorithm::FirstFit,
                Algorithm::NextFit,
            ][usize::from(self.algorithm % 4)],
            oversize: [Oversize::Truncate, Oversize::Alone, Oversize::Drop, Oversize::Raise]
                [usize::from(self.oversize % (4 - u8::from(tame)))],
        }
    }

    fn lengths(&self) -> Vec<i64> {
        let scale = i64::from(self.scale % 2000) + 1;
        let mut lengths: Vec<i64> =
            self.lengths.iter().map(|&length| i64::from(length) * scale / 64).collect();
        if let Some((row, length)) = self.hostile
            && !lengths.is_empty()
        {
            let row = usize::from(row) % lengths.len();
            lengths[row] = length;
        }
        lengths
    }
}

fuzz_target!(|case: Case| {
    let (lengths, options) = (case.lengths(), case.options());
    let (mut starts, mut order) = (vec![7; lengths.len()], vec![7; lengths.len()]);
    let packed = pack_rows(&lengths, &options, case.multiple.into(), None, &mut starts, &mut order);
    let mut planned = vec![7; lengths.len()];
    let plan = plan_bins(&lengths, &options, &mut planned);
    if plan.is_ok() && case.hostile.is_none() {
        assert_eq!(planned, bins::reference(&lengths, &options));
    }
    let Ok(found) = packed else { return };
    assert!(plan.is_ok());
    let mut kept = vec![7i64; lengths.len()];
    placed(&lengths, &options, &mut kept);
    let kept: Vec<i64> = kept.iter().zip(&starts).map(|(&n, &start)| if start < 0 { 0 } else { n }).collect();
    let size = found.count * found.width as usize;
    Slots { starts: &starts, lengths: &kept, order: Some(&order), size }.check().unwrap();
    if case.hostile.is_none() {
        assert_eq!((starts, order), rows::reference(&kept, &planned, found.width, options.align));
    }
});
