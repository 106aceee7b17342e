"""Drop-in functions: the names, signatures, results and errors of other libraries."""
