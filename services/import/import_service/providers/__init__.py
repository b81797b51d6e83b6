"""The outside world: files as creditors and banks write them, and the services that take a batch back."""
