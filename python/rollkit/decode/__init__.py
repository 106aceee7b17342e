"""Decoding on an allowed vocabulary: heads sliced to it, guidance, and draws that are the same everywhere."""

from rollkit.decode.allowed import AllowedSet as AllowedSet
from rollkit.decode.guidance import cfg as cfg
from rollkit.decode.head import PartialHead as PartialHead
from rollkit.decode.kept import Kept as Kept
from rollkit.decode.kept import replay_logprobs as replay_logprobs
from rollkit.decode.noise import uniforms as uniforms
from rollkit.decode.sample import Sampled as Sampled
from rollkit.decode.sample import Status as Status
from rollkit.decode.sample import sample as sample

__all__ = [
    "AllowedSet",
    "Kept",
    "PartialHead",
    "Sampled",
    "Status",
    "cfg",
    "replay_logprobs",
    "sample",
    "uniforms",
]
