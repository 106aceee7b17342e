//! Steps of a trajectory that continue one another.
//!
//! An agent's turn is recorded with its whole context as the prompt. Where a turn's prompt begins with
//! the prompt and response of the turn before, the two are one sequence, and the prompt's rest is what
//! the environment said in between:
//!
//! ```text
//! turn 0   prompt │ response
//! turn 1   prompt   response   observation │ response
//! ```

use crate::out::Out;
use crate::{Result, layout};

/// Marks each step that continues the step before it: 1, else 0.
///
/// `prompts` and `responses` are the rows' bytes, of one dtype. `first` is non-zero for the first step of
/// a trajectory, which continues none. Every prompt is compared with the prompt and the response before
/// it, so the time is that of reading the prompts, and nothing is built.
///
/// ```
/// let mut joined = [9u8; 3];
/// let (prompts, responses): (&[&[u8]], &[&[u8]]) = (&[b"a", b"abo", b"axbo"], &[b"b", b"c", b"d"]);
/// rollkit::steps::joined(prompts, responses, &[1, 0, 0], &mut joined)?;
/// assert_eq!(joined, [0, 1, 0], "the last prompt does not begin with a, b, o, c");
/// # Ok::<(), rollkit::Error>(())
/// ```
pub fn joined<O: Out<u8>>(prompts: &[&[u8]], responses: &[&[u8]], first: &[u8], out: &mut [O]) -> Result<()> {
    for (name, count) in [("responses", responses.len()), ("first", first.len()), ("out", out.len())] {
        layout::same_count(name, count, prompts.len())?;
    }
    for (step, slot) in out.iter_mut().enumerate() {
        let continues = step > 0
            && first[step] == 0
            && prompts[step]
                .strip_prefix(prompts[step - 1])
                .is_some_and(|rest| rest.starts_with(responses[step - 1]));
        slot.set(u8::from(continues));
    }
    Ok(())
}
