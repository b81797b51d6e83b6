"""`make bench`: speed and memory of the platform, each as a ratio against a bare baseline measured in the same run.

A section starts its own platform in its own state folder on free ports and removes it. What is measured and why is in
docs/benchmarks.md; `python -m recupera_local.bench --help` says how to run a part.
"""
