"""Labels, splits, the vault, and the blocks that models are fitted on."""
