"""The local platform: what `make run`, `make test`, `make demo` and `make bench` start on one machine."""
