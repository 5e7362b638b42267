"""What the signals are worth and which of the papers' claims hold: tables from committed records."""
