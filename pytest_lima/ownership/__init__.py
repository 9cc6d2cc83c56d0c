"""Who owns which instance: the ledger and the pool."""
