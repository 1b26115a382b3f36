"""Safety: from contrast sets to a calibrated, conditional, audited guard."""
