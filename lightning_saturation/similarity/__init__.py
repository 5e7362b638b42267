"""How alike two representations are: SVCCA and its relatives, and how layers approach their final form."""
