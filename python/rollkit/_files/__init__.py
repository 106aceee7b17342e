"""Rollouts in files and folders. Knows no feature."""
