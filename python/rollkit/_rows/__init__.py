"""Rows, layouts, and what moves the one to the other. Knows no column names."""
