"""What inference engines and environments return, as `Rollouts`: a function each, none imports its engine.

Everything is read by the names of fields, of dicts and of objects alike, so that what came over HTTP and what
an engine in the same process returns are one. Each function takes a sequence of results and gives one row a
sample, the samples of a prompt next to each other. A field that no result has leaves its column out; one that
some have and others lack is an error that names the row.
"""

from rollkit.engines._openai import from_openai as from_openai
from rollkit.engines._sglang import from_sglang as from_sglang
from rollkit.engines._trl import from_trl as from_trl
from rollkit.engines._verifiers import from_verifiers as from_verifiers
from rollkit.engines._vllm import from_vllm as from_vllm

__all__ = ["from_openai", "from_sglang", "from_trl", "from_verifiers", "from_vllm"]
