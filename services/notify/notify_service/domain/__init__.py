"""Rules of messages: standard library and money only; no clock, no I/O."""
