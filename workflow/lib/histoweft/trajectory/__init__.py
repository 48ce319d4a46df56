"""Where cells are going: pseudotime, transition matrices, terminal states, fate probabilities, driver genes."""
