"""The topology document: making it, writing and reading it, drawing it, and telling two apart."""

from crossbus.exporting.making import PROVIDERS, Document, Export, Refusal, export

__all__ = ["PROVIDERS", "Document", "Export", "Refusal", "export"]
