"""What notify does: each function takes a transaction of one agency and never commits."""
