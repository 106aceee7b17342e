//! A permutation that is written out: all images, sorted, are all numbers.

use rollkit::order::Permutation;

/// Whether images are those of a permutation, and origins lead back.
pub fn is_bijective(count: u64, order: &Permutation) -> bool {
    let images: Vec<u64> = (0..count).filter_map(|number| order.image(number)).collect();
    let mut seen = vec![false; count as usize];
    images.len() as u64 == count
        && images.iter().enumerate().all(|(number, &image)| {
            let fresh = seen.get_mut(image as usize).is_some_and(|seen| !std::mem::replace(seen, true));
            fresh && order.origin(image) == Some(number as u64)
        })
}
