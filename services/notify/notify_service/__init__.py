"""Messages to debtors: templates, requests, sends, delivery, suppression."""
