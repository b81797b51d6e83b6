"""What several test folders share: `from support import databases, ...`."""
