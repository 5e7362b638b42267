"""The runs of `docs/evidence.md`: plan, protocol, records, figures."""
