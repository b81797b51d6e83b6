"""Cases and everything around them but money. See services/case/README.md."""
