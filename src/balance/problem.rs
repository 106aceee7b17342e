//! Why rows cannot be dealt out.

use std::fmt;

use crate::Error;

/// What is refused of rows, costs, groups, and of the parts they are to go to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    /// A row costs less than nothing.
    NegativeCost {
        /// The row.
        row: usize,
        /// Its cost.
        got: i64,
    },
    /// The costs add up to more than an `i64`.
    CostOverflow {
        /// The row at which the sum overflows.
        row: usize,
    },
    /// A group's number is none.
    UnknownGroup {
        /// The row.
        row: usize,
        /// Its group.
        got: i64,
        /// The rows there are.
        rows: usize,
    },
    /// A row is where there is no rank.
    UnknownRank {
        /// The row.
        row: usize,
        /// The rank.
        got: i64,
        /// The ranks there are.
        ranks: usize,
    },
    /// A row, or the rows of a group, are longer than a part.
    LongerThanPart {
        /// The row, or the group's first.
        row: usize,
        /// Whether it is a group.
        group: bool,
        /// The elements.
        length: i64,
        /// What a part holds.
        capacity: i64,
    },
    /// A group has more rows than a part.
    GroupTooMany {
        /// Its first row.
        row: usize,
        /// Its rows.
        rows: i64,
        /// The rows a part holds.
        most: i64,
    },
    /// Rows need more parts.
    TooFewParts {
        /// The parts there are.
        parts: usize,
        /// The parts that first fit decreasing needs.
        needed: usize,
        /// What a part holds.
        capacity: i64,
    },
    /// Groups were not dealt out evenly.
    UnequalCounts {
        /// The parts.
        parts: i64,
        /// The fewest rows of a part.
        least: i64,
        /// The most rows of a part.
        most: i64,
    },
    /// Parts of equal counts did not stay within their capacity.
    EqualCapacity {
        /// What a part holds.
        capacity: i64,
        /// The elements of the fullest part.
        fullest: i64,
    },
}

impl Problem {
    /// The row it is of.
    pub(crate) fn row(&self) -> Option<usize> {
        match self {
            Self::NegativeCost { row, .. }
            | Self::CostOverflow { row }
            | Self::UnknownGroup { row, .. }
            | Self::UnknownRank { row, .. }
            | Self::LongerThanPart { row, .. }
            | Self::GroupTooMany { row, .. } => Some(*row),
            Self::TooFewParts { .. } | Self::UnequalCounts { .. } | Self::EqualCapacity { .. } => None,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NegativeCost { row, got } => write!(f, "row {row} costs {got}; costs are ≥ 0"),
            Self::CostOverflow { row } => {
                write!(f, "the costs up to row {row} add up to more than 2**63 - 1; give smaller costs")
            }
            Self::UnknownGroup { row, got, rows } => {
                write!(f, "row {row} is of group {got}, expected one of 0 to {rows} - 1")
            }
            Self::UnknownRank { row, got, ranks } => {
                write!(f, "row {row} is at home on rank {got}, but there are {ranks} ranks")
            }
            Self::LongerThanPart { row, group, length, capacity } => {
                let of = if *group { "the group of " } else { "" };
                let fix = if *group { "split the group" } else { "cut the row" };
                write!(
                    f,
                    "{of}row {row} has {length} elements, more than the capacity of {capacity}; raise capacity, or {fix}"
                )
            }
            Self::GroupTooMany { row, rows, most } => {
                write!(
                    f,
                    "the group of row {row} has {rows} rows, more than max_segments={most}; raise max_segments, or split the group"
                )
            }
            Self::TooFewParts { parts, needed, capacity } => {
                write!(
                    f,
                    "parts is {parts}, first fit decreasing needs {needed} of {capacity} elements; give more parts, or a larger capacity"
                )
            }
            Self::UnequalCounts { parts, least, most } => {
                write!(
                    f,
                    "whole groups go to {parts} parts with {least} to {most} rows; leave equal_counts out, or give a number of parts that divides the groups"
                )
            }
            Self::EqualCapacity { capacity, fullest } => {
                write!(
                    f,
                    "no parts of equal counts within the capacity of {capacity} were found, the fullest has {fullest}; leave equal_counts out, or give more parts or a larger capacity"
                )
            }
        }
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self::Balance(problem)
    }
}
