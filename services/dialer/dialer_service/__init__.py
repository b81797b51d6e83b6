"""Calls: campaigns, call lists, pacing, agents, dispositions. See services/dialer/README.md."""
