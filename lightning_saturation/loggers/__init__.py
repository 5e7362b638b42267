"""Scalars, figures, tables and text to whatever loggers a run has, by what each of them can take.

No logger is needed, none is ever the reason for a run to end, and Lightning is not imported: any object with
``log_metrics`` will do. The functions here know no ranks and no instrument: call them on the first rank only.
"""
