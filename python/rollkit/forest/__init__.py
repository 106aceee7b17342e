"""Rollouts that share prefixes: the tree of their tokens, each token stored once."""

from rollkit.forest._tree import TokenTree as TokenTree

__all__ = ["TokenTree"]
