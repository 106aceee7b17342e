"""Which tokens a loss counts: those that `loss_masks` say, or `labels`, or all of each response."""

from __future__ import annotations

import numpy as np

from rollkit._arrays.ops import ops_of
from rollkit._errors import refusal
from rollkit._rollouts.columns import level_of
from rollkit._rollouts.fields import FIELDS
from rollkit._rollouts.other_masks import warn_of_other_masks
from rollkit._rollouts.rollouts import Rollouts
from rollkit._rows.layout import Layout
from rollkit._rows.parts import Parts, end_to_end
from rollkit._rows.place import parts_of
from rollkit._rows.ragged import Ragged


def loss_masks_of(rollouts: Rollouts) -> Ragged:
    """The loss masks, an element per response token: as in a batch, those of labels where none are given."""
    if "loss_masks" in rollouts:
        masks = rollouts["loss_masks"]
        if not isinstance(masks, Ragged):
            text = "expected an element per token, got one per row"
            raise refusal(ValueError, text, column="loss_masks")
        return masks
    responses = rollouts.ragged("response_ids" if "response_ids" in rollouts else "input_ids")
    if "labels" in rollouts:
        return _of_responses(rollouts, responses)
    warn_of_other_masks(rollouts.columns)
    rows = Layout.concat(responses.lengths)
    return Ragged(np.ones(rows.size, np.uint8), rows.offsets())


def masks_of_labels(labels: Parts) -> Parts:
    """Rows that are 1 where those of labels have one, and 0 where they are ignored; of their framework."""
    values, offsets = end_to_end(labels)
    own = ops_of(values)
    masks = own.cast(own.wide(values) != FIELDS["labels"].fill, np.uint8)
    return Parts.over(masks, offsets[:-1], labels.lengths)


def _of_responses(rollouts: Rollouts, responses: Ragged) -> Ragged:
    """Those of labels, but for the prompts'."""
    masks = masks_of_labels(parts_of(rollouts.ragged("labels")))
    whole = "response_ids" not in rollouts or "prompt_token_ids" not in rollouts
    prompts = 0 * responses.lengths if whole else rollouts.ragged("prompt_token_ids").lengths
    if level_of("labels", masks.lengths, prompts, responses.lengths) == "sequence":
        masks = masks.spans(prompts, responses.lengths)
    return Ragged(*end_to_end(masks))
