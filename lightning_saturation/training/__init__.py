"""What every callback shares: when windows open and close, what may fail, what is logged, kept and resumed."""
