//! Rows that arrive one by one, by a look at every one that waits, or at every open bin.

use rollkit::online::{Options, Policy};

/// A row: its number, its length, when it came.
type Row = (i64, i64, u64);

#[derive(Default)]
struct State {
    waiting: Vec<Row>,
    bins: Vec<Vec<Row>>,
    out: Vec<Vec<i64>>,
}

impl State {
    fn room(&self, bin: usize, options: &Options) -> i64 {
        let slots = (options.capacity / options.align).max(1);
        slots - self.bins[bin].iter().map(|row| need(row.1, options)).sum::<i64>()
    }

    fn fits(&self, bin: usize, length: i64, options: &Options) -> bool {
        let full = options.max_segments.is_some_and(|most| self.bins[bin].len() >= most);
        need(length, options) <= self.room(bin, options) && !full
    }

    fn take(&mut self, options: &Options) -> bool {
        if self.bins.is_empty() {
            return false;
        }
        let fitting = (0..self.waiting.len()).filter(|&i| self.fits(0, self.waiting[i].1, options));
        // Of equally long ones the last of the reversed is the first.
        let Some(longest) = fitting.rev().max_by_key(|&i| self.waiting[i].1) else { return false };
        let row = self.waiting.remove(longest);
        self.bins[0].push(row);
        true
    }

    fn emit(&mut self) {
        if !self.bins.is_empty() {
            let bin = self.bins.remove(0);
            self.out.push(bin.iter().map(|row| row.0).collect());
        }
    }

    fn complete(&mut self, options: &Options) {
        if self.bins.is_empty() {
            let row = self.waiting.remove(0);
            self.bins.push(vec![row]);
        }
        while self.take(options) {}
        self.emit();
    }

    fn add(&mut self, row: Row, options: &Options) {
        if options.policy == Policy::LookAhead {
            self.waiting.push(row);
            while self.waiting.len() >= options.buffer {
                if !self.take(options) {
                    self.emit();
                    let oldest = self.waiting.remove(0);
                    self.bins.push(vec![oldest]);
                }
            }
            return;
        }
        let fitting = (0..self.bins.len()).filter(|&bin| self.fits(bin, row.1, options));
        if let Some(fullest) = fitting.min_by_key(|&bin| self.room(bin, options)) {
            self.bins[fullest].push(row);
        } else {
            if self.bins.len() >= options.buffer {
                self.emit();
            }
            self.bins.push(vec![row]);
        }
    }
}

fn need(length: i64, options: &Options) -> i64 {
    let slots = (options.capacity / options.align).max(1);
    length.cast_unsigned().div_ceil(options.align.cast_unsigned()).min(slots.cast_unsigned()) as i64
}

/// The bins of all rows.
pub fn reference(rows: &[i64], lengths: &[i64], options: &Options) -> Vec<Vec<i64>> {
    let mut state = State::default();
    for ((&number, &length), came) in rows.iter().zip(lengths).zip(0..) {
        state.add((number, length, came), options);
        while let (Some(most), Some(row)) =
            (options.max_wait, state.bins.first().map(|bin| bin[0]).or(state.waiting.first().copied()))
        {
            if came - row.2 < most {
                break;
            }
            state.complete(options);
        }
    }
    while !(state.bins.is_empty() && state.waiting.is_empty()) {
        state.complete(options);
    }
    state.out
}
