//! JSONL to columns.
