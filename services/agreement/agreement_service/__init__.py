"""Agreement: balance and allocation of every title after placement, agreements, instruments, payments, ledger."""
