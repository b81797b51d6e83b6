"""What the case service does, one keyword-only function a thing; each takes a transaction and never
commits.

``moments``: the agency's now and business date. ``facts``: what is published. The rest by subject.
"""
