"""What the service does: keyword-only functions that take a transaction and never commit."""
