"""The outside world of notify: texts (Jinja, babel), mail (SMTP), the services it asks."""
