"""The methods: advantages, losses, SFT, GRPO (GRPO-D is GRPO with another schedule), and the loop that runs them."""
