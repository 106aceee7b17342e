"""Decoding on an allowed vocabulary: heads sliced to it, guidance, and draws that are the same everywhere."""

from rollkit.decode.active import ActiveBatch as ActiveBatch
from rollkit.decode.active import Plan as Plan
from rollkit.decode.allowed import AllowedSet as AllowedSet
from rollkit.decode.cache import compact as compact
from rollkit.decode.cache import crop_padding as crop_padding
from rollkit.decode.cache import select as select
from rollkit.decode.generate import Phase as Phase
from rollkit.decode.generate import Progress as Progress
from rollkit.decode.generate import generate as generate
from rollkit.decode.guidance import cfg as cfg
from rollkit.decode.head import PartialHead as PartialHead
from rollkit.decode.kept import Kept as Kept
from rollkit.decode.kept import replay_logprobs as replay_logprobs
from rollkit.decode.noise import uniforms as uniforms
from rollkit.decode.sample import Sampled as Sampled
from rollkit.decode.sample import Status as Status
from rollkit.decode.sample import sample as sample

__all__ = [
    "ActiveBatch",
    "AllowedSet",
    "Kept",
    "PartialHead",
    "Phase",
    "Plan",
    "Progress",
    "Sampled",
    "Status",
    "cfg",
    "compact",
    "crop_padding",
    "generate",
    "replay_logprobs",
    "sample",
    "select",
    "uniforms",
]
