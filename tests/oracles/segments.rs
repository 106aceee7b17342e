//! Runs of ids, one token at a time.

/// (id, flat start, length) of every run.
pub fn reference(ids: &[u8], rows: usize) -> Vec<(i64, i64, i64)> {
    let width = ids.len() / rows;
    let mut found: Vec<(i64, i64, i64)> = Vec::new();
    for (at, &id) in ids.iter().enumerate() {
        let goes_on = at % width != 0 && ids[at - 1] == id;
        match found.last_mut() {
            Some(run) if goes_on && id != 0 => run.2 += 1,
            _ if id != 0 => found.push((id.into(), at as i64, 1)),
            _ => {}
        }
    }
    found
}
