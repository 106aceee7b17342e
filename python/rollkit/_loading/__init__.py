"""What a loader is made of: bins on demand, orders that resume, mixtures, a ledger. Knows no framework."""
