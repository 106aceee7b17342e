//! Base64, bit by bit, as the standard says it.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Bit by bit, as the standard says it.
pub fn encode(bytes: &[u8]) -> Vec<u8> {
    let mut bits = bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).peekable();
    let mut text = Vec::new();
    while bits.peek().is_some() {
        let six = (0..6).fold(0, |six, _| six << 1 | bits.next().unwrap_or(0));
        text.push(ALPHABET[usize::from(six)]);
    }
    text.resize(text.len().next_multiple_of(4), b'=');
    text
}
