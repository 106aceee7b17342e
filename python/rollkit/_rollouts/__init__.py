"""Columns of rollouts: what each is per, and what is computed of them. Knows no batch."""
