"""A signed confession of debt as it is uploaded (S1-27): what is taken for one."""

from servicekit import errors

MAX_BYTES = 7 * 1024 * 1024
"""Size limit: the whole call has to fit in a message of 8 MiB."""
_TYPES = (
    (b"%PDF-", "application/pdf"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
)


def content_type(content: bytes) -> str:
    """The type that the first bytes say, whatever its name was. Raises InvalidRequest for others, and for the size."""
    if not 0 < len(content) <= MAX_BYTES:
        raise errors.invalid("content", f"expected 1 to {MAX_BYTES} bytes")
    for magic, found in _TYPES:
        if content.startswith(magic):
            return found
    raise errors.invalid("content", "expected a PDF, a PNG or a JPEG")
