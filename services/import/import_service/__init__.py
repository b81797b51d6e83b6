"""Files in: portfolios and payments, row by row checked, applied by slices."""
