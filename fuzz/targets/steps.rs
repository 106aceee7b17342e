//! Which steps continue the one before: against building the context and comparing.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rollkit::steps::joined;

fuzz_target!(|case: Vec<(Vec<u8>, Vec<u8>, bool, u8)>| {
    // Most prompts go on from the step before, so that there is something to join.
    let mut prompts: Vec<Vec<u8>> = Vec::new();
    let mut responses: Vec<Vec<u8>> = Vec::new();
    for (own, response, _, way) in &case {
        let context = match (prompts.last(), responses.last()) {
            (Some(prompt), Some(response)) => [&prompt[..], response].concat(),
            _ => Vec::new(),
        };
        let kept = context.len().saturating_sub(usize::from(way % 4 == 3)).min(4096);
        prompts.push([if way % 4 == 2 { &[] } else { &context[..kept] }, own].concat());
        responses.push(response.clone());
    }
    let first: Vec<u8> = case.iter().map(|step| step.2.into()).collect();
    let (p, r): (Vec<&[u8]>, Vec<&[u8]>) =
        (prompts.iter().map(|row| &row[..]).collect(), responses.iter().map(|row| &row[..]).collect());
    let mut out = vec![9u8; case.len()];
    joined(&p, &r, &first, &mut out).unwrap();
    let continues = |step: usize| {
        step > 0 && first[step] == 0 && p[step].starts_with(&[p[step - 1], r[step - 1]].concat())
    };
    assert_eq!(out, (0..case.len()).map(|step| u8::from(continues(step))).collect::<Vec<_>>());
});
