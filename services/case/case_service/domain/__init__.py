"""Rules of the case service: pure, no clock, no I/O.

``cases``: the state machine. ``contact``: what an outcome means for a case. ``ladder``: levels by days past
due. ``places``: where a person is (zone, region). ``permission``: may this person be contacted now.
``rules``: the dated rule data behind it.
"""
