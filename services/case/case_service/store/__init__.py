"""All SQL of the case service: the tables in ``tables``, then one module for each thing that is stored.

The agency is the first argument after the transaction, and a condition of every statement; row-level security is the
second wall.
"""
