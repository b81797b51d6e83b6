"""The only code two services share. No domain words in it; each module is one line of
lib/servicekit/README.md.
"""
