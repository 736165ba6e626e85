"""What every environment shares: the batched core, snapshots, configuration."""
