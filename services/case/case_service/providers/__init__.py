"""The outside world behind small functions: public holidays, slices of files at the import service."""
