"""The data path between LLM rollouts and the training step."""

from rollkit._native import __version__ as __version__
