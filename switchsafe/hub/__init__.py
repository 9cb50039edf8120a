"""What leaves this machine, and the look at it beforehand."""
