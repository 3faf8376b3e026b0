"""The server: Event Grid's namespace protocol, and crossbus's own, over one engine.

Nothing here is imported with the package: it needs what the extra `server` installs.
"""
