"""Rollouts to training batches: `pad`, `pack`, and the `Batch` they make."""

from rollkit._batch.batch import Batch as Batch
from rollkit._batch.pack import pack as pack
from rollkit._batch.pack import pad as pad
